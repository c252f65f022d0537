"""Coalescing: consecutive packets of one flow become one super-packet for the TUN.

The opposite of segment.py, and exact: what the kernel makes of a super-packet is byte for byte
what came. A packet joins the one before it only if all of this holds:

- IPv4 without options or IPv6 without extension headers; no fragment; TCP or UDP
- every header field equal, TCP options and window included, but for lengths, checksums, the
  IPv4 identification (one more) and the TCP sequence number (contiguous)
- TCP: flags are ACK, with PSH at most on the last; a payload; UDP: a payload, a checksum
- both checksums valid, for the kernel computes them anew
- the packet before it is as long as the first one; this one is not longer

Packets come as rows of one length. All conditions are computed for all rows at once; `joins`
says where a row continues the one above it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wgmp.fastpath import virtio
from wgmp.fastpath.checksum import Rows, Sums, fold_rows, sum_rows, sum_words
from wgmp.fastpath.segment import TCP, UDP
from wgmp.fastpath.virtio import VirtioHeader

# The length field of an IP header (RFC 791 3.1, RFC 8200 section 3) has 16 bits.
MAX_PACKET_BYTES: Final = 65_535
# Linux before 6.9 takes no more of UDP, newer ones 128 (linux/udp.h, UDP_MAX_SEGMENTS).
MAX_UDP_SEGMENTS: Final = 64

# Flags of TCP (RFC 9293 3.1).
_ACK: Final = 0x10
_PSH: Final = 0x08
_VALID: Final = 0xFFFF

Flags = NDArray[np.bool_]


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


def joins(rows: Rows, shape: Shape) -> Flags:
    """Return, for each row but the first, whether it continues the row above it.

    `rows`: packets of one length, without padding, at least two; `shape`: the first one's.
    """
    version, protocol, l4, end = shape
    count, length = rows.shape
    headers = rows[:, :end]
    free = np.zeros(end, np.bool_)
    ok = np.ones(count, np.bool_)
    steps = np.ones(count - 1, np.bool_)
    if version == 4:
        free[[4, 5, 10, 11]] = True
        ok &= _column16(rows, 2) == length
        ok &= sum_rows(rows[:, :20]) == _VALID
        ids = _column16(rows, 4)
        steps &= (ids[1:] - ids[:-1]) & 0xFFFF == 1
        pseudo = _row_sums(rows[:, 12:20])
    else:
        ok &= _column16(rows, 4) == length - 40
        pseudo = _row_sums(rows[:, 8:40])
    if protocol == TCP:
        free[l4 + 4 : l4 + 8] = True
        free[[l4 + 13, l4 + 16, l4 + 17]] = True
        flags = rows[:, l4 + 13]
        ok &= flags & ~np.uint8(_PSH) == _ACK
        sequence = np.ascontiguousarray(rows[:, l4 + 4 : l4 + 8]).view(">u4")[:, 0]
        sequence = sequence.astype(np.int64)
        steps &= (sequence[1:] - sequence[:-1]) & 0xFFFF_FFFF == length - end
        steps &= flags[:-1] == _ACK
    else:
        free[[l4 + 6, l4 + 7]] = True
        ok &= _column16(rows, l4 + 4) == length - l4
        ok &= _column16(rows, l4 + 6) != 0
    ok &= fold_rows(_row_sums(rows[:, l4:]) + pseudo + np.uint32(protocol + length - l4)) == _VALID
    same = ((headers[1:] == headers[:-1]) | free).all(axis=1)
    return np.asarray(same & steps & ok[1:] & ok[:-1], np.bool_)


def _column16(rows: Rows, column: int) -> NDArray[np.int64]:
    return rows[:, column].astype(np.int64) << 8 | rows[:, column + 1]


def _row_sums(rows: Rows) -> Sums:
    """Return each row's folded sum, for any number of bytes."""
    even = rows.shape[1] & ~1
    sums = sum_rows(rows[:, :even])
    if even != rows.shape[1]:
        sums = sums + (rows[:, -1].astype(np.uint32) << np.uint32(8))
    return sums


def groups(joined: Flags, shape: Shape, length: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of the rows that make one packet each, in order.

    `length`: of each row. A super-packet stays within the 65,535 bytes that its header can say, and
    within the segments that the kernel takes.
    """
    most = max(1, (MAX_PACKET_BYTES - shape.end) // (length - shape.end))
    if shape.protocol == UDP:
        most = min(most, MAX_UDP_SEGMENTS)
    start = 0
    for row, joins_above in enumerate(joined.tolist(), 1):
        if not joins_above or row - start >= most:
            yield start, row
            start = row
    yield start, len(joined) + 1


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
