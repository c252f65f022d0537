"""Segmentation: one super-packet from the TUN becomes the packets it stands for.

The kernel hands over up to 64 KiB of one TCP or UDP flow with a single header (virtio.py). All
segments are laid out at once, as rows of a matrix: the header repeated, the payload cut, then
the fields that differ set column by column:

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

from functools import cache
from typing import Final, NamedTuple

import numpy as np

from wgmp.fastpath import virtio
from wgmp.fastpath.checksum import Rows, finish, fold_rows, sum_rows, sum_words
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
    count = max(1, -(-len(payload) // size))
    whole = len(payload) // size
    length = where.end + min(size, len(payload))
    pitch = -(-length // _ROW_MULTIPLE) * _ROW_MULTIPLE
    if count * pitch > len(scratch):
        return DropReason.BAD_PACKET
    rows = scratch[: count * pitch].reshape(count, pitch)
    rows[:, length:] = 0
    rows[:, : where.end] = np.frombuffer(packet[: where.end], np.uint8)
    if whole:
        rows[:whole, where.end : length] = payload[: whole * size].reshape(whole, size)
    last_length = length
    if whole < count:
        rest = len(payload) - whole * size
        last_length = where.end + rest
        rows[whole, where.end : last_length] = payload[whole * size :]
        rows[whole, last_length:] = 0
    _set_fields(rows, where, size, length, last_length)
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


@cache
def _layout(version: int, protocol: int, l4: int, pitch: int) -> np.dtype[np.void]:
    """Return the fields of a row that differ between segments, big-endian, at their offsets."""
    fields = [("identification", ">u2", 4), ("header_checksum", ">u2", 10)] if version == 4 else []
    fields.append(("length", ">u2", 2 if version == 4 else 4))
    if protocol == TCP:
        fields += [("sequence", ">u4", l4 + 4), ("flags", "u1", l4 + 13)]
        fields.append(("checksum", ">u2", l4 + 16))
    else:
        fields += [("udp_length", ">u2", l4 + 4), ("checksum", ">u2", l4 + 6)]
    names, formats, offsets = zip(*fields, strict=True)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": pitch})


def _set_fields(rows: Rows, where: _Headers, size: int, length: int, last_length: int) -> None:
    """Set every field of the table above, and the checksums."""
    version, protocol, l4, _ = where
    count, pitch = rows.shape
    fields = rows.reshape(-1).view(_layout(version, protocol, l4, pitch))
    lengths = np.full(count, length, np.uint32)
    lengths[-1] = last_length
    if version == 4:
        numbers = np.arange(count, dtype=np.uint32) + np.uint32(fields["identification"][0])
        for name in ("length", "identification", "header_checksum"):
            fields[name][0] = 0
        # Only length and identification differ: the rest is summed once.
        shared = np.uint32(sum_words(rows[0, :l4].data))
        fields["length"] = lengths
        fields["identification"] = numbers & np.uint32(0xFFFF)
        total = lengths + (numbers & np.uint32(0xFFFF)) + shared
        fields["header_checksum"] = fold_rows(total) ^ np.uint32(0xFFFF)
        addresses = bytes(rows[0, 12:20])
    else:
        fields["length"] = lengths - np.uint32(40)
        addresses = bytes(rows[0, 8:40])
    l4_lengths = lengths - np.uint32(l4)
    if protocol == TCP:
        fields["sequence"] = np.arange(count, dtype=np.uint32) * np.uint32(size) + np.uint32(
            fields["sequence"][0]
        )
        fields["flags"][:-1] &= 0xFF ^ _FIN_PSH
        fields["flags"][1:] &= 0xFF ^ _CWR
    else:
        fields["udp_length"] = l4_lengths
    fields["checksum"] = 0
    pseudo = np.uint32(sum_words(addresses) + protocol)
    checksums = fold_rows(sum_rows(rows[:, l4:]) + l4_lengths + pseudo) ^ np.uint32(0xFFFF)
    if protocol == UDP:
        checksums[checksums == 0] = 0xFFFF
    fields["checksum"] = checksums
