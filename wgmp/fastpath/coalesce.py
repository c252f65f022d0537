"""Coalescing: consecutive packets of one flow become one super-packet for the TUN.

The opposite of segment.py, and exact: what the kernel makes of a super-packet is byte for byte
what came. A packet joins the one before it only if all of this holds:

- IPv4 without options or IPv6 without extension headers; no fragment; TCP or UDP
- every header field equal, TCP options and window included, but for lengths, checksums, the
  IPv4 identification (one more) and the TCP sequence number (contiguous)
- TCP: flags are ACK, with PSH at most on the last; a payload; UDP: a payload, a checksum
- both checksums valid, for the kernel computes them anew
- the packet before it is as long as the first one; this one is not longer

Packets come as rows of one length. Checksums are verified for all rows at once. A header is
compared as one large number, of which masks pick what must be equal and what must move on.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from wgmp.fastpath import virtio
from wgmp.fastpath.checksum import Rows, sum_rows, sum_words
from wgmp.fastpath.segment import TCP, UDP
from wgmp.fastpath.virtio import VirtioHeader
from wgmp.protocol import ip

# The length field of an IP header (RFC 791 3.1, RFC 8200 section 3) has 16 bits.
MAX_PACKET_BYTES: Final = 65_535
# Linux before 6.9 takes no more of UDP, newer ones 128 (linux/udp.h, UDP_MAX_SEGMENTS).
MAX_UDP_SEGMENTS: Final = 64

# Flags of TCP (RFC 9293 3.1).
_ACK: Final = 0x10
_PSH: Final = 0x08
_VALID: Final = 0xFFFF


class Shape(NamedTuple):
    """The headers that a matrix's packets share. `l4`: offset; `end`: header bytes in all."""

    version: int
    protocol: int
    l4: int
    end: int


def shape_of(packet: memoryview | bytes) -> Shape | None:
    """Return the headers of a packet that may be coalesced, or None if it may not."""
    if len(packet) >= 28 and packet[0] == 0x45:
        version, protocol, l4 = 4, packet[9], 20
        if packet[6] & 0x3F or packet[7]:  # more fragments, or an offset
            return None
    elif len(packet) >= 48 and packet[0] >> 4 == 6:
        version, protocol, l4 = 6, packet[6], 40
    else:
        return None
    if protocol == UDP:
        end = l4 + 8
    elif protocol == TCP and len(packet) >= l4 + 20:
        end = l4 + (packet[l4 + 12] >> 4) * 4
        if end < l4 + 20:
            return None
    else:
        return None
    return Shape(version, protocol, l4, end) if end < len(packet) else None


class _Masks(NamedTuple):
    """Headers of a shape as large numbers, most significant byte first.

    `fixed`: what packets of one super-packet have in common, of which `first_fixed` must be as in
    `first`; `moving`: identification and sequence number, and `step` is how far they move from one
    packet to the next, each in its own bits; `push`: the flag that only the last may have.
    """

    fixed: int
    first_fixed: int
    first: int
    moving: int
    step: int
    push: int


@lru_cache(maxsize=256)
def _masks(shape: Shape, length: int) -> _Masks:
    """Return the masks for packets of `length` bytes."""
    version, protocol, l4, end = shape

    def field(offset: int, size: int, value: int) -> int:
        return value << 8 * (end - offset - size)

    free = step = push = 0
    if version == 4:
        fields = [(0, 1, 0xFF, 0x45), (2, 2, 0xFFFF, length), (6, 2, 0x3FFF, 0)]
        fields.append((9, 1, 0xFF, protocol))
        moving = field(4, 2, 0xFFFF)
        step += field(4, 2, 1)
        free += field(10, 2, 0xFFFF)
    else:
        fields = [(0, 1, 0xF0, 0x60), (4, 2, 0xFFFF, length - ip.IPV6_HEADER)]
        fields.append((6, 1, 0xFF, protocol))
        moving = 0
    if protocol == TCP:
        push = field(l4 + 13, 1, _PSH)
        fields += [(l4 + 12, 1, 0xF0, (end - l4) // 4 << 4), (l4 + 13, 1, 0xFF ^ _PSH, _ACK)]
        moving += field(l4 + 4, 4, 0xFFFF_FFFF)
        step += field(l4 + 4, 4, length - end)
        free += field(l4 + 16, 2, 0xFFFF)
    else:
        fields.append((l4 + 4, 2, 0xFFFF, length - l4))
        free += field(l4 + 6, 2, 0xFFFF)
    everything = (1 << 8 * end) - 1
    return _Masks(
        fixed=everything ^ free ^ moving ^ push,
        first_fixed=sum(field(offset, size, mask) for offset, size, mask, _ in fields),
        first=sum(field(offset, size, value) for offset, size, _, value in fields),
        moving=moving,
        step=step,
        push=push,
    )


def groups(rows: Rows, shape: Shape) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of the rows that make one packet each, in order.

    `rows`: packets of one length, without padding; `shape`: the first one's. A super-packet stays
    within the 65,535 bytes that its header can say, and within the segments that the kernel takes.
    """
    end, length = shape.end, rows.shape[1]
    most = max(1, (MAX_PACKET_BYTES - end) // (length - end))
    if shape.protocol == UDP:
        most = min(most, MAX_UDP_SEGMENTS)
    fixed, first_fixed, first, moving, step, push = _masks(shape, length)
    headers = rows[:, :end].tobytes()
    start = expected = next_moving = 0
    open_ended = False  # the row above may be continued
    for row, valid in enumerate(_are_valid(rows, shape)):
        header = int.from_bytes(headers[row * end : (row + 1) * end], "big")
        same = header & fixed == expected and header & moving == next_moving
        if not (open_ended and valid and same and row - start < most):
            if row:
                yield start, row
            start, expected = row, header & fixed
            open_ended = valid and header & first_fixed == first
        if header & push:
            open_ended = False
        next_moving = (header & moving) + step & moving
    yield start, len(rows)


def _are_valid(rows: Rows, shape: Shape) -> list[bool]:
    """Return whether each row has the checksums that it should have."""
    version, protocol, l4, _ = shape
    addresses = 12 if version == 4 else 8  # which go before what is behind, up to the end
    totals = sum_rows(rows[:, addresses:])
    totals += protocol + rows.shape[1] - l4
    valid = totals % _VALID == 0
    if version == 4:
        valid &= sum_rows(rows[:, :l4]) % _VALID == 0
    if protocol == UDP:
        valid &= rows[:, l4 + 6 : l4 + 8].any(axis=1)  # 0 is none
    flags: list[bool] = valid.tolist()
    return flags


def continues(rows: Rows, tail: memoryview, shape: Shape) -> bool:
    """Return whether the shorter packet `tail` continues the last of `rows` (TCP: its end).

    The rows are a group of `groups`, so their own checks have been made.
    """
    length = rows.shape[1]
    if shape_of(tail) != shape or not shape.end < len(tail) < length:
        return False
    # The shorter one is compared as if it were a row: both cut to its length, with the length
    # fields of the row above set to what they would be.
    above = bytearray(rows[-1, : shape.end].tobytes())
    here = bytes(tail[: shape.end])
    return _follows(above, here, length, len(tail), shape) and _is_valid(tail, shape)


def _follows(above: bytearray, here: bytes, length: int, tail_length: int, shape: Shape) -> bool:
    version, protocol, l4, end = shape
    if version == 4:
        identification = int.from_bytes(above[4:6], "big") + 1
        above[2:4] = tail_length.to_bytes(2, "big")
        above[4:6] = (identification & 0xFFFF).to_bytes(2, "big")
        above[10:12] = here[10:12]
    else:
        above[4:6] = (tail_length - 40).to_bytes(2, "big")
    if protocol == TCP:
        if above[l4 + 13] != _ACK or here[l4 + 13] & ~_PSH != _ACK:
            return False
        sequence = int.from_bytes(above[l4 + 4 : l4 + 8], "big") + length - end
        above[l4 + 4 : l4 + 8] = (sequence & 0xFFFF_FFFF).to_bytes(4, "big")
        above[l4 + 13] = here[l4 + 13]
        above[l4 + 16 : l4 + 18] = here[l4 + 16 : l4 + 18]
    else:
        if here[l4 + 6 : l4 + 8] == b"\0\0":
            return False
        above[l4 + 4 : l4 + 6] = (tail_length - l4).to_bytes(2, "big")
        above[l4 + 6 : l4 + 8] = here[l4 + 6 : l4 + 8]
    return bytes(above) == here


def _is_valid(packet: memoryview, shape: Shape) -> bool:
    if shape.version == 4 and sum_words(packet[:20]) != _VALID:
        return False
    addresses = packet[12:20] if shape.version == 4 else packet[8:40]
    total = sum_words(packet[shape.l4 :]) + sum_words(addresses)
    total += shape.protocol + len(packet) - shape.l4
    return (total & 0xFFFF) + (total >> 16) == _VALID


def super_header(rows: Rows, tail: memoryview | None, shape: Shape) -> bytes:
    """Return virtio header and packet headers of the super-packet made of `rows` and `tail`."""
    version, protocol, l4, end = shape
    count, length = rows.shape
    total = end + count * (length - end) + (0 if tail is None else len(tail) - end)
    header = bytearray(rows[0, :end].tobytes())
    addresses = bytes(header[12:20]) if version == 4 else bytes(header[8:40])
    if version == 4:
        header[2:4] = total.to_bytes(2, "big")
        header[10:12] = bytes(2)
        header[10:12] = (sum_words(bytes(header[:20])) ^ 0xFFFF).to_bytes(2, "big")
    else:
        header[4:6] = (total - 40).to_bytes(2, "big")
    if protocol == TCP:
        kind = virtio.GSO_TCPV4 if version == 4 else virtio.GSO_TCPV6
        last = rows[-1, l4 + 13] if tail is None else tail[l4 + 13]
        header[l4 + 13] = int(last)
        field = 16
    else:
        kind = virtio.GSO_UDP_L4
        header[l4 + 4 : l4 + 6] = (total - l4).to_bytes(2, "big")
        field = 6
    pseudo = sum_words(addresses) + protocol + total - l4
    while pseudo >> 16:
        pseudo = (pseudo & 0xFFFF) + (pseudo >> 16)
    header[l4 + field : l4 + field + 2] = pseudo.to_bytes(2, "big")
    virtio_header = VirtioHeader(virtio.NEEDS_CSUM, kind, end, length - end, l4, field)
    return virtio_header.pack() + bytes(header)
