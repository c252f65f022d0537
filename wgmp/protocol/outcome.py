"""What the protocol core answers, as one closed type, and every reason for a drop.

`Outcome` is matched with `match` and `assert_never`; "nothing" is an empty list of outcomes.
`DropReason` is the project's only list of reasons: the core, the roles and the rings count
by it, `wgmp stats` shows its names, and its values are positions in shared counter blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, unique
from typing import NamedTuple


@unique
class DropReason(IntEnum):
    """Why a datagram or a packet went no further. The value indexes counter blocks.

    None is 0, so that a reason is always true.
    """

    # The datagram's shape (udp_reader)
    BAD_LENGTH = 1
    BAD_TYPE = 2
    UNKNOWN_INDEX = 4
    # Handshake messages (admission, worker)
    NO_IDENTITY = 5
    BAD_MAC1 = 6
    COOKIE_REQUIRED = 7
    RATE_LIMITED = 8
    BAD_EPHEMERAL = 9
    BAD_STATIC = 10
    UNKNOWN_PEER = 11
    BAD_TIMESTAMP = 12
    REPLAYED_INITIATION = 13
    INITIATION_FLOOD = 14
    NO_HANDSHAKE = 15
    BAD_RESPONSE = 16
    BAD_COOKIE_REPLY = 17
    # Transport data (worker)
    KEYPAIR_EXPIRED = 18
    COUNTER_EXHAUSTED = 19
    BAD_TAG = 20
    REPLAYED = 21
    BAD_PACKET = 22
    SOURCE_NOT_ALLOWED = 23
    # Packets from the TUN (tun_reader, worker)
    NO_ROUTE = 24
    NO_ENDPOINT = 25
    STAGED_OVERFLOW = 26
    HANDSHAKE_TIMEOUT = 27
    PEER_REMOVED = 28
    # Rings and descriptors (any role)
    RING_FULL = 29
    RING_CORRUPT = 30
    SEND_FAILED = 31
    WRITE_FAILED = 32
    # The tunnel's interface and its packets (tun_reader, worker)
    PACKET_TOO_BIG = 33
    LINK_DOWN = 34
    CONGESTION_NOT_ECT = 35  # outer CE over an inner packet that is not ECN-capable (RFC 6040)
    WORKER_DIED = 36  # it was staged by a worker that has been replaced


class Endpoint(NamedTuple):
    """A peer's outer address, and the local address its datagrams arrive at.

    `address`: packed, 4 bytes (IPv4) or 16 (IPv6). `port`: 1..65535. `scope_id`: the IPv6
    zone's interface index, else 0. `source`: the packed local address to send from, of the
    same family, b"" when the kernel may choose; `source_ifindex`: its interface, else 0.
    """

    address: bytes
    port: int
    scope_id: int = 0
    source: bytes = b""
    source_ifindex: int = 0

    def is_same_place(self, other: Endpoint | None) -> bool:
        """Return whether the peer is at the same address and port there, whatever ours is."""
        return other is not None and self[:3] == other[:3]

    def without_source(self) -> Endpoint:
        """Forget the local side, so that the kernel's routing chooses it anew."""
        return self._replace(source=b"", source_ifindex=0)


@dataclass(frozen=True, slots=True)
class SendDatagram:
    """Send `datagram` to `endpoint`. `handshake`: it is not transport data (DSCP 0x88)."""

    datagram: bytes
    endpoint: Endpoint
    handshake: bool = False


@dataclass(frozen=True, slots=True)
class WritePacket:
    """Write the inner `packet` (a whole IP packet, trimmed of padding) to the TUN."""

    packet: bytes


@dataclass(frozen=True, slots=True)
class Drop:
    """Drop `count` datagrams or packets, for one `reason`."""

    reason: DropReason
    count: int = 1


@dataclass(frozen=True, slots=True)
class HandshakeCompleted:
    """A session with the peer now works in both directions. `initiator`: we began it."""

    initiator: bool


@dataclass(frozen=True, slots=True)
class HandshakeGivenUp:
    """Nobody answered our initiations; there will be no more of them until a packet asks."""


@dataclass(frozen=True, slots=True)
class SessionExpired:
    """The last session is so old that its keys were forgotten, and no other took its place."""


Outcome = SendDatagram | WritePacket | Drop | HandshakeCompleted | HandshakeGivenUp | SessionExpired
