"""ICMP and ICMPv6 errors: what the TUN side is told about a packet that cannot go on.

| error | IPv4 (RFC 792, 1191) | IPv6 (RFC 4443) |
|---|---|---|
| no peer, or no endpoint | 3, 1: host unreachable | 1, 3: address unreachable |
| longer than the MTU | 3, 4: fragmentation needed and DF set | 2, 0: packet too big |

The numbers are type and code. A packet too long for IPv4 that does not forbid fragmentation is
only dropped: its sender cuts the next one to size by itself. The codes for the first are the
kernel driver's (device.c, wg_xmit).

An error's source is the destination of the packet it is about. The host's own address on the
interface, which the kernel driver uses, cannot arrive from outside: the host drops it as
martian. The destination's route led into the TUN, so an answer from it passes the reverse path
filter too, and what the operator sees names the address that cannot be reached.

No error answers an error, a fragment but the first, a packet to or from more than one host
(RFC 1122 section 3.2.2, RFC 4443 section 2.4 e), or what is no packet at all.
"""

from __future__ import annotations

import struct
from typing import Final

from wgmp.protocol import ip
from wgmp.protocol.crypto import Bytes

# As much of the packet is quoted as fits (RFC 1812 4.3.2.3; RFC 4443 2.4 c).
IPV4_ERROR_BYTES: Final = 576
IPV6_ERROR_BYTES: Final = 1280

# Errors per second, and at once (kernel icmp.c: icmp_msgs_per_sec, icmp_msgs_burst).
ERRORS_PER_SECOND: Final = 1000
ERRORS_BURST: Final = 50

_ICMP: Final = 1
_ICMPV6: Final = 58
_HOP_LIMIT: Final = 64
# Precedence "internetwork control", as RFC 1812 4.3.2.5 recommends for errors.
_PRECEDENCE: Final = 0xC0
_DF: Final = 0x4000
_FRAGMENT_OFFSET: Final = 0x1FFF

_UNREACHABLE4: Final = (3, 1)
_FRAGMENTATION_NEEDED: Final = (3, 4)
_UNREACHABLE6: Final = (1, 3)
_PACKET_TOO_BIG: Final = (2, 0)

# Messages that are no errors, and may be answered by one (IANA's ICMP type numbers).
_QUERIES: Final = frozenset({0, 8, 9, 10, 13, 14, 15, 16, 17, 18, 42, 43})
_FIRST_QUERY6: Final = 128
_REDIRECT6: Final = 137

# IPv6 extension headers (RFC 8200 section 4; RFC 4302): fragment and authentication have
# lengths of their own.
_FRAGMENT: Final = 44
_AUTHENTICATION: Final = 51
_EXTENSIONS: Final = frozenset({0, 43, 60, _FRAGMENT, _AUTHENTICATION})
_MAX_EXTENSIONS: Final = 8

_IPV4 = struct.Struct(">BBHHHBBH4s4s")
_IPV6 = struct.Struct(">IHBB16s16s")
_ERROR = struct.Struct(">BBHI")  # type, code, checksum, next-hop MTU or unused
_PSEUDO_HEADER6 = struct.Struct(">16s16sII")  # RFC 8200 section 8.1


def unreachable(packet: Bytes) -> bytes | None:
    """Return the error packet for one with nowhere to go, or None when none is owed."""
    match ip.version(packet):
        case 4 if _answerable4(packet):
            return _error4(packet, _UNREACHABLE4, 0)
        case 6 if _answerable6(packet):
            return _error6(packet, _UNREACHABLE6, 0)
    return None


def too_big(packet: Bytes, mtu: int) -> bytes | None:
    """Return the error packet for one longer than `mtu`, or None when none is owed."""
    match ip.version(packet):
        case 4 if _answerable4(packet) and int.from_bytes(packet[6:8], "big") & _DF:
            # The MTU has 16 bits here (RFC 1191 section 4).
            return _error4(packet, _FRAGMENTATION_NEEDED, min(mtu, 0xFFFF))
        case 6 if _answerable6(packet):
            return _error6(packet, _PACKET_TOO_BIG, mtu)
    return None


class ErrorLimiter:
    """A token bucket that bounds the errors made. `now` is monotonic seconds."""

    __slots__ = ("_burst", "_filled_at", "_rate", "_tokens")

    def __init__(self, rate: float = ERRORS_PER_SECOND, burst: int = ERRORS_BURST) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._filled_at = 0.0

    def unreachable(self, packet: Bytes, now: float) -> bytes | None:
        """Return `unreachable(packet)`, or None when there were too many errors just now."""
        return self._take(unreachable(packet)) if self._ready(now) else None

    def too_big(self, packet: Bytes, mtu: int, now: float) -> bytes | None:
        """Return `too_big(packet, mtu)`, or None when there were too many errors just now."""
        return self._take(too_big(packet, mtu)) if self._ready(now) else None

    def _ready(self, now: float) -> bool:
        grown = self._tokens + max(0.0, now - self._filled_at) * self._rate
        self._tokens = min(self._burst, grown)
        self._filled_at = now
        return self._tokens >= 1

    def _take(self, error: bytes | None) -> bytes | None:
        if error is not None:
            self._tokens -= 1
        return error


def checksum(content: bytes) -> int:
    """Return the Internet checksum (RFC 1071) of `content`, which is not all zeros."""
    if len(content) % 2:
        content += b"\0"
    # Modulo 0xFFFF the big-endian words of a number add up by themselves.
    return 0xFFFF - (int.from_bytes(content, "big") % 0xFFFF or 0xFFFF)


def _error4(packet: Bytes, kind: tuple[int, int], mtu: int) -> bytes:
    quoted = bytes(packet[: IPV4_ERROR_BYTES - _IPV4.size - _ERROR.size])
    message = _ERROR.pack(*kind, 0, mtu) + quoted
    message = _ERROR.pack(*kind, checksum(message), mtu) + quoted
    source, destination = bytes(packet[16:20]), bytes(packet[12:16])
    length = _IPV4.size + len(message)
    fields = (0x45, _PRECEDENCE, length, 0, 0, _HOP_LIMIT, _ICMP)
    header = _IPV4.pack(*fields, 0, source, destination)
    return _IPV4.pack(*fields, checksum(header), source, destination) + message


def _error6(packet: Bytes, kind: tuple[int, int], mtu: int) -> bytes:
    quoted = bytes(packet[: IPV6_ERROR_BYTES - _IPV6.size - _ERROR.size])
    source, destination = bytes(packet[24:40]), bytes(packet[8:24])
    length = _ERROR.size + len(quoted)
    pseudo_header = _PSEUDO_HEADER6.pack(source, destination, length, _ICMPV6)
    total = checksum(pseudo_header + _ERROR.pack(*kind, 0, mtu) + quoted)
    header = _IPV6.pack(6 << 28, length, _ICMPV6, _HOP_LIMIT, source, destination)
    return header + _ERROR.pack(*kind, total, mtu) + quoted


def _answerable4(packet: Bytes) -> bool:
    """Whether RFC 1122 section 3.2.2 lets this IPv4 packet be answered by an error."""
    # This network, loopback, multicast, reserved and broadcast name no single host.
    if any(first in (0, 127) or first >= 224 for first in (packet[12], packet[16])):
        return False
    if int.from_bytes(packet[6:8], "big") & _FRAGMENT_OFFSET:
        return False
    header = (packet[0] & 0x0F) * 4
    if header < ip.IPV4_HEADER or header > len(packet):
        return False
    return packet[9] != _ICMP or (header < len(packet) and packet[header] in _QUERIES)


def _answerable6(packet: Bytes) -> bool:
    """Whether RFC 4443 section 2.4 (e) lets this IPv6 packet be answered by an error."""
    source = bytes(packet[8:24])
    if source[0] == 0xFF or packet[24] == 0xFF or int.from_bytes(source, "big") <= 1:
        return False  # multicast, unspecified or loopback
    found = _upper_layer(packet)
    if found is None:
        return False
    protocol, at = found
    if protocol != _ICMPV6:
        return True
    return at < len(packet) and packet[at] >= _FIRST_QUERY6 and packet[at] != _REDIRECT6


def _upper_layer(packet: Bytes) -> tuple[int, int] | None:
    """Return the protocol behind the extension headers and where it begins.

    None in a fragment but the first, and where the headers do not end within the packet.
    """
    protocol, at = packet[6], ip.IPV6_HEADER
    for _ in range(_MAX_EXTENSIONS):
        if protocol not in _EXTENSIONS:
            return protocol, at
        if at + 8 > len(packet):
            return None
        following = packet[at]
        if protocol == _FRAGMENT:
            if int.from_bytes(packet[at + 2 : at + 4], "big") >> 3:
                return None
            at += 8
        elif protocol == _AUTHENTICATION:
            at += (packet[at + 1] + 2) * 4
        else:
            at += (packet[at + 1] + 1) * 8
        protocol = following
    return None
