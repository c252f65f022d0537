"""Key files and secret keys: made, read, watched over, and shown nowhere."""

from __future__ import annotations

import logging
import pickle
import stat
from pathlib import Path

import pytest

from wgmp import keys
from wgmp.addresses import parse_endpoint
from wgmp.agent import keyfiles
from wgmp.agent.device_lines import lines
from wgmp.agent.secret import SecretKey, Secrets
from wgmp.agent.settings import AgentSettings, NetworkSettings, PeerSettings
from wgmp.agent.uapi_client import DeviceView, PeerView
from wgmp.agent.values import AllowedIP, PublicKey
from wgmp.errors import ConfigError

PUBLIC, OTHER = PublicKey("A" * 43 + "="), PublicKey("B" * 42 + "A=")


def secrets_of(directory: Path, network: NetworkSettings) -> Secrets:
    agent = AgentSettings(keys_directory=str(directory))
    return keyfiles.secrets_of("home", network, agent)


def test_a_network_without_keys_gets_a_pair_that_nobody_else_can_read(tmp_path: Path) -> None:
    secrets = secrets_of(tmp_path / "keys", NetworkSettings())
    home = tmp_path / "keys" / "home"
    private, public = home / "private.key", home / "public.key"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert sorted(home.iterdir()) == [private, public], "nothing else lies about"
    for path in (private, public):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = keys.from_base64(private.read_text().strip())
    assert public.read_text().strip() == keys.to_base64(keys.public_key_of(key))
    assert secrets.private.public() == keys.public_key_of(key)


def test_a_second_start_has_the_same_key_and_a_changed_one_a_new_public_key(tmp_path: Path) -> None:
    first = secrets_of(tmp_path, NetworkSettings()).private.public()
    files = {path: path.stat().st_ino for path in (tmp_path / "home").iterdir()}
    assert secrets_of(tmp_path, NetworkSettings()).private.public() == first
    again = {path: path.stat().st_ino for path in (tmp_path / "home").iterdir()}
    assert again == files, "nothing is written again"
    new = keys.generate_private_key()
    keyfiles.write(tmp_path / "home" / "private.key", new)
    secrets_of(tmp_path, NetworkSettings())
    public = (tmp_path / "home" / "public.key").read_text().strip()
    assert public == keys.to_base64(keys.public_key_of(new))


def test_a_damaged_public_key_file_is_written_anew(tmp_path: Path) -> None:
    key = secrets_of(tmp_path, NetworkSettings()).private.public()
    public = tmp_path / "home" / "public.key"
    public.write_bytes(b"\xff\0")
    secrets_of(tmp_path, NetworkSettings())
    assert public.read_text().strip() == keys.to_base64(key)


def test_a_key_file_of_ones_own_is_never_made(tmp_path: Path) -> None:
    path = tmp_path / "mine.key"
    network = NetworkSettings(private_key_path=str(path))
    with pytest.raises(ConfigError, match=r"mine\.key: cannot be read: No such file"):
        secrets_of(tmp_path, network)
    assert not path.exists()


@pytest.mark.parametrize(
    "text", ["", "short", "A" * 44, "A" * 43 + "=\nrest", "A" * 5000, "é" * 44]
)
def test_what_is_no_key_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    path = tmp_path / "psk"
    path.write_text(text)
    with pytest.raises(ConfigError, match="this is no key: put in what `wgmp genkey`") as caught:
        keyfiles.read(path)
    assert not text or text[:5] not in str(caught.value)


def test_a_key_that_others_can_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "psk"
    path.write_text("A" * 43 + "=\n")
    path.chmod(0o640)
    with caplog.at_level(logging.WARNING):
        keyfiles.read(path)
    assert f"{path} can be read by others than its owner: chmod 600 {path}" in caplog.text
    caplog.clear()
    path.chmod(0o600)
    keyfiles.read(path)
    assert caplog.text == ""


def test_a_secret_key_shows_itself_nowhere() -> None:
    key = keys.generate_private_key()
    secret = SecretKey(key)
    for text in (repr(secret), str(secret), f"{secret}", repr([secret])):
        assert "(hidden)" in text
        assert key.hex() not in text
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_secret_keys_are_wiped_when_they_are_no_longer_needed() -> None:
    private, preshared = SecretKey(b"\1" * 32), SecretKey(b"\2" * 32)
    with Secrets(private, {PUBLIC: preshared}):
        pass
    for secret in (private, preshared):
        wiped = bytearray()
        secret.append_hex(wiped)
        assert wiped == b"0" * 64


# What a gateway is told


NETWORK = NetworkSettings(
    listen_port=51820,
    fwmark=5,
    peers=(
        PeerSettings(
            public_key=PUBLIC, allowed_ips=(AllowedIP("10.0.0.0/8"),), persistent_keepalive_secs=25
        ),
        PeerSettings(public_key=OTHER),
    ),
)


MARK = NETWORK.fwmark


def told(
    before: NetworkSettings | None, network: NetworkSettings, *present: str, mark: int = MARK
) -> list[str]:
    """Return the lines, the peers' after the keys they have."""
    secrets = Secrets(SecretKey(b"\1" * 32), {PUBLIC: SecretKey(b"\2" * 32)})
    endpoints = {PUBLIC: parse_endpoint("192.0.2.1:7")} if before is None else {}
    now = DeviceView(listen_port=51820, fwmark=mark, peers={key: PeerView() for key in present})
    return lines(network, secrets, endpoints, before, now).decode().splitlines()


def test_a_new_gateway_is_told_everything() -> None:
    assert told(None, NETWORK) == [
        f"private_key={'01' * 32}",
        "listen_port=51820",
        "fwmark=5",
        f"public_key={'00' * 32}",
        f"preshared_key={'02' * 32}",
        "persistent_keepalive_interval=25",
        "endpoint=192.0.2.1:7",
        "replace_allowed_ips=true",
        "allowed_ip=10.0.0.0/8",
        f"public_key={OTHER.raw.hex()}",
        f"preshared_key={'00' * 32}",
        "persistent_keepalive_interval=0",
        "replace_allowed_ips=true",
    ]


def test_a_running_gateway_is_not_told_what_would_disturb_it() -> None:
    again = told(NETWORK, NETWORK, PUBLIC, OTHER)
    assert not [line for line in again if line.startswith(("endpoint", "listen_port", "fwmark"))]
    assert "remove=true" not in again


def test_a_mark_that_a_failed_change_has_moved_is_told_again() -> None:
    assert "fwmark=5" in told(NETWORK, NETWORK, PUBLIC, OTHER, mark=7)


def test_a_peer_that_is_no_longer_wanted_is_removed() -> None:
    stranger = keys.to_base64(b"\3" * 32)
    again = told(NETWORK, NETWORK, PUBLIC, stranger)
    assert again[1:3] == [f"public_key={'03' * 32}", "remove=true"]
