"""Orders: the typed messages by which the supervisor changes what the roles do.

One message of a line (system/line.py) carries a list of orders (msgspec, msgpack). Every
role gets every order and ignores those that are not its business. Orders are idempotent:
a role's successor is sent the whole state again (`Device.snapshot`).

A peer is named by its *peer id*: `generation << ROW_BITS | row`. The row is its place in the
shared peer table and is used again after the peer is gone; the id never is, so that a record
still in a ring cannot reach the row's next tenant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from wgmp.events import AnyEvent
from wgmp.logs import LogLevel
from wgmp.protocol.outcome import Endpoint

ROW_BITS = 20
ROW_MASK = (1 << ROW_BITS) - 1


def row_of(peer: int) -> int:
    """Return the peer table's row of a peer id."""
    return peer & ROW_MASK


class EndpointOrder(msgspec.Struct, frozen=True, array_like=True):
    """An endpoint as configured: packed `address` of 4 or 16 bytes, `port`, IPv6 `scope_id`.

    `serial`: how often the peer's has been set. The worker that obeys notes it in the peer's row.
    So its successor, which is told again, knows whether the peer may have roamed since, or whether
    the order was lost with the one that died.
    """

    address: bytes
    port: int
    scope_id: int = 0
    serial: int = 0

    def endpoint(self) -> Endpoint:
        """Return the endpoint, which any local address may be used for."""
        return Endpoint(self.address, self.port, self.scope_id)


class SetPrivateKey(msgspec.Struct, frozen=True, tag=True):
    """The device's private key: 32 bytes, or b"" for none."""

    private_key: bytes

    def __repr__(self) -> str:
        """Say what it is without the key."""
        return "SetPrivateKey(...)"


class SetPeer(msgspec.Struct, frozen=True, tag=True):
    """Add a peer, or change one: the whole of its configuration but for its allowed IPs.

    `endpoint` None keeps the one the peer has. `keepalive`: seconds, 0 is off.
    `preshared_key`: 32 bytes, zeros for none.
    """

    peer: int
    public_key: bytes
    preshared_key: bytes
    keepalive: int
    endpoint: EndpointOrder | None = None

    def __repr__(self) -> str:
        """Say which peer without its keys."""
        return f"SetPeer(peer={self.peer}, keepalive={self.keepalive}, endpoint={self.endpoint})"


class RemovePeer(msgspec.Struct, frozen=True, tag=True):
    """Forget a peer, its sessions and its allowed IPs."""

    peer: int


class AddAllowedIP(msgspec.Struct, frozen=True, tag=True):
    """Route a prefix to a peer, taking it from the peer that has it now.

    `network`: packed, 4 or 16 bytes, host bits zero; `length`: prefix length in bits.
    """

    network: bytes
    length: int
    peer: int


class RemoveAllowedIP(msgspec.Struct, frozen=True, tag=True):
    """Take a prefix from a peer; ignored when another peer has it by now."""

    network: bytes
    length: int
    peer: int


class SetSockets(msgspec.Struct, frozen=True, tag=True):
    """New UDP sockets: their descriptors come with the datagram, IPv4 first, then IPv6.

    `families`: which there are, of 4 and 6, in that order.
    """

    families: tuple[int, ...]


class SetLink(msgspec.Struct, frozen=True, tag=True):
    """The TUN interface's state: `up`, and `mtu` in bytes."""

    up: bool
    mtu: int


class ForgetSources(msgspec.Struct, frozen=True, tag=True):
    """Routes, port or fwmark changed: forget the local addresses to send from."""


class Begin(msgspec.Struct, frozen=True, tag=True):
    """The whole configuration has been sent: begin to work.

    Until then the predecessor may still be at work, so nothing that is shared is written.
    `orderly`: it has ended in order, and what it left is exact; otherwise it may have been
    killed at any instruction. `deaths`: how many predecessors in a row died young. What they
    left may be why.
    """

    orderly: bool = False
    deaths: int = 0


Order = (
    SetPrivateKey
    | SetPeer
    | RemovePeer
    | AddAllowedIP
    | RemoveAllowedIP
    | SetSockets
    | SetLink
    | ForgetSources
    | Begin
)


class SetLogLevel(msgspec.Struct, frozen=True, tag=True):
    """How much the process is to log. The loop obeys it; roles hear nothing of it."""

    level: LogLevel


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Read nothing more from TUN and network, and work off what waits in the rings.

    The loop obeys it, and reports Drained; the end of the control socket follows.
    """


LoopOrder = SetLogLevel | Drain


class Ready(msgspec.Struct, frozen=True, tag=True):
    """A role's process has attached everything and starts its loop."""


class Drained(msgspec.Struct, frozen=True, tag=True):
    """The process reads nothing more. What it has read is in its rings."""


class Moved(msgspec.Struct, frozen=True, tag=True):
    """The process has new UDP sockets, and has closed those it had before."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """A role's process could not start, or met a broken invariant: one line why."""

    message: str


class Happened(msgspec.Struct, frozen=True, tag=True):
    """Something happened in the role's process that others may want to hear of."""

    event: AnyEvent


Report = Ready | Drained | Moved | Failed | Happened

_ORDERS_IN_MESSAGE = 256

_encode = msgspec.msgpack.Encoder().encode
_decode_orders = msgspec.msgpack.Decoder(list[Order | LoopOrder]).decode
_decode_report: Callable[[bytes], Report] = msgspec.msgpack.Decoder(Report).decode


def encode_orders(orders: Sequence[Order | LoopOrder]) -> list[bytes]:
    """Return the messages that carry the orders, each within `line.MAX_MESSAGE_BYTES`."""
    starts = range(0, len(orders), _ORDERS_IN_MESSAGE)
    return [_encode(orders[start : start + _ORDERS_IN_MESSAGE]) for start in starts]


def decode_orders(message: bytes) -> list[Order | LoopOrder]:
    """Return a message's orders; raises msgspec.DecodeError, which ends the role."""
    return _decode_orders(message)


def encode_report(report: Report) -> bytes:
    """Return the message that carries a report to the supervisor."""
    return _encode(report)


def decode_report(message: bytes) -> Report:
    """Return a role's report; raises msgspec.DecodeError."""
    return _decode_report(message)
