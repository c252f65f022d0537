"""utun: its framing for real, over a socket; opening one on mocks, for that runs on macOS alone."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from pytun_pmd3 import darwin

from wgmp import tun, utun
from wgmp.errors import ConfigError, PrivilegeError, TunDeviceError
from wgmp.fastpath import virtio
from wgmp.options import Options

IPV4 = bytes([0x45]) + b"a packet of IPv4"
IPV6 = bytes([0x60]) + b"a packet of IPv6"
# sys/socket.h of macOS
AF_INET, AF_INET6 = b"\0\0\0\2", b"\0\0\0\x1e"


@pytest.fixture
def ends() -> Any:
    """Give a queue, and the socket that is the kernel's end of it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    with ours, theirs, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        yield utun.queue_of(ours.fileno(), "utun7", asking), theirs


@pytest.mark.parametrize(("family", "packet"), [(AF_INET, IPV4), (AF_INET6, IPV6)])
@pytest.mark.parametrize("sizes", [(100,), (0, 100), (virtio.SIZE, 100), (15, 100)])
def test_a_packet_is_read_behind_a_plain_virtio_header(
    ends: Any, family: bytes, packet: bytes, sizes: tuple[int, ...]
) -> None:
    queue, kernel = ends
    kernel.send(family + packet)
    buffers = [memoryview(bytearray(b"\xff" * size)) for size in sizes]
    assert queue.read(buffers) == virtio.SIZE + len(packet)
    assert b"".join(buffers)[: virtio.SIZE + len(packet)] == virtio.PLAIN + packet
    with pytest.raises(BlockingIOError):
        queue.read(buffers)


@pytest.mark.parametrize(("family", "packet"), [(AF_INET, IPV4), (AF_INET6, IPV6)])
def test_a_packet_is_written_behind_its_family(ends: Any, family: bytes, packet: bytes) -> None:
    queue, kernel = ends
    queue.write(memoryview(virtio.PLAIN + packet))
    assert kernel.recv(100) == family + packet


def test_an_interface_that_is_gone_is_an_error(ends: Any) -> None:
    queue, kernel = ends
    kernel.send(b"")
    with pytest.raises(OSError, match="the interface is gone") as caught:
        queue.read([memoryview(bytearray(100))])
    assert caught.value.errno == errno.ENXIO
    assert queue.current_mtu() == 0, "there is no utun7 here"


class Mac:
    """A mock of what pytun-pmd3 asks of macOS: the kernel's control socket, and `ifconfig`."""

    def __init__(self) -> None:
        self.refusal: OSError | None = None
        self.wanted: list[int | None] = []
        self.commands: list[tuple[str, ...]] = []
        self.sockets: list[socket.socket] = []

    def create(self, preferred_num: int | None) -> tuple[socket.socket, str]:
        """Stand for `_create_utun_interface`."""
        if self.refusal is not None:
            raise self.refusal
        self.wanted.append(preferred_num)
        self.sockets.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        return self.sockets[-1], "utun4"

    def ifconfig(self, *arguments: str) -> str:
        """Stand for `_run_ifconfig`."""
        self.commands.append(arguments)
        return ""


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> Mac:
    """Let pytun-pmd3 be what it is on macOS, on a mock of macOS."""
    mock = Mac()
    monkeypatch.setattr(darwin, "_create_utun_interface", mock.create)
    monkeypatch.setattr(darwin, "_run_ifconfig", mock.ifconfig)
    monkeypatch.setitem(sys.modules, "pytun_pmd3", darwin)
    return mock


@pytest.mark.parametrize(("name", "wanted"), [("utun", None), ("utun0", 0), ("utun12", 12)])
def test_opening_asks_for_a_number_or_none_and_sets_the_mtu(
    mac: Mac, name: str, wanted: int | None
) -> None:
    descriptor = utun.open_tun(name)
    assert mac.wanted == [wanted]
    assert mac.commands == [("utun4", "mtu", str(tun.DEFAULT_MTU))]
    assert mac.sockets[0].fileno() == -1, "the device's own is closed"
    assert not os.get_blocking(descriptor), "its copy is open"
    os.close(descriptor)


@pytest.mark.parametrize("name", ["wg0", "utunx", "utun01", "utun-1", "UTUN", ""])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is not possible on macOS: write utun, which lets"):
        utun.open_tun(name)


def test_a_refusal_of_the_system_is_explained(mac: Mac, monkeypatch: pytest.MonkeyPatch) -> None:
    mac.refusal = OSError(0, "Failed to connect utun3")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(TunDeviceError, match=r"Failed to connect utun3\): it may be taken"):
        utun.open_tun("utun3")
    monkeypatch.setattr(os, "geteuid", lambda: 501)
    with pytest.raises(PrivilegeError, match="cannot create interface utun3: run as root"):
        utun.open_tun("utun3")


def test_the_name_is_asked_of_the_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    class System(socket.socket):
        """A mock of a kernel control socket."""

        def __init__(self, family: int, kind: int, protocol: int, fileno: int) -> None:
            super().__init__(socket.AF_INET, socket.SOCK_DGRAM, fileno=fileno)
            asked.append((family, kind, protocol))

        def getsockopt(self, *arguments: int) -> Any:
            asked.append(arguments)
            return b"utun7\0"

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        with pytest.raises(TunDeviceError, match="is no utun device"):
            utun.name_of(sock.fileno())
        monkeypatch.setattr(socket, "socket", System)
        assert utun.name_of(sock.fileno()) == "utun7"
    # sys/socket.h, sys/sys_domain.h, net/if_utun.h: AF_SYSTEM, SYSPROTO_CONTROL, UTUN_OPT_IFNAME
    assert asked == [(32, socket.SOCK_DGRAM, 2), (2, 2, 16)]


def test_the_chosen_name_goes_to_a_file_unless_it_was_asked_for(
    mac: Mac, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(utun, "name_of", lambda descriptor: "utun4")
    file = tmp_path / "name"
    environment = {"WG_TUN_NAME_FILE": str(file)}
    for name in ("utun4", "utun"):
        assert not file.exists()
        options = utun.with_interface(Options(interface=name), environment)
        assert options.interface == "utun4"
        assert options.tun_fd is not None
        os.close(options.tun_fd)
    assert file.read_text() == "utun4\n"
    environment = {"WG_TUN_NAME_FILE": str(tmp_path / "nowhere" / "name")}
    with pytest.raises(ConfigError, match="WG_TUN_NAME_FILE: cannot write"):
        utun.with_interface(Options(interface="utun"), environment)
    given = Options(interface="utun9", tun_fd=3)
    assert utun.with_interface(given, environment) is given
