"""Send real super-packets through TUN devices and sockets, and see which the kernel takes.

Run as a program, `python -m wgmp.superpackets`, it prints a JSON list of findings. `tunpair.py` has
the two TUN devices that everything but UDP's own trains goes through; those take the loopback.
"""

from __future__ import annotations

import os
import socket
import struct
import sys

import msgspec

from wgmp.fastpath import virtio
from wgmp.offload import CSUM, SOL_UDP, TSO4, TSO6, UDP_GRO, UDP_SEGMENT, USO4, USO6
from wgmp.tunpair import ADDRESSES, LIMIT_S, MTU, PORT, Side, carry, make_side, set_offload

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


def probe() -> list[Finding]:
    """Test every offload. Raises OSError without privileges, `ip`, or the TUN device."""
    sides = [make_side(number) for number in (0, 1)]
    return [
        _udp_segment(),
        _udp_gro(),
        _checksum(sides),
        _tcp(sides, 4, TSO4),
        _tcp(sides, 6, TSO6),
        _udp(sides, 4),
        _udp(sides, 6),
    ]


def _tcp(sides: list[Side], family: int, flag: int) -> Finding:
    """Send a stream from A to B; it must arrive whole, in super-packets."""
    name = f"TUN TSO{family}"
    refusal = set_offload(sides, CSUM | flag)
    if refusal:
        return Finding(name, False, refusal, _SLOWER)
    sender, listener = sides[0].streams[family], sides[1].listeners[family]
    sender.connect_ex((ADDRESSES[family][1], PORT))
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

    whole = carry(sides, turn) and bytes(arrived) == _STREAM
    kind = virtio.GSO_TCPV4 if family == 4 else virtio.GSO_TCPV6
    return _judge(name, whole, sides[0].largest.get(kind, 0), _SLOWER)


def _udp(sides: list[Side], family: int) -> Finding:
    """Send a train of datagrams from A to B; it must arrive whole, as one super-packet."""
    name = f"TUN USO{family}"
    # The kernel takes both families or none (drivers/net/tun.c, set_offload).
    refusal = set_offload(sides, CSUM | TSO4 | TSO6 | USO4 | USO6)
    if refusal:
        return Finding(name, False, refusal, _NEWER)
    try:
        _send_train(sides[0].datagrams[family], (ADDRESSES[family][1], PORT))
    except OSError as error:
        return Finding(name, False, f"the train was refused: {error.strerror}", _NEWER)
    whole = _arrives(sides, family, _TRAIN)
    return _judge(name, whole, sides[0].largest.get(virtio.GSO_UDP_L4, 0), _NEWER)


def _checksum(sides: list[Side]) -> Finding:
    """Send a datagram from A to B; its checksum must be left to us and completed at B."""
    refusal = set_offload(sides, CSUM)
    if refusal:
        return Finding("TUN CSUM", False, refusal, _SLOWER)
    content = _TRAIN[:_SEGMENT_BYTES]
    sides[0].datagrams[4].sendto(content, (ADDRESSES[4][1], PORT))
    if not _arrives(sides, 4, content):
        return Finding("TUN CSUM", False, "what was sent did not arrive whole", _SLOWER)
    if not sides[0].unfinished:
        return Finding("TUN CSUM", False, "the kernel computes checksums itself", _SLOWER)
    return Finding("TUN CSUM", True, "a packet without its checksum went through two TUNs")


def _arrives(sides: list[Side], family: int, content: bytes) -> bool:
    """Carry packets until datagrams with this content have come to B; return whether they did."""
    arrived = bytearray()

    def turn() -> bool:
        try:
            arrived.extend(sides[1].datagrams[family].recv(1 << 16))
        except BlockingIOError:
            return False
        return len(arrived) >= len(content)

    return carry(sides, turn) and bytes(arrived) == content


def _judge(name: str, whole: bool, largest: int, remedy: str) -> Finding:
    if not whole:
        return Finding(name, False, "what was sent did not arrive whole", remedy)
    if largest <= MTU:
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
    sock.settimeout(LIMIT_S)
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
