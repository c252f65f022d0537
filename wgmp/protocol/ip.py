"""What must be known of an inner packet: its version, its addresses and its true length.

RFC 791 (IPv4) and RFC 8200 (IPv6). Nothing raises: what is no packet is BAD_PACKET.
"""

from __future__ import annotations

from typing import Final

from wgmp.protocol.crypto import Bytes
from wgmp.protocol.outcome import DropReason

IPV4_HEADER: Final = 20
IPV6_HEADER: Final = 40


def version(packet: Bytes) -> int:
    """Return 4 or 6 when the packet has a whole header of that version, else 0."""
    length = len(packet)
    if length < IPV4_HEADER:
        return 0
    nibble = packet[0] >> 4
    if nibble == 4:
        return 4
    return 6 if nibble == 6 and length >= IPV6_HEADER else 0


def source(packet: Bytes) -> bytes | DropReason:
    """Return the packed source address, 4 or 16 bytes, or BAD_PACKET."""
    match version(packet):
        case 4:
            return bytes(packet[12:16])
        case 6:
            return bytes(packet[8:24])
    return DropReason.BAD_PACKET


def destination(packet: Bytes) -> bytes | DropReason:
    """Return the packed destination address, 4 or 16 bytes, or BAD_PACKET."""
    match version(packet):
        case 4:
            return bytes(packet[16:20])
        case 6:
            return bytes(packet[24:40])
    return DropReason.BAD_PACKET


def true_length(padded: Bytes) -> int | None:
    """Return a packet's length without its padding; None when more is promised than came."""
    match version(padded):
        case 4:
            length = int.from_bytes(padded[2:4], "big")
            least = IPV4_HEADER
        case 6:
            length = IPV6_HEADER + int.from_bytes(padded[4:6], "big")
            least = IPV6_HEADER
        case _:
            return None
    return length if least <= length <= len(padded) else None


def trim(padded: bytes) -> bytes | DropReason:
    """Return the packet without its padding, or BAD_PACKET."""
    length = true_length(padded)
    return DropReason.BAD_PACKET if length is None else padded[:length]
