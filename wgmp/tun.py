"""The TUN device: opening it, its name, MTU and state, and its queues to read and write.

pytun-pmd3 creates the device; reading and writing go straight to the descriptor. Each packet
comes and goes behind a virtio_net_hdr (IFF_VNET_HDR), and may be a super-packet of up to
64 KiB. A descriptor that another program opened may be without these headers; then a queue
puts plain ones in and takes them off.

A TUN of several queues (IFF_MULTI_QUEUE) lets several processes read. By itself the kernel sends a
flow to the queue that the flow's packets were last written on. So nothing is written on these: one
more is opened and detached from the device (IFF_DETACH_QUEUE). It gives nothing to read; what is
written on it arrives, and teaches the kernel nothing. Then each flow keeps to the queue that a hash
of its addresses and ports picks (drivers/net/tun.c, tun_automq_select_queue, tun_get_user).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

from wgmp.errors import PrivilegeError, TunDeviceError
from wgmp.fastpath import virtio
from wgmp.protocol.constants import DEFAULT_MTU

# linux/if_tun.h, linux/if.h, linux/sockios.h
_IFF_TUN = 0x0001
_IFF_MULTI_QUEUE = 0x0100
_IFF_DETACH_QUEUE = 0x0400
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_IFF_TUN_EXCL = 0x8000
_TUNSETVNETHDRSZ = 0x400454D8
_TUNSETQUEUE = 0x400454D9
_TUNGETFEATURES = 0x800454CF
_TUNGETIFF = 0x800454D2
_SIOCSIFMTU = 0x8922
_SIOCGIFINDEX = 0x8933
_IFF_UP = 0x1

_INT = struct.Struct("=i")
if sys.platform == "linux":  # linux/sockios.h; struct ifreq, linux/if.h
    _SIOCGIFFLAGS, _SIOCGIFMTU = 0x8913, 0x8921
    _IFREQ_INT, _IFREQ_FLAGS = struct.Struct("=16si20x"), struct.Struct("=16sH22x")
else:  # sys/sockio.h; struct ifreq, net/if.h
    _SIOCGIFFLAGS, _SIOCGIFMTU = 0xC020_6911, 0xC020_6933
    _IFREQ_INT, _IFREQ_FLAGS = struct.Struct("=16si12x"), struct.Struct("=16sH14x")


def open_tun(name: str, queues: int = 1) -> list[int]:
    """Create the TUN interface `name` with WireGuard's default MTU; return its descriptors.

    Of several `queues` there is one descriptor each and, last, the detached one that is written.
    The interface lives as long as one of them or of their duplicates. Raises PrivilegeError, or
    TunDeviceError when it is taken or the host has no TUN.
    """
    flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
    descriptors: list[int] = []
    try:
        if queues == 1:
            descriptors.append(_open(name, flags))
        else:
            # Exclusive: another gateway's interface would get one queue more.
            descriptors.append(_open(name, flags | _IFF_MULTI_QUEUE | _IFF_TUN_EXCL))
            while len(descriptors) <= queues:
                descriptors.append(_open(name, flags | _IFF_MULTI_QUEUE))
            detach = _IFREQ_FLAGS.pack(name.encode(), _IFF_DETACH_QUEUE)
            fcntl.ioctl(descriptors[-1], _TUNSETQUEUE, detach)
        fcntl.ioctl(descriptors[0], _TUNSETVNETHDRSZ, _INT.pack(virtio.SIZE))
        set_mtu(name, DEFAULT_MTU)
    except BaseException as error:
        for descriptor in descriptors:
            os.close(descriptor)
        if isinstance(error, OSError):
            raise explain(error, name) from error
        raise
    return descriptors


def _open(name: str, flags: int) -> int:
    from pytun_pmd3 import TunTapDevice  # only gateways need it, not every `wgmp` command

    device = TunTapDevice(name, flags)
    # The object would close its descriptor when it is collected.
    descriptor = os.dup(device.fileno())
    device.close()
    os.set_blocking(descriptor, False)
    return descriptor


def has_several_queues(device: Path) -> bool:
    """Return whether the kernel behind `device` (/dev/net/tun) knows IFF_MULTI_QUEUE.

    Raises OSError.
    """
    descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        features = _INT.unpack(fcntl.ioctl(descriptor, _TUNGETFEATURES, bytes(_INT.size)))[0]
    finally:
        os.close(descriptor)
    return bool(features & _IFF_MULTI_QUEUE)


def explain(error: OSError, name: str) -> PrivilegeError | TunDeviceError:
    """Return the error to show an operator when `name` could not be created."""
    number = error.errno or 0
    if number in (errno.EPERM, errno.EACCES):
        return PrivilegeError(
            f"cannot create interface {name}: run as root or with CAP_NET_ADMIN", number
        )
    if number == errno.EBUSY:
        return TunDeviceError(
            f"interface {name} is taken: another program holds it; choose another name", number
        )
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return TunDeviceError(
            "there is no /dev/net/tun: load the tun module (modprobe tun) or, in a container, "
            "pass the device in (--device /dev/net/tun)",
            number,
        )
    if number == errno.EINVAL:
        return TunDeviceError(
            f"interface {name} exists and is no TUN device of one queue: choose another name",
            number,
        )
    return TunDeviceError(f"cannot create interface {name}: {error.strerror}", number)


def name_of(descriptor: int) -> str:
    """Return the interface name of an open TUN descriptor; raises TunDeviceError."""
    return _interface_request(descriptor)[:16].split(b"\0", 1)[0].decode()


def has_virtio_header(descriptor: int) -> bool:
    """Return whether packets of an open TUN descriptor have a virtio header before them."""
    return bool(_flags(descriptor) & _IFF_VNET_HDR)


def is_detached(descriptor: int) -> bool:
    """Return whether an open TUN descriptor is one to write alone; raises TunDeviceError."""
    return bool(_flags(descriptor) & _IFF_DETACH_QUEUE)


def are_queues(descriptors: Sequence[int], queues: int) -> bool:
    """Return whether descriptors are what `open_tun` returns for so many queues."""
    wanted = [False] * queues + [True] * (queues > 1)
    return [is_detached(descriptor) for descriptor in descriptors] == wanted


def _flags(descriptor: int) -> int:
    flags: int = _IFREQ_FLAGS.unpack(_interface_request(descriptor))[1]
    return flags


def _interface_request(descriptor: int) -> bytes:
    request = bytearray(_IFREQ_INT.size)
    try:
        fcntl.ioctl(descriptor, _TUNGETIFF, request)
    except OSError as error:
        raise TunDeviceError(
            f"descriptor {descriptor} is no TUN device: {error.strerror}", error.errno or 0
        ) from error
    return bytes(request)


class TunQueue:
    """One descriptor of the TUN, non-blocking; it belongs to the supervisor.

    `virtio_header`: whether the kernel's packets have one (`has_virtio_header`). `asking`: any
    socket, to ask the kernel for the MTU through; a role may not open one.
    """

    __slots__ = ("_asking", "descriptor", "virtio_header")

    def __init__(
        self, descriptor: int, virtio_header: bool, asking: socket.socket | None = None
    ) -> None:
        self.descriptor = descriptor
        self.virtio_header = virtio_header
        self._asking = asking

    def descriptors(self) -> list[int]:
        """Return all that a process which uses the queue must keep open."""
        return [self.descriptor] + ([] if self._asking is None else [self._asking.fileno()])

    def close(self) -> None:
        """Close all of them; the interface goes with the last copy."""
        os.close(self.descriptor)
        if self._asking is not None:
            self._asking.close()

    def read(self, buffers: list[memoryview]) -> int:
        """Read one packet behind its virtio header; return the length of both in bytes.

        `buffers` are filled one after the other; the first that is not empty holds at least a
        header. Raises BlockingIOError when nothing waits, OSError when the interface is gone.
        """
        if self.virtio_header:
            return os.readv(self.descriptor, buffers)
        first = next(buffer for buffer in buffers if len(buffer))
        first[: virtio.SIZE] = virtio.PLAIN
        rest = buffers[buffers.index(first) + 1 :]
        return os.readv(self.descriptor, [first[virtio.SIZE :], *rest]) + virtio.SIZE

    def write(self, packet: memoryview | bytes) -> None:
        """Write one packet behind its virtio header; raises OSError (EIO: the link is down)."""
        os.write(self.descriptor, packet if self.virtio_header else packet[virtio.SIZE :])

    def current_mtu(self) -> int:
        """Return the interface's MTU, 0 when the interface is gone or out of reach."""
        if self._asking is None:
            return 0
        try:
            return _ask_through(self._asking, self.interface(), _SIOCGIFMTU)
        except (OSError, TunDeviceError):
            return 0

    def interface(self) -> str:
        """Return the interface's name; raises TunDeviceError when it is gone."""
        return name_of(self.descriptor)


def index_of(name: str) -> int:
    """Return the interface's index; raises OSError (ENODEV when it is gone)."""
    return _ask(name, _SIOCGIFINDEX)


def mtu_of(name: str) -> int:
    """Return the interface's MTU in bytes; raises OSError."""
    return _ask(name, _SIOCGIFMTU)


def is_up(name: str) -> bool:
    """Return whether the interface is up; raises OSError."""
    return bool(_ask(name, _SIOCGIFFLAGS) & _IFF_UP)


def set_mtu(name: str, mtu: int) -> None:
    """Set the interface's MTU in bytes; raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFMTU, _IFREQ_INT.pack(name.encode(), mtu))


def _ask(name: str, request: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        return _ask_through(asking, name, request)


def _ask_through(asking: socket.socket, name: str, request: int) -> int:
    reply = fcntl.ioctl(asking, request, _IFREQ_INT.pack(name.encode(), 0))
    layout = _IFREQ_FLAGS if request == _SIOCGIFFLAGS else _IFREQ_INT
    value: int = layout.unpack(reply)[1]
    return value
