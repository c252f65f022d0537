"""SaveConfig: what a gateway has become is in its file, and all else there stays."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from wgmp import config, keys
from wgmp.addresses import parse_endpoint, parse_prefix
from wgmp.device import Device
from wgmp.manage import saving
from wgmp.peertable import RowFigures
from wgmp.protocol.outcome import Endpoint

UNCLAMPED = bytes([7]) * 32
PRIVATE = keys.to_base64(UNCLAMPED)
ONE, TWO, THREE = (bytes([n]) * 32 for n in (1, 2, 3))
A, B, C = map(keys.to_base64, (ONE, TWO, THREE))
NAMED = parse_endpoint("192.0.2.7:51820")  # where the name in the file leads

FILE = f"""\
# The office.
[Interface]
PrivateKey = {PRIVATE}
ListenPort=51820
Address = 10.0.0.1/24
SaveConfig = true

# Alice
[Peer]
PublicKey = {A}
Endpoint = vpn.example.org:51820  # at home
AllowedIPs = 10.0.0.3/32, 10.0.0.2/32

[Peer]
PublicKey = {B}
"""


class Sockets:
    """The outside of a device: everything is possible."""

    def open_port(self, port: int) -> int:
        """Give what is asked for."""
        return port or 40000

    def set_fwmark(self, mark: int) -> None:
        """Take any."""


class Gateway:
    """A device that was made what the file says, and where its peers are now."""

    def __init__(self, directory: Path, text: str = FILE) -> None:
        self.path = directory / "wg0.conf"
        self.path.write_text(text)
        self.path.chmod(0o600)
        self.device = Device(Sockets())
        config.apply(config.load(self.path), self.device, lambda text: NAMED)
        self._at_start = saving.endpoints_of(self.device)
        self.roamed: dict[int, Endpoint] = {}

    def save(self) -> None:
        """Do what a gateway does when it stops."""
        saving.save_if_wanted(self.path, self.device, self._figures, self._at_start)

    def saved(self) -> str:
        """Return what the file says when the gateway has stopped."""
        self.save()
        return self.path.read_text()

    def _figures(self, peer: int) -> RowFigures:
        return RowFigures(self.roamed.get(peer), 0, 0, 0)


def test_a_gateway_that_is_what_the_file_says_leaves_it_alone(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    inode = gateway.path.stat().st_ino
    gateway.roamed[gateway.device.peers[ONE].peer] = NAMED
    assert gateway.saved() == FILE
    assert gateway.path.stat().st_ino == inode, "it is not even written"


def test_a_file_that_does_not_ask_for_it_is_left_alone(tmp_path: Path) -> None:
    for text in (FILE.replace("= true", "= false"), FILE.replace("SaveConfig = true\n", "")):
        gateway = Gateway(tmp_path, text)
        gateway.device.set_listen_port(1)
        gateway.device.replace_peers()
        assert gateway.saved() == text


def test_port_mark_and_key_that_wg_has_set_are_written(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    gateway.device.set_listen_port(7)
    gateway.device.set_fwmark(0xCA6C)
    changed = FILE.replace("ListenPort=51820\n", "ListenPort = 7\n")
    changed = changed.replace("SaveConfig = true\n", "SaveConfig = true\nFwMark = 0xca6c\n")
    assert gateway.saved() == changed
    new = keys.generate_private_key()
    gateway.device.set_private_key(new)
    assert gateway.saved() == changed.replace(PRIVATE, keys.to_base64(new))
    assert gateway.path.stat().st_mode & 0o777 == 0o600


def test_peers_come_go_and_change(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    device = gateway.device
    device.remove_peer(device.peers[TWO])
    added = device.add_peer(THREE)
    assert added is not None
    device.set_preshared_key(added, ONE)
    device.set_keepalive(added, 25)
    device.set_endpoint(added, parse_endpoint("[2001:db8::1]:9"))
    device.add_allowed_ip(added, parse_prefix("fd00::/64"))
    device.add_allowed_ip(device.peers[ONE], parse_prefix("10.0.0.4/32"))
    kept = FILE[: FILE.index(f"\n[Peer]\nPublicKey = {B}")]
    allowed = "10.0.0.3/32, 10.0.0.2/32"
    assert gateway.saved() == kept.replace(allowed, f"{allowed}, 10.0.0.4/32") + (
        f"\n[Peer]\nPublicKey = {C}\nPresharedKey = {A}\nEndpoint = [2001:db8::1]:9\n"
        "AllowedIPs = fd00::/64\nPersistentKeepalive = 25\n"
    )


def test_the_order_of_allowed_ips_is_not_a_change(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    entry = gateway.device.peers[ONE]
    prefixes = sorted(entry.allowed_ips)
    assert prefixes != entry.allowed_ips
    gateway.device.replace_allowed_ips(entry)
    for prefix in prefixes:
        gateway.device.add_allowed_ip(entry, prefix)
    assert gateway.saved() == FILE


def test_a_peer_is_written_where_it_is_now(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    one, two = gateway.device.peers[ONE], gateway.device.peers[TWO]
    gateway.roamed = {one.peer: parse_endpoint("198.51.100.1:7"), two.peer: NAMED}
    named = "Endpoint = vpn.example.org:51820  # at home\n"
    roamed = FILE.replace(named, "Endpoint = 198.51.100.1:7\n")
    assert gateway.saved() == f"{roamed}Endpoint = 192.0.2.7:51820\n", "one that only called, too"


def test_a_keepalive_and_a_preshared_key_that_are_taken_away_are_off(tmp_path: Path) -> None:
    given = f"PublicKey = {B}\nPresharedKey = {C}\nPersistentKeepalive = 25\n"
    gateway = Gateway(tmp_path, FILE.replace(f"PublicKey = {B}\n", given))
    entry = gateway.device.peers[TWO]
    gateway.device.set_preshared_key(entry, keys.ZERO_KEY)
    gateway.device.set_keepalive(entry, 0)
    again = Device(Sockets())
    gateway.saved()
    config.apply(config.load(gateway.path), again, lambda text: NAMED)
    assert (again.peers[TWO].preshared_key, again.peers[TWO].keepalive) == (keys.ZERO_KEY, 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "wg0.conf: cannot be read: No such file or directory: not saved"),
        ("[Interfaze]\n", "wg0.conf:1: [Interfaze] is no section: write [Interface] or [Peer]"),
    ],
)
def test_a_file_that_cannot_be_revised_is_warned_of_and_stays(
    tmp_path: Path, text: str | None, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = Gateway(tmp_path)
    gateway.path.unlink()
    if text is not None:
        gateway.path.write_text(text)
    with caplog.at_level(logging.WARNING):
        gateway.save()
    assert f"SaveConfig: {tmp_path}/{said}" in caplog.text
    assert [path.read_text() for path in tmp_path.iterdir()] == ([] if text is None else [text])
