"""What a supervisor makes of the descriptors that it finds: it takes what is of use, closes the
rest."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.descriptors import open_files
from wgmp import inheritance
from wgmp.inheritance import Inheritance, sort
from wgmp.netns import Namespaces


class Left:
    """Descriptors that were left by somebody, who has none of them open any more."""

    def __init__(self, directory: Path) -> None:
        self.named: list[tuple[str, int]] = []
        self._directory = directory

    def listener(self, name: str, file: str, gone: bool = False) -> int:
        """Leave a listening socket at a path; return its inode."""
        with socket.socket(socket.AF_UNIX) as sock:
            path = self._directory / file
            sock.bind(str(path))
            sock.listen()
            if gone:
                path.unlink()
            return self._leave(name, sock)

    def udp(self, family: socket.AddressFamily, port: int = 0) -> tuple[int, int]:
        """Leave a UDP socket; return its inode and port."""
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", port))
            return self._leave("udp", sock), sock.getsockname()[1]

    def tcp(self) -> int:
        """Leave a socket that metrics were served on; return its inode."""
        with socket.create_server(("127.0.0.1", 0)) as sock:
            return self._leave("metrics", sock)

    def file(self, name: str) -> int:
        """Leave a file; return its descriptor."""
        self.named.append((name, os.memfd_create(name)))
        return self.named[-1][1]

    def _leave(self, name: str, sock: socket.socket) -> int:
        self.named.append((name, os.dup(sock.fileno())))
        return os.fstat(sock.fileno()).st_ino


@pytest.fixture
def left(tmp_path: Path) -> Left:
    """Give a test what is left of somebody."""
    return Left(tmp_path)


@pytest.fixture
def taken() -> Iterator[ExitStack]:
    """Close what a test has taken; nothing else must have stayed open."""
    before = open_files()
    with ExitStack() as stack:
        yield stack
    assert open_files() == before


def take(left: Left, taken: ExitStack) -> Inheritance:
    """Sort what was left; all of it is closed with the test."""
    found = sort(left.named, "wg0")
    for sock in (*found.udp, found.uapi, found.control, found.metrics):
        if sock is not None:
            taken.callback(sock.close)
    for descriptor in (*found.tun, *found.memory.values()):
        taken.callback(os.close, descriptor)
    return found


def inode(sock: socket.socket | None) -> int:
    """Return a socket's inode."""
    assert sock is not None
    return os.fstat(sock.fileno()).st_ino


def test_each_thing_goes_to_its_place_and_a_second_one_is_closed(
    left: Left, taken: ExitStack
) -> None:
    uapi, control = left.listener("uapi", "uapi"), left.listener("control", "control")
    metrics = left.tcp()
    left.listener("uapi", "another uapi")
    left.listener("control", "another control")
    left.tcp()
    left.file("something newer")
    found = take(left, taken)
    assert [inode(each) for each in (found.uapi, found.control, found.metrics)] == [
        uapi,
        control,
        metrics,
    ]
    assert (found.tun, found.udp, found.memory) == ([], [], {})


def test_a_listener_whose_path_is_gone_is_closed_and_another_one_taken(
    left: Left, taken: ExitStack
) -> None:
    left.listener("uapi", "uapi", gone=True)
    left.listener("control", "control", gone=True)
    reachable = left.listener("uapi", "another")
    found = take(left, taken)
    assert inode(found.uapi) == reachable
    assert found.control is None


def test_memory_is_taken_by_its_name(left: Left, taken: ExitStack) -> None:
    meant = {name: left.file(name) for name in sorted(inheritance.MEMORY)}
    assert take(left, taken).memory == meant
    assert meant.keys() == {"peers", "peer drops", "indices", "sessions", "counters"}


def test_of_udp_sockets_one_of_each_family_is_taken_if_both_have_one_port(
    left: Left, taken: ExitStack
) -> None:
    six, port = left.udp(socket.AF_INET6)
    four, _ = left.udp(socket.AF_INET, port)
    left.udp(socket.AF_INET)  # of another port
    found = take(left, taken)
    assert [inode(sock) for sock in found.udp] == [four, six]
    assert all(sock.getblocking() is False for sock in found.udp)


def test_an_interface_that_is_not_ours_or_was_deleted_is_let_go(
    left: Left, taken: ExitStack
) -> None:
    left.file("tun")
    assert take(left, taken).tun == []


QUEUES = """
import socket, sys
from wgmp import inheritance, netlink, tun
name = sys.argv[1]
mine, other, gone = (tun.open_tun(name + end, 2) for end in "abc")
netlink.delete_link(tun.index_of(name + "c"))
found = inheritance.sort([("tun", each) for each in (*reversed(mine), *other, *gone)], name + "a")
print([tun.is_detached(each) for each in found.tun], sorted(found.tun) == sorted(mine))
inheritance.renew_tun(found, name + "a", 2)
print(sorted(found.tun) == sorted(mine))
inheritance.renew_tun(found, name + "a", 3)
print(found.tun, [each for _, each in socket.if_nameindex() if each.startswith(name)])
"""


@pytest.mark.root
def test_queues_of_the_interface_come_in_their_order_and_are_made_anew_for_another_number(
    namespaces: Namespaces,
) -> None:
    space = namespaces.add("queues")
    stem = space.interface_name("q")[:12]
    done = space.run(sys.executable, "-c", QUEUES, stem)
    assert done.stdout.splitlines() == ["[False, False, True] True", "True", "[] []"]
    assert "is made anew, with 3 TUN queues" in done.stderr


PASSED = """
import os
from wgmp import systemd
for number in (3, 4, 5):
    os.dup2(0, number, inheritable=True)
environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "3", "LISTEN_FDNAMES": "tun:uapi"}
print(systemd.take_descriptors(environment), environment)
print([os.get_inheritable(number) for number in (3, 4, 5)])
"""


def test_what_systemd_passes_has_names_and_goes_to_nobody_else() -> None:
    done = subprocess.run([sys.executable, "-c", PASSED], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "[('tun', 3), ('uapi', 4), ('unknown', 5)] {}",
        "[False, False, False]",
    ], done.stderr
