"""`wgmp status` of all interfaces: whoever listens is shown, with the names that are known."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from wgmp import uapi_server
from wgmp.cli import main
from wgmp.keys import to_base64
from wgmp.observe import names
from wgmp.uapi_server import UapiServer, bind_socket

from .conftest import Served

LIMIT_S = 10.0


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where UAPI sockets are; nothing else of this host is looked at."""
    monkeypatch.setattr(uapi_server, "SOCKET_DIRECTORY", tmp_path)
    monkeypatch.setattr(names, "default_file", lambda interface: tmp_path / f"{interface}.conf")
    monkeypatch.setenv("WGMP_AGENT_SOCKET", str(tmp_path / "agent"))
    for variable in ("WG_HIDE_KEYS", "WG_COLOR_MODE", "NO_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.fixture
def devices(gateway: Served, directory: Path) -> Iterator[list[str]]:
    """wg0, a gateway of ours, and wg1, somebody else's with the same peers."""
    entry = gateway.peer(1, "10.0.0.2/32")
    row = gateway.row(entry)
    row.add_received(1 << 10)
    row.add_sent(2 << 20)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    servers = []
    for interface in ("wg0", "wg1"):
        server = UapiServer(gateway.device, gateway.fabric.peers.figures, lambda: None)
        listener = bind_socket(directory / f"{interface}.sock")
        asyncio.run_coroutine_threadsafe(server.start(listener), loop).result(LIMIT_S)
        servers.append(server)
    yield ["wg0", "wg1"]
    for server in servers:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(LIMIT_S)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(LIMIT_S)
    loop.close()


def test_a_socket_that_was_left_hides_nobody(
    devices: list[str], directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(directory / "wgdead.sock"))
    assert main(["status"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("interface: ") == 2
    assert shown.count("  transfer: 1.00 KiB received, 2.00 MiB sent\n") == 2
    assert main(["status", "wgdead"]) == 1
    assert "no gateway runs on wgdead" in capsys.readouterr().err


def test_names_are_our_gateway_s_or_those_of_the_file(
    gateway: Served, devices: list[str], directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = to_base64(bytes([1]) * 32)
    for interface, name in (("wg0", "not asked"), ("wg1", "of the file")):
        text = f"[Peer]\n# friendly_name = {name}\nPublicKey = {key}\n"
        (directory / f"{interface}.conf").write_text(text)
    (directory / "names").write_text(f"[Peer]\n# friendly_name = known\nPublicKey = {key}\n")
    gateway.names = names.Names([directory / "names"])
    assert main(["status", "--json"]) == 0
    told = {device["interface"]: device for device in json.loads(capsys.readouterr().out)}
    assert {name: device["peers"][0]["name"] for name, device in told.items()} == {
        "wg0": "known",
        "wg1": "of the file",
    }
    assert (told["wg0"]["peers"][0]["rx_bytes"], told["wg0"]["peers"][0]["tx_bytes"]) == (
        *(1 << 10, 2 << 20),
    )


@pytest.mark.parametrize(
    ("environment", "coloured", "hidden"),
    [
        ({}, False, True),
        ({"WG_COLOR_MODE": "always", "NO_COLOR": "1"}, True, True),
        ({"WG_COLOR_MODE": "never", "WG_HIDE_KEYS": "never"}, False, False),
        ({"WG_HIDE_KEYS": "always"}, False, True),
    ],
)
def test_the_environment_says_what_is_shown(
    devices: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environment: dict[str, str],
    coloured: bool,
    hidden: bool,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["status", "wg1"]) == 0
    shown = capsys.readouterr().out
    assert ("\033[" in shown) is coloured
    assert ("(hidden)" in shown) is hidden


def test_where_nobody_listens_nothing_is_shown(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
