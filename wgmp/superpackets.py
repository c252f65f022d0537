"""Send real super-packets through TUN devices and sockets, and see which the kernel takes.

```
namespace A                                        namespace B
socket -> probeA (TUN) -- this process copies -> probeB (TUN) -> socket
```

Run as a program, `python -m wgmp.superpackets`, it prints a JSON list of findings. It makes two
namespaces without names, enters one after the other, and opens in each a TUN device and sockets;
all of it goes when the process ends. A packet from one TUN is written to the other as it came,
virtio header included, so what arrives has been through both directions of the offload.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from wgmp.fastpath import virtio
from wgmp.fastpath.virtio import VirtioHeader
from wgmp.offload import (
    CSUM,
    SOL_UDP,
    TSO4,
    TSO6,
    TUNSETOFFLOAD,
    UDP_GRO,
    UDP_SEGMENT,
    USO4,
    USO6,
)

# sched.h
_CLONE_NEWNET = 0x40000000
# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TUNSETVNETHDRSZ = 0x400454D8
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000

_IFREQ = struct.Struct("=16sH22x")
_MTU = 1420
_READ_BYTES = virtio.SIZE + 65_535
_PORT = 5301
_LIMIT_S = 5.0
_ADDRESSES = {4: ("10.99.0.1", "10.99.0.2"), 6: ("fd99::1", "fd99::2")}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}

# A train of datagrams as udp_writer sends it; one super-packet for a kernel that takes it whole.
_SEGMENT_BYTES = 1000
_TRAIN = b"".join(bytes([number]) * _SEGMENT_BYTES for number in range(40))
_STREAM = os.urandom(1 << 18)

_SLOWER = "works without, more slowly"
_NEWER = "works without; a kernel 6.2 or newer has it"


class Finding(msgspec.Struct, frozen=True):
    """Whether one offload works; `detail`: what was seen, `remedy`: what to do if it does not."""

    name: str
    works: bool
    detail: str
    remedy: str = ""


@dataclass
class _Side:
    """One namespace's TUN and sockets, and what was read from the TUN since offloads were set.

    `largest`: bytes of the largest packet, by kind; `unfinished`: packets without a checksum.
    """

    tun: int
    listeners: dict[int, socket.socket]
    streams: dict[int, socket.socket]
    datagrams: dict[int, socket.socket]
    largest: dict[int, int] = field(default_factory=dict)
    unfinished: int = 0


def probe() -> list[Finding]:
    """Test every offload. Raises OSError without privileges, `ip`, or the TUN device."""
    sides = [_make_side(number) for number in (0, 1)]
    return [
        _udp_segment(),
        _udp_gro(),
        _checksum(sides),
        _tcp(sides, 4, TSO4),
        _tcp(sides, 6, TSO6),
        _udp(sides, 4),
        _udp(sides, 6),
    ]


def _make_side(number: int) -> _Side:
    """Enter a new namespace and make everything in it. It lives as long as the descriptors."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, f"cannot make a namespace: {os.strerror(code)}")
    name = f"probe{'AB'[number]}"
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
    fcntl.ioctl(tun, _TUNSETIFF, _IFREQ.pack(name.encode(), flags))
    fcntl.ioctl(tun, _TUNSETVNETHDRSZ, struct.pack("=i", virtio.SIZE))
    for addresses, length in ((_ADDRESSES[4], 24), (_ADDRESSES[6], 64)):
        nodad = ["nodad"] if ":" in addresses[0] else []
        _ip("address", "add", f"{addresses[number]}/{length}", "dev", name, *nodad)
    _ip("link", "set", name, "mtu", str(_MTU), "up")
    _ip("link", "set", "lo", "up")
    side = _Side(tun, {}, {}, {})
    for family, kind in _FAMILIES.items():
        address = (_ADDRESSES[family][number], _PORT)
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


def _carry(sides: list[_Side], done: Callable[[], bool]) -> bool:
    """Copy packets between the two TUNs until `done`; return whether it came in time."""
    deadline = time.monotonic() + _LIMIT_S
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


def _copy(source: _Side, target: _Side) -> None:
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


def _set_offload(sides: list[_Side], flags: int) -> str:
    """Ask both TUNs for offloads; return "" or the kernel's refusal."""
    for side in sides:
        side.largest.clear()
        side.unfinished = 0
        try:
            fcntl.ioctl(side.tun, TUNSETOFFLOAD, flags)
        except OSError as error:
            return f"TUNSETOFFLOAD refused: {error.strerror}"
    return ""


def _tcp(sides: list[_Side], family: int, flag: int) -> Finding:
    """Send a stream from A to B; it must arrive whole, in super-packets."""
    name = f"TUN TSO{family}"
    refusal = _set_offload(sides, CSUM | flag)
    if refusal:
        return Finding(name, False, refusal, _SLOWER)
    sender, listener = sides[0].streams[family], sides[1].listeners[family]
    sender.connect_ex((_ADDRESSES[family][1], _PORT))
    accepted: list[socket.socket] = []
    unsent = memoryview(_STREAM)
    arrived = bytearray()

    def turn() -> bool:
        nonlocal unsent
        if not accepted:
            try:
                accepted.append(listener.accept()[0])
                accepted[0].setblocking(False)
            except BlockingIOError:
                return False
        try:
            if unsent:
                unsent = unsent[sender.send(unsent) :]
            arrived.extend(accepted[0].recv(1 << 20))
        except BlockingIOError:
            return False
        return len(arrived) >= len(_STREAM)

    whole = _carry(sides, turn) and bytes(arrived) == _STREAM
    kind = virtio.GSO_TCPV4 if family == 4 else virtio.GSO_TCPV6
    return _judge(name, whole, sides[0].largest.get(kind, 0), _SLOWER)


def _udp(sides: list[_Side], family: int) -> Finding:
    """Send a train of datagrams from A to B; it must arrive whole, as one super-packet."""
    name = f"TUN USO{family}"
    # The kernel takes both families or none (drivers/net/tun.c, set_offload).
    refusal = _set_offload(sides, CSUM | TSO4 | TSO6 | USO4 | USO6)
    if refusal:
        return Finding(name, False, refusal, _NEWER)
    try:
        _send_train(sides[0].datagrams[family], (_ADDRESSES[family][1], _PORT))
    except OSError as error:
        return Finding(name, False, f"the train was refused: {error.strerror}", _NEWER)
    whole = _arrives(sides, family, _TRAIN)
    return _judge(name, whole, sides[0].largest.get(virtio.GSO_UDP_L4, 0), _NEWER)


def _checksum(sides: list[_Side]) -> Finding:
    """Send a datagram from A to B; its checksum must be left to us and completed at B."""
    refusal = _set_offload(sides, CSUM)
    if refusal:
        return Finding("TUN CSUM", False, refusal, _SLOWER)
    content = _TRAIN[:_SEGMENT_BYTES]
    sides[0].datagrams[4].sendto(content, (_ADDRESSES[4][1], _PORT))
    if not _arrives(sides, 4, content):
        return Finding("TUN CSUM", False, "what was sent did not arrive whole", _SLOWER)
    if not sides[0].unfinished:
        return Finding("TUN CSUM", False, "the kernel computes checksums itself", _SLOWER)
    return Finding("TUN CSUM", True, "a packet without its checksum went through two TUNs")


def _arrives(sides: list[_Side], family: int, content: bytes) -> bool:
    """Carry packets until datagrams with this content have come to B; return whether they did."""
    arrived = bytearray()

    def turn() -> bool:
        try:
            arrived.extend(sides[1].datagrams[family].recv(1 << 16))
        except BlockingIOError:
            return False
        return len(arrived) >= len(content)

    return _carry(sides, turn) and bytes(arrived) == content


def _judge(name: str, whole: bool, largest: int, remedy: str) -> Finding:
    if not whole:
        return Finding(name, False, "what was sent did not arrive whole", remedy)
    if largest <= _MTU:
        return Finding(name, False, "the kernel made no super-packets", remedy)
    return Finding(name, True, f"a super-packet of {largest} bytes went through two TUNs")


def _send_train(sock: socket.socket, address: tuple[str, int]) -> None:
    segment = struct.pack("=H", _SEGMENT_BYTES)
    sock.sendmsg([_TRAIN], [(SOL_UDP, UDP_SEGMENT, segment)], 0, address)


def _udp_segment() -> Finding:
    """Send a train over the loopback to a socket without UDP_GRO: datagrams must come apart."""
    remedy = "works without, a system call per datagram; a kernel 4.18 or newer has it"
    with _loopback_socket() as receiver, _loopback_socket() as sender:
        try:
            _send_train(sender, receiver.getsockname())
            arrived = [receiver.recv(1 << 16) for _ in range(len(_TRAIN) // _SEGMENT_BYTES)]
        except OSError as error:
            return Finding("UDP_SEGMENT", False, f"refused: {error.strerror or error}", remedy)
    if b"".join(arrived) != _TRAIN:
        return Finding("UDP_SEGMENT", False, "what was sent did not arrive whole", remedy)
    return Finding("UDP_SEGMENT", True, f"one send made {len(arrived)} datagrams")


def _udp_gro() -> Finding:
    """Send a train over the loopback to a socket with UDP_GRO: it must come in one piece."""
    remedy = "works without, a system call per datagram; a kernel 5.0 or newer has it"
    with _loopback_socket() as receiver, _loopback_socket() as sender:
        try:
            receiver.setsockopt(SOL_UDP, UDP_GRO, 1)
            _send_train(sender, receiver.getsockname())
            arrived, ancillary, _, _ = receiver.recvmsg(1 << 16, 64)
        except OSError as error:
            return Finding("UDP_GRO", False, f"refused: {error.strerror or error}", remedy)
    sizes = [struct.unpack("=i", value)[0] for _, kind, value in ancillary if kind == UDP_GRO]
    if arrived != _TRAIN or sizes != [_SEGMENT_BYTES]:
        return Finding("UDP_GRO", False, "the train came apart", remedy)
    return Finding("UDP_GRO", True, f"one receive brought {len(_TRAIN) // sizes[0]} datagrams")


def _loopback_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(_LIMIT_S)
    sock.bind(("127.0.0.1", 0))
    return sock


def main() -> int:
    """Print the findings as JSON; return the exit code."""
    try:
        findings = probe()
    except OSError as error:
        print(error.strerror or error, file=sys.stderr)
        return 1
    print(msgspec.json.encode(findings).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
