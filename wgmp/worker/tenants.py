"""A worker's peers, of which those that nobody has needed yet are asleep.

A gateway may know ten thousand peers and talk to a hundred. A peer that is asleep is nothing but
the order that made it; whatever concerns it wakes it, and then it is a `Peer` with its timers,
sessions and handshakes, for as long as the worker runs.
"""

from __future__ import annotations

from collections.abc import Callable, ValuesView

import msgspec

from wgmp.orders import EndpointOrder, SetPeer
from wgmp.peertable import PeerTable
from wgmp.protocol.constants import ZERO_KEY
from wgmp.protocol.outcome import Endpoint, Outcome
from wgmp.protocol.peer import Peer
from wgmp.record import pack_endpoint, unpack_endpoint


class Tenant:
    """A peer with its place in the worker's schedule, and what its `row` in `table` says of it."""

    __slots__ = (
        "_again_at",
        "_attempts",
        "_packed",
        "_packed_of",
        "_timestamp",
        "endpoint",
        "peer",
        "row",
        "scheduled",
        "serial",
        "staged",
    )

    def __init__(self, peer: Peer, table: PeerTable) -> None:
        self.peer = peer
        self.row = table.row(peer.peer)
        self.scheduled: float | None = None
        self.staged = 0  # of its packets, as many are counted as waiting
        self.endpoint: Endpoint | None = None
        self.serial = self.row.endpoint_serial()
        self._timestamp = peer.greatest_timestamp
        self._again_at = peer.initiate_again_at
        self._attempts = peer.handshake_attempts
        self._packed = b""
        self._packed_of: Endpoint | None = None

    def packed_endpoint(self) -> bytes:
        """Return the peer's endpoint as records have it. It has one."""
        endpoint = self.peer.endpoint
        assert endpoint is not None
        if endpoint is not self._packed_of:
            self._packed, self._packed_of = pack_endpoint(endpoint), endpoint
        return self._packed

    def unpacked_endpoint(self, packed: bytes) -> Endpoint:
        """Return what a record's endpoint is; nearly always it is the peer's."""
        if self._packed_of is None or packed != self._packed:
            endpoint = unpack_endpoint(packed)
            assert endpoint is not None
            self._packed, self._packed_of = packed, endpoint
        return self._packed_of

    def move(self, order: EndpointOrder) -> list[Outcome]:
        """Let the peer be where it is configured to be; return what follows from that."""
        outcomes = self.peer.set_endpoint(order.endpoint())
        self.serial = order.serial
        self.save()  # now, for a peer that was moved has not roamed
        return outcomes

    def save(self) -> Endpoint | None:
        """Copy to the row what changed of what outlives the worker.

        Returns where the peer was before, if it has another address or port now.
        """
        peer, before = self.peer, None
        if peer.endpoint is not self.endpoint:
            before, self.endpoint = self.endpoint, peer.endpoint
            self.row.set_endpoint(self.endpoint, self.serial)
            if before is not None and before.is_same_place(self.endpoint):
                before = None
        if peer.greatest_timestamp is not self._timestamp:
            self._timestamp = peer.greatest_timestamp
            self.row.set_greatest_timestamp(self._timestamp)
        again_at, attempts = peer.initiate_again_at, peer.handshake_attempts
        if again_at != self._again_at or attempts != self._attempts:
            self._again_at, self._attempts = again_at, attempts
            self.row.set_initiations(again_at, attempts)
        return before


class Tenants:
    """The peers by id. `make(order, endpoint, greatest_timestamp)` makes a `Peer` of an order.

    `returning`: those that a predecessor knew and nobody has woken yet, in order.
    """

    def __init__(
        self, table: PeerTable, make: Callable[[SetPeer, Endpoint | None, bytes], Peer]
    ) -> None:
        self.returning: dict[int, None] = {}
        self._table = table
        self._make = make
        self._awake: dict[int, Tenant] = {}
        self._asleep: dict[int, SetPeer] = {}

    def __len__(self) -> int:
        """Return the number of peers, asleep or not."""
        return len(self._awake) + len(self._asleep)

    def __contains__(self, peer: object) -> bool:
        """Tell whether there is such a peer, asleep or not."""
        return peer in self._awake or peer in self._asleep

    def awake(self) -> ValuesView[Tenant]:
        """Return those that are awake. The others learn what has changed when they wake."""
        return self._awake.values()

    def get(self, peer: int) -> Tenant | None:
        """Return the peer if it is awake."""
        return self._awake.get(peer)

    def wake(self, peer: int) -> tuple[Tenant, SetPeer] | None:
        """Wake the peer; return it and the order that made it. None when there is none asleep."""
        order = self._asleep.pop(peer, None)
        if order is None:
            return None
        self.returning.pop(peer, None)
        row = self._table.row(peer)
        endpoint = row.endpoint()
        if endpoint is None and order.endpoint is not None:
            endpoint = order.endpoint.endpoint()
        made = self._make(order, endpoint, row.greatest_timestamp())
        tenant = self._awake[peer] = Tenant(made, self._table)
        return tenant, order

    def take_in(self, order: SetPeer) -> Tenant | None:
        """Add the order's peer, asleep, or change it as long as it sleeps.

        Returns the peer when it is awake, and all that has to be changed is still to do.
        """
        peer = order.peer
        if peer in self._awake:
            return self._awake[peer]
        row = self._table.row(peer)
        asleep = self._asleep.get(peer)
        if asleep is None:
            known = row.figures() if row.adopt() else None
            if known is not None and (known.endpoint or known.last_handshake_ns):
                self.returning[peer] = None
        elif order.endpoint is None:
            order = msgspec.structs.replace(order, endpoint=asleep.endpoint)
        if order.endpoint is not None and order.endpoint.serial != row.endpoint_serial():
            # Where it was seen last is not where it is to be.
            row.set_endpoint(None, order.endpoint.serial)
        if order.preshared_key == ZERO_KEY:
            # Most have none: one object is enough for all of those.
            order = msgspec.structs.replace(order, preshared_key=ZERO_KEY)
        self._asleep[peer] = order
        return None

    def remove(self, peer: int) -> Tenant | None:
        """Forget the peer; return it if it was awake."""
        self.returning.pop(peer, None)
        self._asleep.pop(peer, None)
        return self._awake.pop(peer, None)
