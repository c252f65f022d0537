"""Configuration files: what is read, what is refused, and what a device becomes."""

from __future__ import annotations

import errno
import io
import ipaddress
import shutil
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from wgmp import config, keys
from wgmp.addresses import parse_endpoint, parse_prefix
from wgmp.config import QuickConfig
from wgmp.device import Device, DeviceFullError
from wgmp.errors import ConfigError, SocketError
from wgmp.protocol.outcome import Endpoint

PRIVATE = keys.clamp(bytes([7]) * 32)
PRIVATE_TEXT = keys.to_base64(PRIVATE)
PUBLIC, OTHER, PSK = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32
A, B, PSK_TEXT = keys.to_base64(PUBLIC), keys.to_base64(OTHER), keys.to_base64(PSK)

WHOLE = f"""\
# a gateway
[Interface]
PrivateKey = {PRIVATE_TEXT}   # secret
ListenPort = 51820
FwMark = 0xca6c
Address = 10.0.0.1/24, fd00::1/64
Address = 192.0.2.7
DNS = 9.9.9.9, 2620:fe::fe, example.org
MTU = 1380
Table = off
PreUp = true
PostUp = ip rule add x; echo a=b
PostUp = second %i
PreDown = one
PostDown = two
SaveConfig = true

[Peer]
PublicKey = {A}
PresharedKey = {PSK_TEXT}
Endpoint = vpn.example.org:51820
AllowedIPs = 10.1.0.0/16, fd00:1::/64
AllowedIPs = 192.0.2.8
PersistentKeepalive = 25

[peer]
publickey={B}
persistentkeepalive = OFF
"""


def parse(text: str) -> QuickConfig:
    return config.parse(text, "wg0.conf")


def interface(line: str) -> config.InterfaceConfig:
    return parse(f"[Interface]\n{line}").interface


def peer(line: str) -> config.PeerConfig:
    return parse(f"[Peer]\nPublicKey={A}\n{line}").peers[0]


class Sockets:
    """The outside: one port is taken, one mark is refused."""

    def open_port(self, port: int) -> int:
        if port == 5353:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        return port or 40000

    def set_fwmark(self, mark: int) -> None:
        if mark == 0xDEAD:
            raise OSError(errno.EPERM, "Operation not permitted")


def no_resolver(text: str) -> Endpoint:
    raise ValueError("Name or service not known")


# Reading


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "wg0.conf"
    path.write_text(WHOLE)
    read = config.load(path)
    assert read.file == str(path)
    assert read.interface == config.InterfaceConfig(
        private_key=PRIVATE,
        listen_port=51820,
        fwmark=0xCA6C,
        addresses=(
            ipaddress.ip_interface("10.0.0.1/24"),
            ipaddress.ip_interface("fd00::1/64"),
            ipaddress.ip_interface("192.0.2.7/32"),
        ),
        dns=(
            ipaddress.ip_address("9.9.9.9"),
            ipaddress.ip_address("2620:fe::fe"),
            "example.org",
        ),
        mtu=1380,
        table="off",
        pre_up=("true",),
        post_up=("ip rule add x; echo a=b", "second %i"),
        pre_down=("one",),
        post_down=("two",),
        save_config=True,
    )
    prefixes = ("10.1.0.0/16", "fd00:1::/64", "192.0.2.8/32")
    assert read.peers == (
        config.PeerConfig(
            public_key=PUBLIC,
            preshared_key=PSK,
            endpoint="vpn.example.org:51820",
            allowed_ips=tuple(parse_prefix(prefix) for prefix in prefixes),
            keepalive=25,
            line=18,
        ),
        config.PeerConfig(public_key=OTHER, line=26, keepalive=0),
    )


def test_blanks_and_case_matter_no_more_than_to_wg() -> None:
    text = (
        "  [ INTERFACE ]\r\n\tlisten port\t=\t5 # x\r\n[pEER]\nPUBLICKEY={}\nallowedips=10.0.0.0 /8"
    )
    read = parse(text.format(A))
    assert read.interface.listen_port == 5
    assert read.peers[0].allowed_ips == (parse_prefix("10.0.0.0/8"),)


def test_of_a_repeated_single_value_the_last_counts() -> None:
    assert interface("ListenPort=1\nListenPort=2").listen_port == 2
    assert peer("PersistentKeepalive=1\nPersistentKeepalive=2").keepalive == 2


def test_wg_quicks_keys_without_a_value_are_as_good_as_not_there() -> None:
    names = ("Address", "DNS", "MTU", "Table", "PreUp", "PostUp", "PreDown", "PostDown")
    empty = "".join(f"{name} = # none\n" for name in names)
    assert interface(empty) == config.InterfaceConfig()
    lists = "Address=10.0.0.1/24\nDNS=9.9.9.9\nPreUp=true\nPostUp=a\nPreDown=b\nPostDown=c\n"
    singles = "MTU=1400\nTable=off\n"
    # of the singles it is the last one that counts
    assert interface(singles + lists + empty) == interface(lists)


def test_a_section_can_be_opened_twice_and_a_file_be_empty() -> None:
    read = parse(f"[Interface]\nMTU=1400\n[Peer]\nPublicKey={A}\n[Interface]\nFwMark=9")
    assert (read.interface.mtu, read.interface.fwmark) == (1400, 9)
    assert parse("").peers == ()


@pytest.mark.parametrize(
    ("line", "fwmark"), [("off", 0), ("OFF", 0), ("0", 0), ("0xFFffFFff", 0xFFFFFFFF), ("010", 10)]
)
def test_fwmarks_are_read_as_wg_reads_them(line: str, fwmark: int) -> None:
    assert interface(f"FwMark={line}").fwmark == fwmark


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("MTU=1400", 1, "write [Interface]"),
        ("\n[Interfaces]", 2, "write [Interface] or [Peer]"),
        ("[Interface]\nnonsense", 2, "write key = value"),
        ("[Interface]\n\nMtv=1", 3, "Mtv is not known in this section: write one of PrivateKey"),
        ("[Interface]\nPublicKey=x", 2, "is not known in this section"),
        ("[Peer]\nAddress=10.0.0.1", 2, "write one of PublicKey, PresharedKey, Endpoint"),
        ("[Interface]\nFwMark=", 2, "FwMark has no value: write one, or leave the line out"),
        ("[Interface]\nSaveConfig=#true", 2, "SaveConfig has no value"),
        ("[Interface]\nMTU=67", 2, "write a number of 68 to 65535"),
        ("[Interface]\nMTU=big", 2, "write a number"),
        ("[Interface]\nListenPort=65536", 2, "write a number of 0 to 65535"),
        ("[Interface]\nListenPort=-1", 2, "ListenPort: -1"),
        ("[Interface]\nListenPort=²", 2, "ListenPort: ²"),
        ("[Interface]\nFwMark=0x100000000", 2, "write off, or 1 to 0xffffffff"),
        ("[Interface]\nFwMark=4294967296", 2, "write off, or 1 to 0xffffffff"),
        ("[Interface]\nPrivateKey=abc", 2, "PrivateKey: this is no key: write the 44"),
        ("[Interface]\nAddress=10.0.0.1/33", 2, "write for example 10.0.0.1/24"),
        ("[Interface]\nDNS=9.9.9", 2, "write for example 9.9.9.9"),
        ("[Interface]\nTable=a b", 2, "write off, auto, a number or a name"),
        ("[Interface]\nSaveConfig=1", 2, "write true or false"),
        ("[Peer]\nEndpoint=1.2.3.4:1", 1, "add PublicKey"),
        (f"[Peer]\nPublicKey={A}\n[Peer]\n", 3, "add PublicKey"),
        ("[Peer]\nEndpoint=example.org", 2, "write for example vpn.example.org:51820"),
        ("[Peer]\nEndpoint=::1:5", 2, "Endpoint: ::1:5 is not"),
        ("[Peer]\nEndpoint=x:0", 2, "has no port of 1 to 65535"),
        ("[Peer]\nEndpoint=x:99999", 2, "has no port of 1 to 65535"),
        ("[Peer]\nAllowedIPs=10.0.0.0/8,", 2, "write for example 10.0.0.0/8, fd00::/64"),
        ("[Peer]\nAllowedIPs=10.0.0.0/33", 2, "has no prefix length of 0 to 32"),
        ("[Peer]\nAllowedIPs=ten/8", 2, "is not an IP address"),
        ("[Peer]\nPersistentKeepalive=65536", 2, "write off, or 1 to 65535 seconds"),
    ],
)
def test_mistakes_are_told_with_line_and_remedy(text: str, line: int, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert str(caught.value).startswith(f"wg0.conf:{line}: ")
    assert message in str(caught.value)
    assert (caught.value.file, caught.value.line) == ("wg0.conf", line)


def test_a_mistaken_key_is_not_repeated() -> None:
    for name, section in (("PrivateKey", "Interface"), ("PresharedKey", "Peer")):
        with pytest.raises(ConfigError) as caught:
            parse(f"[{section}]\n{name} = {PRIVATE_TEXT}x")
        assert PRIVATE_TEXT[:8] not in str(caught.value)


def test_a_file_that_cannot_be_read_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        config.load(tmp_path / "none.conf")
    (tmp_path / "latin.conf").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        config.load(tmp_path / "latin.conf")


def test_no_repr_shows_a_key() -> None:
    read = parse(WHOLE)
    output = io.StringIO()
    Console(file=output, width=4000).print(read, *read.peers, read.interface)
    text = f"{read!r} {read} {read.interface!r} {read.peers[0]!r} {output.getvalue()}"
    assert "51820" in text
    assert text.count("private_key='(hidden)'") == 5
    for key in (PRIVATE, PUBLIC, PSK):
        for form in (repr(key)[2:-1], key.hex(), keys.to_base64(key)):
            assert form not in text


# Meaning


def test_a_device_becomes_what_the_file_says() -> None:
    device = Device(Sockets())
    device.add_peer(bytes([9]) * 32)
    lines = config.apply(parse(WHOLE), device, lambda text: parse_endpoint("192.0.2.1:1"))
    assert lines == []
    assert (device.private_key, device.listen_port, device.fwmark) == (PRIVATE, 51820, 0xCA6C)
    assert list(device.peers) == [PUBLIC, OTHER]
    entry = device.peers[PUBLIC]
    assert (entry.preshared_key, entry.keepalive) == (PSK, 25)
    assert entry.endpoint == parse_endpoint("192.0.2.1:1")
    assert len(entry.allowed_ips) == 3


def test_a_peers_second_section_changes_what_it_gives() -> None:
    second = f"[Peer]\nPublicKey={A}\nAllowedIPs=10.9.0.0/16\n"
    device = Device(Sockets())
    config.apply(parse(WHOLE + second), device, lambda text: parse_endpoint("192.0.2.1:1"))
    entry = device.peers[PUBLIC]
    assert (entry.preshared_key, entry.keepalive) == (PSK, 25)
    assert entry.endpoint == parse_endpoint("192.0.2.1:1")
    assert entry.allowed_ips == [parse_prefix("10.9.0.0/16")], "each section gives them all"


def test_a_name_without_an_address_costs_the_peer_its_endpoint_only() -> None:
    device = Device(Sockets())
    (line,) = config.apply(parse(WHOLE), device, no_resolver)
    assert line.startswith("wg0.conf:18: endpoint vpn.example.org:51820: Name or service not")
    assert device.peers[PUBLIC].endpoint is None
    assert device.peers[PUBLIC].keepalive == 25


def test_ourselves_as_a_peer_is_a_notice() -> None:
    public = keys.to_base64(keys.public_key_of(PRIVATE))
    text = f"[Interface]\nPrivateKey={PRIVATE_TEXT}\n[Peer]\nPublicKey={public}\nEndpoint=1.2.3.4:5"
    device = Device(Sockets())
    assert config.apply(parse(text), device, parse_endpoint) == [
        "wg0.conf:3: this peer has our own key, and is ignored"
    ]
    assert device.peers == {}


def test_a_port_a_mark_or_peers_too_many_are_said_plainly() -> None:
    with pytest.raises(SocketError, match="UDP port 5353: Address already in use: choose") as port:
        config.apply(parse("[Interface]\nListenPort=5353"), Device(Sockets()), no_resolver)
    assert port.value.errno == errno.EADDRINUSE
    with pytest.raises(SocketError, match="FwMark: Operation not permitted"):
        config.apply(parse("[Interface]\nFwMark=0xdead"), Device(Sockets()), no_resolver)
    with pytest.raises(DeviceFullError, match="more than 1 peers"):
        config.apply(parse(WHOLE), Device(Sockets(), capacity=1), no_resolver)


def test_what_wgmp_does_not_do_is_noticed() -> None:
    assert config.notices(parse(WHOLE)) == [
        "wg0.conf: PreUp, PostUp, PreDown, PostDown: not run: they are shell commands, "
        "add --run-hooks to run them"
    ]
    assert config.notices(parse(WHOLE), run_hooks=True) == []
    assert config.notices(parse("[Interface]\nMTU=1400")) == []


@pytest.mark.skipif(shutil.which("wg-quick") is None, reason="needs wireguard-tools' wg-quick")
def test_wg_quick_takes_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "wg0.conf"
    path.write_text(WHOLE)
    path.chmod(0o600)
    done = subprocess.run(
        ["wg-quick", "strip", str(path)], capture_output=True, text=True, timeout=20
    )
    if done.returncode:
        pytest.skip(f"wg-quick does not run here: {done.stderr.strip()}")
    whole, stripped = parse(WHOLE), parse(done.stdout)
    assert [p.public_key for p in stripped.peers] == [p.public_key for p in whole.peers]
    assert stripped.interface == config.InterfaceConfig(
        private_key=PRIVATE, listen_port=51820, fwmark=0xCA6C
    )
