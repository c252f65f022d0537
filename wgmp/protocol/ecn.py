"""Explicit congestion notification through the tunnel: RFC 6040, normal mode.

Going in, the outer datagram's field is a copy of the inner packet's (section 4.1). Coming out,
the two are combined (section 4.2, figure 4):

| inner \\ outer | Not-ECT | ECT(0) | ECT(1) | CE |
|---|---|---|---|---|
| Not-ECT | Not-ECT | Not-ECT | Not-ECT | drop |
| ECT(0) | ECT(0) | ECT(0) | ECT(1) | CE |
| ECT(1) | ECT(1) | ECT(1) | ECT(1) | CE |
| CE | CE | CE | CE | CE |

So only an outer ECT(1) or CE can change anything: `MARKING`. The field is the low two bits of
the traffic class (RFC 3168 section 5). DSCP is not copied either way: it would show.
"""

from __future__ import annotations

from typing import Final

from wgmp.protocol.crypto import Bytes

NOT_ECT: Final = 0
ECT_1: Final = 1
ECT_0: Final = 2
CE: Final = 3
MASK: Final = 3

# Outer fields for which inner packets must be looked at, one by one.
MARKING: Final = frozenset({ECT_1, CE})

_IPV6_SHIFT: Final = 4  # the field's place in the second byte of an IPv6 header


def of_packet(packet: Bytes) -> int:
    """Return the field of an IP packet with a whole header."""
    second = packet[1]
    return second & MASK if packet[0] >> 4 == 4 else second >> _IPV6_SHIFT & MASK


def decapsulate(packet: bytes, outer: int) -> bytes | None:
    """Return the IP packet with the `outer` field combined into its own; None: drop it.

    `packet`: with a whole header. The checksum of an IPv4 header is kept right.
    """
    inner = of_packet(packet)
    if outer == CE and inner == NOT_ECT:
        return None
    if outer == CE or (outer == ECT_1 and inner == ECT_0):
        return _with(packet, inner, outer)
    return packet


def _with(packet: bytes, before: int, after: int) -> bytes:
    changed = before ^ after
    if packet[0] >> 4 == 6:
        return packet[:1] + bytes([packet[1] ^ changed << _IPV6_SHIFT]) + packet[2:]
    # RFC 1624, equation 3: HC' = ~(~HC + ~m + m'). Modulo 0xFFFF, ~m is -m.
    checksum = int.from_bytes(packet[10:12], "big")
    total = (~checksum & 0xFFFF) + after - before
    corrected = 0xFFFF - (total % 0xFFFF or 0xFFFF)
    second = bytes([packet[1] ^ changed])
    return packet[:1] + second + packet[2:10] + corrected.to_bytes(2, "big") + packet[12:]
