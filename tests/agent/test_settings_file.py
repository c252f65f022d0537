"""Settings files: what is read, and what is refused with file, line and remedy."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from wgmp.agent import places, settings_file
from wgmp.agent.settings import NetworkSettings, PeerSettings, Settings
from wgmp.agent.values import Address, AllowedIP, DnsEntry, HostPort, PublicKey, TableName
from wgmp.errors import ConfigError

KEY, OTHER = "A" * 43 + "=", "B" * 42 + "A="

WHOLE = f"""\
[agent]
run_hooks = true

[network.home]
interface = "wg0"
mtu = 1380
listen_port = 51820
fwmark = 0xca6c
table = 51
addresses = [
  "10.0.0.1/24",  # the first
  "fd00::1/64",
]
dns = ["9.9.9.9", "example.org"]

[[network.home.peers]]
name = "hub"
public_key = "{KEY}"
preshared_key_path = "/etc/wgmp/psk"
endpoints = ["vpn.example.org:51820", "[2001:db8::1]:51820"]
allowed_ips = ["10.0.0.2/8"]
persistent_keepalive_secs = 25

[[network.home.peers]]
public_key = "{OTHER}"
endpoint = "192.0.2.1:1"

[network.spare]
enable_wireguard = false
"""


def parse(text: str) -> Settings:
    return settings_file.parse(text, "agent.toml")


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(WHOLE)
    read = settings_file.load(path)
    assert read.agent.run_hooks
    assert read.networks["spare"] == NetworkSettings(enable_wireguard=False, interface="spare")
    assert read.networks["home"] == NetworkSettings(
        interface="wg0",
        mtu=1380,
        listen_port=51820,
        fwmark=0xCA6C,
        table=TableName("51"),
        addresses=(Address("10.0.0.1/24"), Address("fd00::1/64")),
        dns=(DnsEntry("9.9.9.9"), DnsEntry("example.org")),
        peers=(
            PeerSettings(
                name="hub",
                public_key=PublicKey(KEY),
                preshared_key_path="/etc/wgmp/psk",
                endpoints=(HostPort("vpn.example.org:51820"), HostPort("[2001:db8::1]:51820")),
                allowed_ips=(AllowedIP("10.0.0.0/8"),),
                persistent_keepalive_secs=25,
            ),
            PeerSettings(public_key=PublicKey(OTHER), endpoints=(HostPort("192.0.2.1:1"),)),
        ),
    )


def test_json_says_the_same() -> None:
    as_json = json.dumps(tomllib.loads(WHOLE), indent=1)
    assert settings_file.parse(as_json, "agent.json") == parse(WHOLE)


def test_peers_are_found_by_name_and_by_key() -> None:
    home = parse(WHOLE).networks["home"]
    assert home.peer("hub") is home.peers[0]
    assert home.peer(OTHER) is home.peers[1]
    assert home.peer("") is None


MISTAKES = [
    # what is written instead of what; the line; what is said
    ("run_hooks", "run_hoks", 2, "agent.run_hoks: is not known: did you mean run_hooks?"),
    ("[network.home]", "[networks.home]", 4, "networks: is not known: did you mean network?"),
    ("table =", "tabel =", 9, "network.home.tabel: is not known: did you mean table?"),
    ("interface =", "private_key =", 5, "did you mean private_key_path?"),
    ("mtu = 1380", 'mtu = "1380"', 6, "network.home.mtu: expected `int`, got `str`"),
    ("mtu = 1380", "mtu = 9", 6, "network.home.mtu: expected `int` >= 68"),
    ("fd00::1/64", "fd00::1/640", 10, 'addresses[1]: fd00::1/640 is not possible: write for ex'),
    ("table = 51", 'table = "a b"', 9, 'write "off", "auto", a number or a name'),
    ("table = 51", "table = true", 9, "network.home.table: expected `str`, got `bool`"),
    ('"10.0.0.1/24"', "10", 10, "network.home.addresses[0]: expected `str`, got `int`"),
    (f'"{KEY}"', "7", 18, "network.home.peers[0].public_key: expected `str`, got `int`"),
    ('"192.0.2.1:1"', "7", 26, "network.home.peers[1].endpoint: expected `str`, got `int`"),
    ('"9.9.9.9"', '"9.9.9"', 14, "network.home.dns[0]: 9.9.9 is no address"),
    ('"example.org"', '"exa mple"', 14, "network.home.dns[1]: exa mple is no domain"),
    ('name = "hub"', "name = 3", 17, "network.home.peers[0].name: expected `str`, got `int`"),
    (f'"{KEY}"', f'"{KEY}="', 18, "public_key: this is no key: write the 44 characters"),
    (f'public_key = "{KEY}"', "", 16, "peers[0]: object missing required field `public_key`"),
    (OTHER, KEY, 25, f"{KEY} is taken by network.home.peers[0].public_key"),
    ("endpoint = ", "enpoint = ", 26, "network.home.peers[1].enpoint: is not known: did you"),
    ("192.0.2.1:1", "192.0.2.1", 26, "peers[1].endpoint: 192.0.2.1 is not host:port"),
    ("10.0.0.2/8", "10.0.0.2/80", 21, "has no prefix length of 0 to 32 after the slash"),
    ("[network.spare]", "[network.'a/b']", 28, "network.a/b: is no network's name: write lette"),
    ("[network.spare]", "[network.wg0]", 28, "interface: wg0 is taken by network.home.interface"),
    ('"wg0"', '"w/g0"', 5, "network.home.interface: interface name 'w/g0' is not possible"),
    ("[[network.home.peers]]\nname", "[network.home.peers]\nname", 24, "is not TOML: cannot"),
    ("mtu = 1380", "mtu = ", 6, "is not TOML: invalid value"),
    ("[agent]\n", "agent = 3\n", 1, "agent: write a table: [agent]"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "line", "message"), MISTAKES)
def test_mistakes_are_told_with_line_and_remedy(
    right: str, wrong: str, line: int, message: str
) -> None:
    text = WHOLE.replace("run_hooks = true\n", "") if right == "[agent]\n" else WHOLE
    with pytest.raises(ConfigError) as caught:
        parse(text.replace(right, wrong, 1))
    assert message in str(caught.value)
    assert (caught.value.file, caught.value.line) == ("agent.toml", line)


def test_mistakes_in_json_are_told_with_their_line_too() -> None:
    text = json.dumps(tomllib.loads(WHOLE), indent=1)
    wrong = text.replace('"endpoint"', '"enpoint"')
    with pytest.raises(ConfigError) as caught:
        settings_file.parse(wrong, "agent.json")
    line = 1 + wrong[: wrong.index('"enpoint"')].count("\n")
    assert str(caught.value).startswith(f"agent.json:{line}: network.home.peers[1].enpoint: ")
    with pytest.raises(ConfigError, match=r"agent\.json:2: is not JSON"):
        settings_file.parse('{\n"network" 3}', "agent.json")
    with pytest.raises(ConfigError, match="write an object"):
        settings_file.parse("[]", "agent.json")


def test_metrics_are_served_at_an_address_of_each_networks_own() -> None:
    text = '[network.a]\nmetrics = "{}"\n[network.b]\nmetrics = "127.0.0.1:9586"\n'
    assert parse(text.format("[::1]:9586")).networks["a"].metrics == "[::1]:9586"
    with pytest.raises(ConfigError, match=r"toml:2: network\.a\.metrics: localhost:1 is not an IP"):
        parse(text.format("localhost:1"))
    with pytest.raises(ConfigError, match=r"toml:4: .*127.0.0.1:9586 is taken by network\.a\.metr"):
        parse(text.format("127.0.0.1:9586"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[network.a.peers]\n", "2: network.a.peers: write each peer as [[network.a.peers]]"),
        ("[network]\na = 3\n", "3: network.a: write a table: [network.a]"),
        ("network = 3\n", "2: network: write a table: [network]"),
        ("[agent]\nzzz = 3\n", "3: agent.zzz: is not known: write one of control_socket, keys_"),
        ('[network.a]\npre_up = ["true"\n', "4: is not TOML: unclosed array"),
        ('[network.a]\npre_up = "', "3: is not TOML: unterminated string"),
        (
            f"[[network.a.peers]]\nname = 'x'\npublic_key = '{KEY}'\n"
            f"[[network.a.peers]]\nname = 'x'\npublic_key = '{OTHER}'\n",
            "6: network.a.peers[1].name: x is taken by network.a.peers[0].name",
        ),
    ],
)
def test_what_stands_in_no_whole_file_is_told_likewise(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse("\n" + text)
    assert str(caught.value).startswith(f"agent.toml:{said}")


@pytest.mark.parametrize(
    ("text", "file", "said"),
    [
        ("a = " + "[" * 5000, "x.toml", "x.toml: is not TOML: it is nested too deep"),
        ("[" * 100_000, "x.json", "x.json: is not JSON: it is nested too deep"),
        ("a = " + "1" * 5000, "x.toml", "x.toml: is not TOML: a number in it is too long"),
        ('{"a": ' + "1" * 5000 + "}", "x.json", "x.json: is not JSON: a number in it is too long"),
    ],
)
def test_what_no_parser_takes_is_no_settings_file(text: str, file: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_file.parse(text, file)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    "line",
    [
        '[agent]\ncontrol_socket = ""',
        '[agent]\nkeys_directory = ""',
        '[network.a]\nprivate_key_path = ""',
        '[[network.a.peers]]\npreshared_key_path = ""',
    ],
)
def test_an_empty_path_is_no_path(line: str) -> None:
    key = f'\npublic_key = "{KEY}"' if "peers" in line else ""
    with pytest.raises(ConfigError, match=r"^agent\.toml:2: .*: expected `str` of length >= 1"):
        parse(line + key)


def test_peers_without_a_name_do_not_share_one() -> None:
    peers = "".join(f"[[network.a.peers]]\npublic_key = '{key}'\n" for key in (KEY, OTHER))
    assert [peer.name for peer in parse(peers).networks["a"].peers] == ["", ""]


def test_both_spellings_of_the_endpoint_at_once_are_refused() -> None:
    text = WHOLE.replace('endpoint = "192', 'endpoints = []\nendpoint = "192')
    with pytest.raises(ConfigError, match=r"toml:27: .*write endpoint or endpoints, not both"):
        parse(text)


def test_a_file_that_cannot_be_read_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        settings_file.load(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        settings_file.load(tmp_path / "latin.toml")


def test_the_line_of_every_value_is_found_in_both_formats() -> None:
    as_json = json.dumps(tomllib.loads(WHOLE), indent=1)
    for path, toml_line, first_word in (
        (["agent"], 1, '"agent"'),
        (["network", "home", "addresses"], 10, '"addresses"'),
        (["network", "home", "peers", 1, "endpoint"], 26, '"endpoint"'),
        (["network", "spare"], 28, '"spare"'),
    ):
        assert places.line_of(WHOLE, path, is_json=False) == toml_line
        json_line = places.line_of(as_json, path, is_json=True)
        assert json_line == 1 + as_json[: as_json.index(first_word)].count("\n")
    missing = ["network", "home", "peers", 1, "name"]
    assert places.line_of(WHOLE, missing, is_json=False) == 24
    assert places.line_of(WHOLE, ["nothing"], is_json=False) is None


@pytest.mark.parametrize("odd", ["\u2028", "\x85", "é", "\\u2028"])
def test_lines_are_counted_as_editors_count_them(odd: str) -> None:
    text = f'# {odd}\n[network.home] # {odd}\npre_up = ["{odd}"]\nmtu = 1\n'
    with pytest.raises(ConfigError, match=r"^x\.toml:4: network\.home\.mtu: expected `int` >= 68"):
        settings_file.parse(text, "x.toml")
