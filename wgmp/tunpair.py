"""Two TUN devices in network namespaces without names, and this process between them.

```
namespace A                                        namespace B
socket -> probeA (TUN) -- this process copies -> probeB (TUN) -> socket
```

The process enters one namespace after the other and opens a TUN device and sockets in each; all of
it goes when the process ends. A packet from one TUN is written to the other as it came, virtio
header included, so what arrives has been through both directions of an offload.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from wgmp.fastpath import virtio
from wgmp.fastpath.virtio import VirtioHeader
from wgmp.offload import TUNSETOFFLOAD

# sched.h
_CLONE_NEWNET = 0x40000000
# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TUNSETVNETHDRSZ = 0x400454D8
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000

_IFREQ = struct.Struct("=16sH22x")
_READ_BYTES = virtio.SIZE + 65_535
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}

MTU = 1420
PORT = 5301
LIMIT_S = 5.0
# By family: A's, B's.
ADDRESSES = {4: ("10.99.0.1", "10.99.0.2"), 6: ("fd99::1", "fd99::2")}


@dataclass
class Side:
    """One namespace's TUN and sockets, and what was read from the TUN since offloads were set.

    `largest`: bytes of the largest packet, by kind; `unfinished`: packets without a checksum.
    """

    tun: int
    listeners: dict[int, socket.socket]
    streams: dict[int, socket.socket]
    datagrams: dict[int, socket.socket]
    largest: dict[int, int] = field(default_factory=dict)
    unfinished: int = 0


def make_side(number: int) -> Side:
    """Enter a new namespace and make everything in it; `number`: 0 for A, 1 for B.

    It lives as long as the descriptors. Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, f"cannot make a namespace: {os.strerror(code)}")
    name = f"probe{'AB'[number]}"
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
    fcntl.ioctl(tun, _TUNSETIFF, _IFREQ.pack(name.encode(), flags))
    fcntl.ioctl(tun, _TUNSETVNETHDRSZ, struct.pack("=i", virtio.SIZE))
    for addresses, length in ((ADDRESSES[4], 24), (ADDRESSES[6], 64)):
        nodad = ["nodad"] if ":" in addresses[0] else []
        _ip("address", "add", f"{addresses[number]}/{length}", "dev", name, *nodad)
    _ip("link", "set", name, "mtu", str(MTU), "up")
    _ip("link", "set", "lo", "up")
    side = Side(tun, {}, {}, {})
    for family, kind in _FAMILIES.items():
        address = (ADDRESSES[family][number], PORT)
        side.listeners[family] = socket.create_server(address, family=kind)
        side.streams[family] = socket.socket(kind, socket.SOCK_STREAM)
        side.datagrams[family] = socket.socket(kind, socket.SOCK_DGRAM)
        side.datagrams[family].bind(address)
        for sock in (side.listeners[family], side.streams[family], side.datagrams[family]):
            sock.setblocking(False)
    return side


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=10)
    if done.returncode:
        raise OSError(f"`ip {' '.join(arguments)}` failed: {done.stderr.strip()}")


def carry(sides: list[Side], done: Callable[[], bool]) -> bool:
    """Copy packets between the two TUNs until `done`; return whether it came in time."""
    deadline = time.monotonic() + LIMIT_S
    poll = select.poll()
    for side in sides:
        poll.register(side.tun, select.POLLIN)
    while not done():
        if time.monotonic() > deadline:
            return False
        poll.poll(10)
        for source, target in ((sides[0], sides[1]), (sides[1], sides[0])):
            _copy(source, target)
    return True


def _copy(source: Side, target: Side) -> None:
    while True:
        try:
            packet = os.read(source.tun, _READ_BYTES)
        except BlockingIOError:
            return
        header = VirtioHeader.unpack(packet)
        kind = header.gso_type & ~virtio.GSO_ECN
        source.unfinished += header.flags & virtio.NEEDS_CSUM
        source.largest[kind] = max(source.largest.get(kind, 0), len(packet) - virtio.SIZE)
        try:
            os.write(target.tun, packet)
        except OSError:
            continue  # refused; whoever waits for it will say so


def set_offload(sides: list[Side], flags: int) -> str:
    """Ask both TUNs for offloads; return "" or the kernel's refusal."""
    for side in sides:
        side.largest.clear()
        side.unfinished = 0
        try:
            fcntl.ioctl(side.tun, TUNSETOFFLOAD, flags)
        except OSError as error:
            return f"TUNSETOFFLOAD refused: {error.strerror}"
    return ""
