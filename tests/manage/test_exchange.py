"""`wgmp import`, `export` and `strip`: networks keep what they say, keys go into files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from msgspec import structs

from wgmp import cli, keys
from wgmp.addresses import parse_prefix
from wgmp.agent import settings_file
from wgmp.config import PeerConfig, QuickConfig
from wgmp.errors import ConfigError
from wgmp.manage import exchange, quick_file

from .test_quick_file import CONFIGS, FILE, PRIVATE, A, same


def in_files(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(directory)
    (directory / "office.conf").write_text(FILE)
    return directory / "office.conf"


def test_an_imported_file_is_exported_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = in_files(tmp_path, monkeypatch)
    source.write_text(FILE.replace("PersistentKeepalive = off", f"PresharedKey = {PRIVATE}"))
    assert cli.main(["import", "office.conf", "-o", "office.toml"]) == 0
    said = capsys.readouterr().err
    assert "SaveConfig: settings are not written back" in said
    assert "PostUp: these run with run_hooks = true under [agent] only" in said
    private = tmp_path / "keys" / "office" / "private.key"
    assert private.read_text() == PRIVATE + "\n"
    for path in (private, private.with_name("Carol-C.psk"), tmp_path / "office.toml"):
        assert path.stat().st_mode & 0o777 == 0o600, path
    assert PRIVATE not in (tmp_path / "office.toml").read_text()
    network = settings_file.load(tmp_path / "office.toml").networks["office"]
    assert [peer.name for peer in network.peers] == ["Alice's laptop", "the bakery", "Carol = C"]

    assert cli.main(["export", "office.toml", "-o", "new.conf"]) == 0
    before, after = (
        quick_file.parse(path.read_text(), "x") for path in (source, tmp_path / "new.conf")
    )
    saved = structs.replace(before, interface=structs.replace(before.interface, save_config=False))
    assert same(after) == same(saved)
    assert (tmp_path / "new.conf").stat().st_mode & 0o777 == 0o600


def test_export_leaves_a_file_that_says_so_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = in_files(tmp_path, monkeypatch)
    plain = FILE.replace("SaveConfig = true\n", "").replace("PersistentKeepalive = off", "")
    source.write_text(plain)
    assert cli.main(["import", "office.conf", "-o", "a.toml", "--keys", "k"]) == 0
    assert cli.main(["export", "office", "--config", "a.toml", "-o", "office.conf"]) == 0
    assert source.read_text() == plain


def test_without_a_place_for_keys_none_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_files(tmp_path, monkeypatch)
    assert cli.main(["import", "office.conf"]) == 0
    printed = capsys.readouterr()
    assert 'private_key_path = "/etc/wgmp/keys/office/private.key"' in printed.out
    assert PRIVATE not in printed.out + printed.err
    assert "keys are not written: -o or --keys DIR puts them into files" in printed.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["office.conf"]


def test_nothing_that_is_there_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_files(tmp_path, monkeypatch)
    key = tmp_path / "keys" / "office" / "private.key"
    key.parent.mkdir(parents=True)
    key.write_text(f"{A}\n")
    key.chmod(0o600)
    assert cli.main(["import", "office.conf", "-o", "office.toml"]) == 2
    assert "private.key: holds another key: move it away" in capsys.readouterr().err
    assert key.read_text() == f"{A}\n"
    assert not (tmp_path / "office.toml").exists()
    (tmp_path / "office.toml").write_text("")
    assert cli.main(["import", "office.conf", "-o", "office.toml"]) == 2
    assert "office.toml: is there already" in capsys.readouterr().err


def test_what_settings_cannot_say_is_refused_for_the_file_it_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = in_files(tmp_path, monkeypatch)
    source.write_text("# wg-quick takes this\n\n[Interface]\nMTU = 1400\nDNS = a/b\n")
    assert cli.main(["import", "office.conf"]) == 2
    told = 'office.conf: network.office.dns[0]: a/b is no domain: write for example "example.org"'
    assert capsys.readouterr().err == f"wgmp: {told}\n"
    source.rename("office.json")  # whatever it is called, it is one of wg-quick's
    Path("office.json").write_text("[Interface]\nMTU = 1400\n")
    assert cli.main(["import", "office.json"]) == 0
    assert capsys.readouterr().out == "[network.office]\nmtu = 1400\n"


def test_strip_prints_what_wg_takes_and_tells_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = in_files(tmp_path, monkeypatch)
    assert cli.main(["strip", "office.conf"]) == 0
    assert capsys.readouterr().out == quick_file.strip(FILE) + "\n"
    source.write_text("[Interface]\nAddress = ten\n")
    assert cli.main(["strip", "office.conf"]) == 2
    assert "office.conf:2: Address: ten is not possible" in capsys.readouterr().err


def test_strip_reads_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    os.write(writing, FILE.encode())
    os.close(writing)
    assert cli.main(["strip", f"/dev/fd/{reading}"]) == 0
    os.close(reading)
    assert capsys.readouterr().out == quick_file.strip(FILE) + "\n"


def test_export_says_what_it_cannot_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_files(tmp_path, monkeypatch)
    assert cli.main(["import", "office.conf", "-o", "office.toml"]) == 0
    Path("latin1.conf").write_bytes("# Büro\n".encode("latin-1"))
    for output, complaint in (("keys", "is a directory"), ("latin1.conf", "is not UTF-8 text")):
        assert cli.main(["export", "office.toml", "-o", output]) == 2
        assert complaint in capsys.readouterr().err


def test_a_network_is_chosen_by_name_among_several() -> None:
    networks = settings_file.parse("[network.a]\n[network.b]\n", "x.toml").networks
    assert exchange.choose_network(networks, "b", "x.toml")[0] == "b"
    with pytest.raises(ConfigError, match=r"NETWORK --config x\.toml`, NETWORK being one of a, b"):
        exchange.choose_network(networks, None, "x.toml")
    with pytest.raises(ConfigError, match="there is no network c: write one of a, b"):
        exchange.choose_network(networks, "c", "x.toml")


def test_what_a_wg_quick_file_cannot_say_and_a_key_not_made_yet_are_noticed(tmp_path: Path) -> None:
    text = f"""
        [network.a]
        metrics = "127.0.0.1:9586"
        [[network.a.peers]]
        public_key = "{A}"
        endpoints = ["one.example.org:1", "two.example.org:2"]
    """
    read = settings_file.parse(text, "x.toml")
    agent = structs.replace(read.agent, keys_directory=str(tmp_path))
    config, notices = exchange.to_quick("a", read.networks["a"], agent, "a.conf")
    assert config.peers[0].endpoint == "one.example.org:1"
    assert f"there is no {tmp_path}/a/private.key: PrivateKey is left out" in notices
    assert f"{A} has several endpoints: only the first is written" in notices
    assert "metrics: start the gateway with --metrics 127.0.0.1:9586" in notices


def taken_as_settings_take_it(config: QuickConfig) -> QuickConfig:
    """Return the configuration without what settings have no word for."""
    peers: list[PeerConfig] = []
    for peer in config.peers:
        psk = None if peer.preshared_key == keys.ZERO_KEY else peer.preshared_key
        peers.append(structs.replace(peer, preshared_key=psk, keepalive=peer.keepalive or None))
    interface = structs.replace(config.interface, save_config=False)
    return structs.replace(config, interface=interface, peers=tuple(peers))


@settings(max_examples=40, deadline=None)
@given(CONFIGS)
def test_any_file_survives_the_way_through_settings(
    tmp_path_factory: pytest.TempPathFactory, config: QuickConfig
) -> None:
    once = {(peer.public_key, peer.name): peer for peer in config.peers}
    if len({key for key, _ in once}) < len(config.peers):
        return  # several sections for one peer are another test
    if len({peer.name for peer in config.peers} - {""}) < sum(bool(p.name) for p in config.peers):
        return
    directory = tmp_path_factory.mktemp("keys")
    imported = exchange.to_settings(config, "wg0", directory)
    exchange.write_secrets(imported.secrets)
    read = settings_file.parse(imported.text, "wg0.toml")
    back, notices = exchange.to_quick("wg0", read.networks["wg0"], read.agent, "wg0.conf")
    assert same(back) == same(taken_as_settings_take_it(config))
    assert not [notice for notice in notices if "PrivateKey" not in notice]


def test_every_preshared_key_has_a_file_of_its_own(tmp_path: Path) -> None:
    names = ("a b", "a-b", "", "...", "")
    peers = tuple(
        PeerConfig(public_key=bytes([n]) * 32, name=name, preshared_key=bytes([100 + n]) * 32)
        for n, name in enumerate(names, 1)
    )
    config = structs.replace(quick_file.parse("", "wg0.conf"), peers=peers)
    imported = exchange.to_settings(config, "wg0", tmp_path)
    assert [path.name for path in imported.secrets] == [
        "a-b.psk", "a-b-2.psk", "peer-3.psk", "peer-4.psk", "peer-5.psk"
    ]  # fmt: skip
    exchange.write_secrets(imported.secrets)
    read = settings_file.parse(imported.text, "x.toml")
    back, _ = exchange.to_quick("wg0", read.networks["wg0"], read.agent, "wg0.conf")
    assert back.peers == peers
    assert imported.notices == [
        "there is no PrivateKey: the agent makes one when the network starts"
    ]


def test_a_peers_first_section_counts_for_what_the_second_leaves_out(tmp_path: Path) -> None:
    one = bytes([1]) * 32
    peers = (
        PeerConfig(public_key=one, name="x", preshared_key=bytes([9]) * 32, keepalive=25),
        PeerConfig(public_key=one, endpoint="a.example.org:1"),
        PeerConfig(public_key=one, name="y", allowed_ips=(parse_prefix("10.0.0.0/8"),)),
    )
    config = structs.replace(quick_file.parse("", "wg0.conf"), peers=peers)
    imported = exchange.to_settings(config, "wg0", tmp_path)
    assert list(imported.secrets.values()) == [bytes([9]) * 32]
    (peer,) = settings_file.parse(imported.text, "x.toml").networks["wg0"].peers
    assert (peer.name, peer.endpoints, peer.allowed_ips) == (
        "y", ("a.example.org:1",), ("10.0.0.0/8",)
    )  # fmt: skip
    assert peer.persistent_keepalive_secs == 25


def test_sections_of_one_peer_become_one_and_names_differ(tmp_path: Path) -> None:
    one, two = bytes([1]) * 32, bytes([2]) * 32
    peers = (
        PeerConfig(public_key=one, name="x", endpoint="a.example.org:1", keepalive=25),
        PeerConfig(public_key=two, name="x"),
        PeerConfig(public_key=one, keepalive=0),
    )
    config = quick_file.parse("", "wg+0.conf")
    imported = exchange.to_settings(structs.replace(config, peers=peers), "wg+0", tmp_path)
    network = settings_file.parse(imported.text, "x.toml").networks["wg_0"]
    assert network.interface == "wg+0"
    assert [(peer.name, peer.endpoints) for peer in network.peers] == [
        ("x", ("a.example.org:1",)),
        ("x (2)", ()),
    ]
    assert network.peers[0].persistent_keepalive_secs == 0
