"""utun, the TUN device of macOS: opening it, its name, and a queue of it to read and write.

pytun-pmd3 creates the device; reading and writing go straight to the descriptor, a datagram socket.
Each packet comes and goes behind four bytes, its address family in network order. A `UtunQueue`
puts a plain virtio header in their place, so that the roles see what they see on Linux.

The system chooses the interface's name; one can only ask for a number.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path

import msgspec

from wgmp import tun
from wgmp.errors import ConfigError, PrivilegeError, TunDeviceError
from wgmp.fastpath import virtio
from wgmp.options import Options
from wgmp.protocol.constants import DEFAULT_MTU

NAME = re.compile(r"utun(0|[1-9][0-9]{0,3})?")

# sys/kern_control.h, sys/sys_domain.h, net/if_utun.h
_AF_SYSTEM = 32
_SYSPROTO_CONTROL = 2
_UTUN_OPT_IFNAME = 2
_NAME_BYTES = 16

_FAMILY_BYTES = 4
# AF_INET and AF_INET6 of sys/socket.h, by the first nibble of a packet.
_FAMILIES = {4: bytes([0, 0, 0, 2]), 6: bytes([0, 0, 0, 30])}


def open_tun(name: str) -> int:
    """Create the interface `name`, "utun" for any number; return its descriptor.

    It has WireGuard's default MTU, and lives as long as the descriptor and its duplicates. Raises
    ConfigError for a name that cannot be, PrivilegeError, TunDeviceError.
    """
    wanted = NAME.fullmatch(name)
    if wanted is None:
        raise ConfigError(
            f"interface name {name!r} is not possible on macOS: write utun, which lets the system "
            "choose, or utun and a number, for example utun7"
        )
    from pytun_pmd3 import TunTapDevice  # only gateways need it, not every `wgmp` command

    try:
        device = TunTapDevice(int(wanted[1]) if wanted[1] else None)
        try:
            device.mtu = DEFAULT_MTU
            # The object would close its descriptor when it is collected.
            descriptor = os.dup(device.fileno())
        finally:
            device.close()
    except OSError as error:
        raise _explain(error, name) from error
    os.set_blocking(descriptor, False)
    return descriptor


def _explain(error: OSError, name: str) -> PrivilegeError | TunDeviceError:
    """Return the error to show. pytun-pmd3 does not say why the system refused."""
    number = error.errno or 0
    if os.geteuid():
        return PrivilegeError(f"cannot create interface {name}: run as root", number)
    return TunDeviceError(
        f"cannot create interface {name} ({error.strerror}): it may be taken; with the name utun "
        "the system chooses a free one",
        number,
    )


def name_of(descriptor: int) -> str:
    """Return the interface name of an open utun descriptor; raises TunDeviceError."""
    where = (_AF_SYSTEM, socket.SOCK_DGRAM, _SYSPROTO_CONTROL)
    try:
        with socket.socket(*where, fileno=os.dup(descriptor)) as sock:
            name = sock.getsockopt(_SYSPROTO_CONTROL, _UTUN_OPT_IFNAME, _NAME_BYTES)
    except OSError as error:
        raise TunDeviceError(
            f"descriptor {descriptor} is no utun device: {error.strerror}", error.errno or 0
        ) from error
    return name.split(b"\0", 1)[0].decode()


def with_interface(options: Options, environment: Mapping[str, str]) -> Options:
    """Return the options with the interface open, and by the name that the system chose.

    As wireguard-go does, writes a name that was not asked for to the file WG_TUN_NAME_FILE. Raises
    what `open_tun` raises, and ConfigError when that file cannot be written.
    """
    if options.tun_fd is not None:
        return options
    descriptor = open_tun(options.interface)
    name = name_of(descriptor)
    file = environment.get("WG_TUN_NAME_FILE", "")
    if file and options.interface == "utun":
        try:
            Path(file).write_text(f"{name}\n")
        except OSError as error:
            raise ConfigError(f"WG_TUN_NAME_FILE: cannot write {file}: {error.strerror}") from error
    return msgspec.structs.replace(options, interface=name, tun_fd=descriptor)


class UtunQueue(tun.TunQueue):
    """The descriptor of the interface `name`; see `tun.TunQueue`."""

    __slots__ = ("_family", "_name")

    def __init__(self, descriptor: int, name: str, asking: socket.socket) -> None:
        super().__init__(descriptor, False, asking)
        self._name = name
        self._family = bytearray(_FAMILY_BYTES)

    def read(self, buffers: list[memoryview]) -> int:
        """Read one packet; leave a plain virtio header before it."""
        first = next(buffer for buffer in buffers if len(buffer))
        rest = buffers[buffers.index(first) + 1 :]
        length = os.readv(self.descriptor, [self._family, first[virtio.SIZE :], *rest])
        if length < _FAMILY_BYTES:
            raise OSError(errno.ENXIO, "the interface is gone")
        first[: virtio.SIZE] = virtio.PLAIN
        return length - _FAMILY_BYTES + virtio.SIZE

    def write(self, packet: memoryview | bytes) -> None:
        """Write one packet, whose virtio header is plain; raises OSError."""
        body = packet[virtio.SIZE :]
        os.writev(self.descriptor, [_FAMILIES[body[0] >> 4], body])

    def interface(self) -> str:
        """Return the interface's name."""
        return self._name


def queue_of(descriptor: int, name: str, asking: socket.socket) -> UtunQueue:
    """Return a queue of the interface `name`; `asking`: any socket."""
    return UtunQueue(descriptor, name, asking)
