"""A gateway that is told to stop before it is up leaves nothing behind."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wgmp.manage.journal import Journal
from wgmp.netns import UAPI_DIRECTORY, Namespaces, wait_for

from .tunnel import WGMP, key

pytestmark = pytest.mark.root

LIMIT_S = 20

# A name server that hears every question and answers none.
SILENT = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("127.0.0.53", 53))
while True:
    print("asked", len(sock.recv(512)), flush=True)
"""
RESOLVER = "nameserver 127.0.0.53\noptions timeout:2 attempts:1\n"


@pytest.fixture
def resolver() -> Iterator[Callable[[str], None]]:
    """Give a namespace another resolver than the machine's (ip-netns(8))."""
    with contextlib.ExitStack() as undo:

        def give(namespace: str) -> None:
            directory = Path("/etc/netns", namespace)
            directory.mkdir(parents=True)
            undo.callback(shutil.rmtree, directory)
            (directory / "resolv.conf").write_text(RESOLVER)

        yield give


def test_while_it_asks_for_a_name_what_it_has_done_is_undone(
    namespaces: Namespaces, resolver: Callable[[str], None], tmp_path: Path
) -> None:
    space = namespaces.add("early")
    resolver(space.name)
    asked, log, hooks = tmp_path / "asked", tmp_path / "log", tmp_path / "hooks"
    space.start(sys.executable, "-c", SILENT, log=asked)
    file = tmp_path / "early.conf"
    file.write_text(
        f"[Interface]\nPrivateKey = {key('genkey')}\n"
        f"PreUp = echo up >> {hooks}\nPostDown = echo down >> {hooks}\n"
        f"[Peer]\nPublicKey = {key('pubkey', key('genkey'))}\nEndpoint = vpn.example.org:51820\n"
    )
    name = space.interface_name("wg")
    command = (WGMP, "supervise", name, "--config", str(file), "--run-hooks", "--foreground")
    gateway = space.start(*command, log=log)
    wait_for(lambda: "asked" in asked.read_text(), LIMIT_S, "the name server is asked")
    assert hooks.read_text() == "up\n"
    gateway.terminate()
    assert gateway.wait(LIMIT_S) == 1
    assert log.read_text().splitlines()[-1].endswith("told to stop before it was up")
    assert hooks.read_text() == "up\ndown\n"
    assert not Journal.of(name).path.exists()
    for directory in (UAPI_DIRECTORY, Path("/run/wgmp")):
        assert not (directory / f"{name}.sock").exists()
    assert space.run("ip", "link", "show", name, check=False).returncode == 1
