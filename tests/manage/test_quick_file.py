"""wg-quick files are written, changed and stripped, and nothing in them is lost."""

from __future__ import annotations

import ipaddress
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from wgmp import keys
from wgmp.addresses import parse_prefix
from wgmp.config import InterfaceConfig, PeerConfig, QuickConfig, parse
from wgmp.errors import ConfigError
from wgmp.manage import quick_file

A, B, C = (keys.to_base64(bytes([n]) * 32) for n in (1, 2, 3))
PRIVATE = keys.to_base64(keys.clamp(bytes([7]) * 32))

FILE = f"""\
# The gateway of the office.
#Address = 10.9.9.9/24

[interface]
PrivateKey={PRIVATE} # secret
Address = 10.0.0.1/24
  Address = fd00::1/64,   10.1.0.1/32
DNS = 9.9.9.9,example.org
DNS = example.net
PostUp = one %i
PostUp = two
SaveConfig = true


# Alice's laptop
# (the old one)
[Peer]
AllowedIPs = 10.0.0.2/32
PublicKey = {A}
AllowedIPs = 10.0.0.3/32

[Peer] # the bakery
PublicKey = {B}
#Endpoint = 192.0.2.1:7
Endpoint = vpn.example.org:51820
[Peer]
# friendly_name = Carol = C
PublicKey = {C}
PersistentKeepalive = off"""


def same(config: QuickConfig) -> tuple[InterfaceConfig, list[PeerConfig]]:
    """Return what a configuration says, without where it says so."""
    return config.interface, [structs.replace(peer, line=0) for peer in config.peers]


def read(text: str) -> QuickConfig:
    return parse(text, "wg0.conf")


def test_peers_are_named_by_their_comments() -> None:
    assert [peer.name for peer in read(FILE).peers] == ["Alice's laptop", "the bakery", "Carol = C"]
    above = read(f"[Peer]\nPublicKey={A}\n# friendly_name=Bob\n# b\n[Peer]\nPublicKey={B}")
    assert [peer.name for peer in above.peers] == ["", "Bob"]
    late = read(f"[Peer]\nPublicKey={A}\n\n### Client dora\n\n# friendly_name = Dora")
    assert late.peers[0].name == "Dora"
    assert read(f"#AllowedIPs = 10.0.0.0/8\n[Peer]\nPublicKey={A}").peers[0].name == ""
    banner = read(f"#\n# Erna\n#\n[Peer]\nPublicKey={A}")
    assert banner.peers[0].name == "Erna"
    apart = read(f"# The peers follow.\n\n[Peer]\nPublicKey={A}")
    assert apart.peers[0].name == "", "a comment with a blank line below is about something else"


def test_a_name_in_another_place_is_a_comment_as_any() -> None:
    above = read(f"# friendly_name = nobody\n\n[Interface]\nMTU = 1400\n[Peer]\nPublicKey={A}")
    assert [peer.name for peer in above.peers] == [""]
    inside = read(f"[Interface]\n# friendly_name = us\nMTU = 1400\n[Peer]\nPublicKey={A}")
    assert (inside.interface.mtu, inside.peers[0].name) == (1400, "")


def test_what_says_so_already_is_left_letter_by_letter() -> None:
    assert quick_file.revise(FILE, read(FILE)) == FILE


def test_a_change_touches_only_its_own_lines() -> None:
    config = read(FILE)
    alice, _, carol = config.peers
    interface = structs.replace(config.interface, mtu=1400, dns=(), post_up=("three",))
    peers = (structs.replace(carol, keepalive=25), structs.replace(alice, name="Alice"))
    new = quick_file.revise(FILE, structs.replace(config, interface=interface, peers=peers))
    expected = FILE.replace("DNS = 9.9.9.9,example.org\nDNS = example.net\n", "")
    expected = expected.replace("PostUp = one %i\nPostUp = two\n", "PostUp = three\n")
    expected = expected.replace("SaveConfig = true\n", "SaveConfig = true\nMTU = 1400\n")
    carols = expected[expected.index("[Peer]\n# friendly") :].replace("= off", "= 25\n")
    alices = expected[expected.index("[Peer]\nAllowed") : expected.index("[Peer] # the")]
    alices = alices.replace("[Peer]\n", "[Peer]\n# friendly_name = Alice\n")
    top = expected[: expected.index("# Alice")]
    assert new == top + carols + alices.rstrip("\n") + "\n"


def test_what_comes_after_a_last_line_without_an_end_has_a_line_of_its_own() -> None:
    for text, changed in (
        (f"[Peer]\nPublicKey = {A}", f"[Peer]\nPublicKey = {A}\nPersistentKeepalive = 25\n"),
        ("[Interface]", "[Interface]\nMTU = 1400\n"),
        ("[Interface] # here", "[Interface] # here\nMTU = 1400\n"),
    ):
        config = read(text)
        interface = structs.replace(config.interface, mtu=None if config.peers else 1400)
        peers = tuple(structs.replace(peer, keepalive=25) for peer in config.peers)
        wanted = structs.replace(config, interface=interface, peers=peers)
        assert quick_file.revise(text, wanted) == changed


def test_a_peer_that_gets_another_name_has_no_other_left() -> None:
    config = read(FILE)
    for name in ("Bob", ""):
        renamed = tuple(structs.replace(peer, name=name) for peer in config.peers)
        new = quick_file.revise(FILE, structs.replace(config, peers=renamed))
        assert [peer.name for peer in read(new).peers] == [name] * 3
        assert new.count("friendly_name") == (3 if name else 0)
        for gone in ("Alice", "the bakery", "Carol"):
            assert gone not in new
        assert "#Endpoint = 192.0.2.1:7" in new, "that is no name"


def test_peers_that_come_and_go_leave_no_blank_lines_behind() -> None:
    text = f"[Interface]\nMTU = 1400\n\n[Peer]\nPublicKey = {A}\n"
    for n in range(2, 6):
        peer = PeerConfig(public_key=bytes([n]) * 32)
        text = quick_file.revise(text, structs.replace(read(text), peers=(peer,)))
        key = keys.to_base64(peer.public_key)
        assert text == f"[Interface]\nMTU = 1400\n\n[Peer]\nPublicKey = {key}\n"


def test_strip_knows_a_section_with_a_comment_beside_it() -> None:
    text = f"[Interface] # here\nAddress = 10.0.0.1/24\n[Peer]# there\nPublicKey = {A}\n"
    stripped = quick_file.strip(text)
    assert stripped == text.replace("Address = 10.0.0.1/24\n", "")


def test_a_new_file_is_laid_out_for_people() -> None:
    peers = (
        PeerConfig(public_key=bytes([1]) * 32, name="Alice", keepalive=25),
        PeerConfig(public_key=bytes([2]) * 32, allowed_ips=(parse_prefix("10.0.0.0/8"),)),
    )
    interface = InterfaceConfig(
        fwmark=0xCA6C, addresses=(ipaddress.ip_interface("10.0.0.1/24"),), table="off"
    )
    assert quick_file.write(QuickConfig("wg0.conf", interface, peers)) == (
        "[Interface]\nFwMark = 0xca6c\nAddress = 10.0.0.1/24\nTable = off\n\n"
        f"[Peer]\n# friendly_name = Alice\nPublicKey = {A}\nPersistentKeepalive = 25\n\n"
        f"[Peer]\nPublicKey = {B}\nAllowedIPs = 10.0.0.0/8\n"
    )


@pytest.mark.parametrize("hook", ["echo # x", "one\ntwo", " blank", ""])
def test_a_hook_that_no_file_can_hold_is_refused(hook: str) -> None:
    config = QuickConfig("wg0.conf", InterfaceConfig(post_up=(hook,)), ())
    with pytest.raises(ConfigError, match="cannot stand in a wg-quick file: write it without"):
        quick_file.write(config)


@pytest.mark.skipif(shutil.which("wg-quick") is None, reason="needs wireguard-tools' wg-quick")
def test_strip_does_what_wg_quick_strip_does(tmp_path: Path) -> None:
    path = tmp_path / "wg0.conf"
    path.write_text(FILE)
    path.chmod(0o600)
    done = subprocess.run(
        ["wg-quick", "strip", str(path)], capture_output=True, text=True, timeout=20
    )
    if done.returncode:
        pytest.skip(f"wg-quick does not run here: {done.stderr.strip()}")
    assert quick_file.strip(FILE) + "\n" == done.stdout


# Any file

WORDS = st.text("abcXYZ019-_.,'=!$%& ", min_size=1, max_size=12).map(str.strip).filter(bool)
NAMES = WORDS.map(lambda text: " ".join(text.split()))
KEYS = st.binary(min_size=32, max_size=32)
HOOKS = st.lists(WORDS, max_size=3).map(tuple)
DOMAINS = st.from_regex(r"[a-z]{1,5}(\.[a-z]{1,5}){0,2}", fullmatch=True)
PREFIXES = st.sampled_from(["10.0.0.0/8", "0.0.0.0/0", "::/0", "fd00::/64", "192.0.2.1/32"])
ADDRESSES = st.sampled_from(["10.0.0.1/24", "192.0.2.7/32", "fd00::1/64", "fe80::1/10"])

INTERFACES = st.builds(
    InterfaceConfig,
    private_key=st.one_of(st.just(b""), KEYS),
    listen_port=st.integers(0, 65535),
    fwmark=st.integers(0, 0xFFFFFFFF),
    addresses=st.lists(ADDRESSES.map(ipaddress.ip_interface), max_size=3).map(tuple),
    dns=st.lists(st.one_of(st.ip_addresses(), DOMAINS), max_size=4).map(tuple),
    mtu=st.one_of(st.none(), st.integers(68, 65535)),
    table=st.sampled_from(["auto", "off", "1234", "vpn"]),
    pre_up=HOOKS,
    post_up=HOOKS,
    pre_down=HOOKS,
    post_down=HOOKS,
    save_config=st.booleans(),
)
PEERS = st.builds(
    PeerConfig,
    public_key=st.sampled_from([bytes([n]) * 32 for n in range(6)]),
    name=st.one_of(st.just(""), NAMES),
    preshared_key=st.one_of(st.none(), KEYS),
    endpoint=st.sampled_from(["", "vpn.example.org:51820", "192.0.2.1:1", "[fd00::1]:65535"]),
    allowed_ips=st.lists(PREFIXES.map(parse_prefix), max_size=4).map(tuple),
    keepalive=st.one_of(st.none(), st.integers(0, 65535)),
)
CONFIGS = st.builds(
    QuickConfig, st.just("wg0.conf"), INTERFACES, st.lists(PEERS, max_size=4).map(tuple)
)


@settings(max_examples=60, deadline=None)
@given(CONFIGS, CONFIGS, st.data())
def test_whatever_is_written_is_read_again(
    one: QuickConfig, other: QuickConfig, data: st.DataObject
) -> None:
    text = quick_file.write(one)
    assert same(read(text)) == same(one)
    # People's lines in between, which change nothing.
    lines = text.splitlines()
    for _ in range(data.draw(st.integers(0, 5))):
        at = data.draw(st.integers(0, len(lines)))
        lines.insert(at, data.draw(st.sampled_from(["", "  ", "\t", "#", "# x = 1", "#Table=off"])))
    messy = "\n".join(lines) + data.draw(st.sampled_from(["", "\n", "\n\n"]))
    assert same(read(messy)) == same(one)
    assert quick_file.revise(messy, read(messy)) == messy
    assert same(read(quick_file.revise(messy, other))) == same(other)
