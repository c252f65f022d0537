"""Clients of the control socket that misbehave: they are told, and cost the gateway nothing."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from wgmp import control

from .site import Site

pytestmark = pytest.mark.root

LIMIT_S = 10.0
MANY_BYTES = 64 << 20
SUBSCRIBE, CAPTURE = b'{"action": "subscribe"}\n', b'{"action": "capture"}\n'


@contextlib.contextmanager
def client(site: Site, request: bytes = b"") -> Iterator[socket.socket]:
    """Connect to the gateway's control socket and send a request."""
    with socket.socket(socket.AF_UNIX) as made:
        made.settimeout(LIMIT_S)
        made.connect(str(control.socket_path(site.gateway.interface)))
        made.sendall(request)
        yield made


def memory_bytes(pid: int) -> int:
    """Return how much memory a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize("request_line", [SUBSCRIBE, CAPTURE])
def test_what_a_client_says_after_its_request_is_not_kept(site: Site, request_line: bytes) -> None:
    supervisor = site.gateway.role_pids()["supervisor"]
    with client(site, request_line) as talker:
        assert talker.recv(1), "it is served"
        before = memory_bytes(supervisor)
        piece = bytes(1 << 20)
        for _ in range(MANY_BYTES // len(piece)):
            talker.sendall(piece)
        assert control.ask_stats(site.gateway.interface).interface == site.gateway.interface
        assert memory_bytes(supervisor) - before < MANY_BYTES // 4


def test_one_client_too_many_is_told_so_by_the_command_line(site: Site) -> None:
    with contextlib.ExitStack() as silent:
        for _ in range(64):
            silent.enter_context(client(site))
        for _ in range(5):  # it may be refused before it has asked, or after
            with pytest.raises(control.ControlError, match=r"^too many ask at once: try again"):
                control.ask_stats(site.gateway.interface)
