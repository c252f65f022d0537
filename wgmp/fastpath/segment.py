"""Segmentation: one super-packet from the TUN becomes the packets it stands for.

The kernel hands over up to 64 KiB of one TCP or UDP flow with a single header (virtio.py). All
segments are laid out at once, as rows of a matrix: the header of a middle segment repeated, the
payload cut, then the fields that differ set column by column, and in the first and the last row:

| field | first | middle | last |
|---|---|---|---|
| IPv4 total length, IPv6 payload length, UDP length | | | of what is left |
| IPv4 identification | as given | + 1 each | + 1 |
| TCP sequence number | as given | + gso_size each | + gso_size |
| TCP FIN, PSH | clear | clear | as given |
| TCP CWR | as given | clear | clear |
| checksums | computed | computed | computed |
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import numpy as np

from wgmp.fastpath import virtio
from wgmp.fastpath.checksum import Rows, finish, finish_rows, sum_rows, sum_words
from wgmp.fastpath.virtio import VirtioHeader
from wgmp.protocol import ip
from wgmp.protocol.outcome import DropReason

# IANA's protocol numbers; headers and flags by RFC 768 and RFC 9293 3.1.
TCP: Final = 6
UDP: Final = 17
_UDP_HEADER: Final = 8
_TCP_HEADER_MIN: Final = 20
_FIN_PSH: Final = 0x09
_CWR: Final = 0x80
_ROW_MULTIPLE: Final = 16
# Fields in network order: one at an offset, or a column of them.
_FIELD16: Final = struct.Struct(">H")
_COLUMN16: Final = np.dtype(">u2")
_COLUMN32: Final = np.dtype(">u4")
# Rows are counted from 0; a super-packet has no more bytes than that, and no more rows.
_NUMBERS: Final = np.arange(1 << 16)


class Segments(NamedTuple):
    """Rows of packets: all `length` bytes long but the last, which has `last_length`.

    Bytes of a row behind its packet are zero, up to the row's end.
    """

    rows: Rows
    length: int
    last_length: int


class _Headers(NamedTuple):
    """Where a super-packet's headers are. `l4`: offset; `end`: header bytes in all."""

    version: int
    protocol: int
    l4: int
    end: int


def finish_checksum(header: VirtioHeader, packet: bytes) -> bytes | DropReason:
    """Return the packet with the checksum that the kernel left to the device (NEEDS_CSUM).

    The field holds the pseudo-header's sum already. BAD_PACKET when it is not in the packet.
    """
    field = header.csum_start + header.csum_offset
    if not ip.version(packet) or field + 2 > len(packet):
        return DropReason.BAD_PACKET
    total = finish(sum_words(packet[header.csum_start :]))
    if not total and packet[6 if packet[0] >> 4 == 6 else 9] == UDP:
        total = 0xFFFF  # zero means "no checksum" (RFC 768)
    return packet[:field] + total.to_bytes(2, "big") + packet[field + 2 :]


def segment(header: VirtioHeader, packet: memoryview, scratch: Rows) -> Segments | DropReason:
    """Cut a super-packet into rows of `scratch` (one dimension); BAD_PACKET if it is none.

    `packet`: the IP packet behind its virtio header, borrowed. `scratch` must hold every
    segment, each rounded up to 16 bytes.
    """
    where = _headers(header, packet)
    size = header.gso_size
    if where is None or not size:
        return DropReason.BAD_PACKET
    payload = np.frombuffer(packet[where.end :], np.uint8)
    whole, rest = divmod(len(payload), size)
    count = max(1, whole + (rest > 0))
    length = where.end + min(size, len(payload))
    last_length = where.end + rest if whole and rest else length
    pitch = -(-length // _ROW_MULTIPLE) * _ROW_MULTIPLE
    if count * pitch > len(scratch):
        return DropReason.BAD_PACKET
    rows = scratch[: count * pitch].reshape(count, pitch)
    rows[:, : where.end] = np.frombuffer(_middle_header(packet, where, length), np.uint8)
    if whole:
        rows[:whole, where.end : length] = payload[: whole * size].reshape(whole, size)
    rows[:, length:] = 0
    if rest:
        rows[-1, where.end : last_length] = payload[whole * size :]
        rows[-1, last_length:] = 0
    _set_columns(rows, packet, where, size)
    _set_ends(rows, packet, where, last_length)
    _set_checksums(rows, where, length, last_length)
    return Segments(rows, length, last_length)


def _headers(header: VirtioHeader, packet: memoryview) -> _Headers | None:
    """Find the headers by parsing them: hdr_len cannot be relied on."""
    l4 = header.csum_start
    kind = header.gso_type & ~virtio.GSO_ECN
    if len(packet) < l4 + _UDP_HEADER or l4 & 1:
        return None
    version = packet[0] >> 4
    if version == 4:
        if l4 != (packet[0] & 15) * 4 or l4 < 20:
            return None
    elif version != 6 or l4 < 40:
        return None
    if kind == virtio.GSO_UDP_L4:
        return _Headers(version, UDP, l4, l4 + _UDP_HEADER)
    if kind != (virtio.GSO_TCPV4 if version == 4 else virtio.GSO_TCPV6):
        return None
    if len(packet) < l4 + _TCP_HEADER_MIN:
        return None
    end = l4 + (packet[l4 + 12] >> 4) * 4
    if end < l4 + _TCP_HEADER_MIN or end > len(packet):
        return None
    return _Headers(version, TCP, l4, end)


def _middle_header(packet: memoryview, where: _Headers, length: int) -> bytearray:
    """Return the headers of a segment of `length` bytes that is neither the first nor the last.

    The checksums are 0, and identification and sequence number not its own yet.
    """
    version, protocol, l4, end = where
    middle = bytearray(packet[:end])
    if version == 4:
        _FIELD16.pack_into(middle, 2, length)
        _FIELD16.pack_into(middle, 10, 0)
    else:
        _FIELD16.pack_into(middle, 4, length - ip.IPV6_HEADER)
    if protocol == TCP:
        middle[l4 + 13] &= 0xFF ^ _FIN_PSH ^ _CWR
        _FIELD16.pack_into(middle, l4 + 16, 0)
    else:
        _FIELD16.pack_into(middle, l4 + 4, length - l4)
        _FIELD16.pack_into(middle, l4 + 6, 0)
    return middle


def _set_columns(rows: Rows, packet: memoryview, where: _Headers, size: int) -> None:
    """Set what is another number in each segment."""
    numbers = _NUMBERS[: len(rows)]
    if where.version == 4:
        rows[:, 4:6].view(_COLUMN16)[:, 0] = numbers + int.from_bytes(packet[4:6], "big")
    if where.protocol == TCP:
        at = where.l4 + 4
        first = int.from_bytes(packet[at : at + 4], "big")
        rows[:, at : at + 4].view(_COLUMN32)[:, 0] = numbers * size + first


def _set_ends(rows: Rows, packet: memoryview, where: _Headers, last_length: int) -> None:
    """Set what is different in the first segment and in the last."""
    version, protocol, l4, _ = where
    last = rows[-1].data
    if version == 4:
        _FIELD16.pack_into(last, 2, last_length)
    else:
        _FIELD16.pack_into(last, 4, last_length - ip.IPV6_HEADER)
    if protocol == TCP:
        flags = packet[l4 + 13]
        rows[0, l4 + 13] |= flags & _CWR
        rows[-1, l4 + 13] |= flags & _FIN_PSH
    else:
        _FIELD16.pack_into(last, l4 + 4, last_length - l4)


def _set_checksums(rows: Rows, where: _Headers, length: int, last_length: int) -> None:
    """Set the checksums, which are 0 by now, of rows that are complete but for that."""
    version, protocol, l4, _ = where
    if version == 4:
        rows[:, 10:12].view(_COLUMN16)[:, 0] = finish_rows(sum_rows(rows[:, :l4]))
    # The pseudo-header: addresses, protocol, length.
    addresses = rows[0, 12:20] if version == 4 else rows[0, 8:40]
    totals = sum_rows(rows[:, l4:])
    totals += sum_words(addresses.data) + protocol + length - l4
    totals[-1] += last_length - length
    checksums = finish_rows(totals)
    if protocol == UDP:
        checksums[checksums == 0] = 0xFFFF
    at = l4 + (16 if protocol == TCP else 6)
    rows[:, at : at + 2].view(_COLUMN16)[:, 0] = checksums
