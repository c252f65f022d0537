"""Gateways, services and name servers in namespaces, with the gateways' logs after a failure."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wgmp.netns import Namespace, Namespaces

from .nameserver import NameServer
from .systemd import Service, played
from .tunnel import Tunnel, build, log_tail

MakeTunnel = Callable[..., Tunnel]


@pytest.fixture
def tunnel(namespaces: Namespaces, tmp_path: Path) -> Iterator[MakeTunnel]:
    """Give `tunnel(left, right, family=, psk=, topology=, ...)`, see `tunnel.build`.

    The gateways' last log lines are printed at the end, where pytest shows them on failure.
    """
    made: list[Tunnel] = []

    def make(*programs: str, **settings: Any) -> Tunnel:
        made.append(build(namespaces, tmp_path, *programs, **settings))
        return made[-1]

    yield make
    for each in made:
        for gateway in (each.left, each.right):
            print(f"--- {gateway.log.name}\n{log_tail(gateway)}")


@pytest.fixture
def service(tunnel: MakeTunnel, tmp_path: Path) -> Iterator[Service]:
    """Give a service that is not started yet. Its peer calls nobody."""
    ends = tunnel("wireguard-go", "wireguard-go")
    ends.left.process.terminate()
    ends.left.process.wait(10)
    left, peer = ends.left, ends.right
    text = (
        f"[Interface]\nPrivateKey = {left.private_key}\nAddress = {left.inner4}/24\n\n"
        f"[Peer]\nPublicKey = {peer.public_key}\nEndpoint = {peer.endpoint(4)}\n"
        f"AllowedIPs = {peer.inner4}/32\n"
    )
    with played(tmp_path) as systemd:
        name = left.namespace.interface_name("wg")
        made = Service(systemd, left.namespace, name, tmp_path / "wg.conf", text, peer)
        made.write(text)
        yield made
        print(systemd.messages, (tmp_path / "service.log").read_text())


@pytest.fixture
def name_server(tmp_path: Path) -> Iterator[Callable[[Namespace], NameServer]]:
    """Give `name_server(namespace)`: the only one there, which answers nothing for now."""
    with contextlib.ExitStack() as undo:

        def start(space: Namespace) -> NameServer:
            made = NameServer(space, tmp_path)
            undo.callback(made.close)
            return made

        yield start
