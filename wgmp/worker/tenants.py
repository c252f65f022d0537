"""A worker's peers, of which those that nobody has needed yet are asleep.

A gateway may know ten thousand peers and talk to a hundred. A peer that is asleep is nothing but
the order that made it; whatever concerns it wakes it, and then it is a `Peer` with its timers,
sessions and handshakes, for as long as the worker runs.
"""

from __future__ import annotations

from collections.abc import Callable, ValuesView

import msgspec

from wgmp.orders import SetPeer
from wgmp.peertable import PeerRow, PeerTable
from wgmp.protocol.constants import ZERO_KEY
from wgmp.protocol.outcome import Endpoint
from wgmp.protocol.peer import Peer


class Tenant:
    """A peer with its place in the worker's schedule, and what its row in `table` says of it."""

    __slots__ = ("_table", "endpoint", "peer", "scheduled", "staged", "timestamp")

    def __init__(self, peer: Peer, table: PeerTable) -> None:
        self.peer = peer
        self._table = table
        self.scheduled: float | None = None
        self.staged = 0  # of its packets, as many are counted as waiting
        self.endpoint: Endpoint | None = None
        self.timestamp = peer.greatest_timestamp

    @property
    def row(self) -> PeerRow:
        """The peer's row in the shared table."""
        return self._table.row(self.peer.peer)

    def save(self) -> Endpoint | None:
        """Copy to the row what changed of what outlives the worker.

        Returns where the peer was before, if it has another address or port now.
        """
        before = None
        if self.peer.endpoint is not self.endpoint:
            before, self.endpoint = self.endpoint, self.peer.endpoint
            self.row.set_endpoint(self.endpoint)
            if before is not None and before.is_same_place(self.endpoint):
                before = None
        if self.peer.greatest_timestamp is not self.timestamp:
            self.timestamp = self.peer.greatest_timestamp
            self.row.set_greatest_timestamp(self.timestamp)
        return before


class Tenants:
    """The peers by id. `make(order, endpoint, greatest_timestamp)` makes a `Peer` of an order."""

    def __init__(
        self, table: PeerTable, make: Callable[[SetPeer, Endpoint | None, bytes], Peer]
    ) -> None:
        self._table = table
        self._make = make
        self._awake: dict[int, Tenant] = {}
        self._asleep: dict[int, SetPeer] = {}

    def __len__(self) -> int:
        """Return the number of peers, asleep or not."""
        return len(self._awake) + len(self._asleep)

    def awake(self) -> ValuesView[Tenant]:
        """Return those that are awake. The others learn what has changed when they wake."""
        return self._awake.values()

    def get(self, peer: int) -> Tenant | None:
        """Return the peer, woken if need be; None when there is no such peer."""
        tenant = self._awake.get(peer)
        if tenant is None and peer in self._asleep:
            order = self._asleep.pop(peer)
            tenant = self._wake(order, endpoint_of(order))
        return tenant

    def take_in(self, order: SetPeer) -> Tenant | None:
        """Add the order's peer, or change it as long as it sleeps.

        Returns None when that was all there is to do; the tenant when it is awake, because it
        has been before, because a predecessor of this worker knew it, or for its keepalive.
        """
        peer = order.peer
        if peer in self._awake:
            return self._awake[peer]
        asleep = self._asleep.pop(peer, None)
        if asleep is None:
            row = self._table.row(peer)
            known = row.figures() if row.adopt() else None
            if known is not None and (known.endpoint or known.last_handshake_ns):
                return self._wake(order, known.endpoint or endpoint_of(order))
        elif order.endpoint is None:
            order = msgspec.structs.replace(order, endpoint=asleep.endpoint)
        if order.keepalive:
            return self._wake(order, endpoint_of(order))
        if order.preshared_key == ZERO_KEY:
            # Most have none: one object is enough for all of those.
            order = msgspec.structs.replace(order, preshared_key=ZERO_KEY)
        self._asleep[peer] = order
        return None

    def remove(self, peer: int) -> Tenant | None:
        """Forget the peer; return it if it was awake."""
        if self._asleep.pop(peer, None) is not None:
            self._table.row(peer).abandon()
            return None
        return self._awake.pop(peer, None)

    def _wake(self, order: SetPeer, endpoint: Endpoint | None) -> Tenant:
        timestamp = self._table.row(order.peer).greatest_timestamp()
        tenant = Tenant(self._make(order, endpoint, timestamp), self._table)
        self._awake[order.peer] = tenant
        return tenant


def endpoint_of(order: SetPeer) -> Endpoint | None:
    """Return the endpoint that the order gives, if it gives one."""
    endpoint = order.endpoint
    if endpoint is None:
        return None
    return Endpoint(endpoint.address, endpoint.port, endpoint.scope_id)
