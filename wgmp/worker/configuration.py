"""What a worker was told: the device's key, the link, its peers and everybody's allowed IPs.

Orders change only what they name; sessions of peers that an order does not touch go on.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from typing import assert_never

from wgmp.counters import Counter
from wgmp.orders import (
    AddAllowedIP,
    ForgetSources,
    Order,
    RemoveAllowedIP,
    RemovePeer,
    SetLink,
    SetPeer,
    SetPrivateKey,
    SetSockets,
    row_of,
)
from wgmp.peertable import PeerTable
from wgmp.protocol import tai64n
from wgmp.protocol.allowedips import AllowedIPs
from wgmp.protocol.noise import Identity
from wgmp.protocol.outcome import Endpoint, Outcome
from wgmp.protocol.peer import Peer
from wgmp.tun import DEFAULT_MTU
from wgmp.worker.actions import Actions
from wgmp.worker.indices import Indices
from wgmp.worker.tenants import Tenant, Tenants, endpoint_of

_CACHE_ENTRIES = 65_536


class Sources:
    """Which peer an inner source address belongs to, with the answers remembered."""

    __slots__ = ("_allowed_ips", "_cache")

    def __init__(self) -> None:
        self._allowed_ips = AllowedIPs()
        self._cache: dict[bytes, int | None] = {}

    def change(self) -> AllowedIPs:
        """Return the table to change; what was remembered is forgotten."""
        self._cache.clear()
        return self._allowed_ips

    def owner(self, source: bytes) -> int | None:
        """Return the peer that a packed address routes to, or None."""
        try:
            return self._cache[source]
        except KeyError:
            if len(self._cache) >= _CACHE_ENTRIES:
                self._cache.clear()
            owner = self._cache[source] = self._allowed_ips.lookup(source)
            return owner


class Configuration:
    """The worker `number`'s part of the device.

    `up`, `mtu`: the link's; `revivals`: peers that had a session with this worker's
    predecessor. `catch_up`: takes the orders that are on their way.
    """

    def __init__(
        self,
        number: int,
        table: PeerTable,
        indices: Indices,
        actions: Actions,
        catch_up: Callable[[], None],
    ) -> None:
        self.up = True  # the supervisor's first order says whether it is
        self.mtu = DEFAULT_MTU
        self.sources = Sources()
        self.tenants = Tenants(table, self._make_peer)
        self.revivals: deque[int] = deque()
        self._number = number
        self._table = table
        self._indices = indices
        self._actions = actions
        self._catch_up = catch_up
        self._identity: Identity | None = None

    def find(self, peer: int) -> Tenant | None:
        """Return the peer a record is for, which may have been added this very moment."""
        tenant = self.tenants.get(peer)
        if tenant is None:
            self._catch_up()
            tenant = self.tenants.get(peer)
        return tenant

    def obey(self, order: Order, now: float) -> None:
        """Change peers, routes or the device's key, without touching what did not change."""
        match order:
            case SetPrivateKey(private_key):
                self._identity = Identity(private_key) if private_key else None
                for tenant in self.tenants.awake():
                    self._actions.act(tenant, tenant.peer.set_identity(self._identity, now))
            case SetPeer():
                self._set_peer(order, now)
            case RemovePeer(peer):
                self.sources.change().remove_owner(peer)
                self._remove_peer(peer)
            case AddAllowedIP(network, length, peer):
                self.sources.change().insert(network, length, peer)
            case RemoveAllowedIP(network, length, peer):
                self.sources.change().remove(network, length, peer)
            case SetLink(up, mtu):
                self.mtu = mtu
                for tenant in self.tenants.awake():
                    tenant.peer.mtu = mtu
                if up != self.up:
                    self.up = up
                    self._start_or_stop(now)
            case ForgetSources() | SetSockets():
                for tenant in self.tenants.awake():
                    tenant.peer.forget_source()
                    tenant.save()
            case _:
                assert_never(order)

    def _start_or_stop(self, now: float) -> None:
        """The interface went up or down, and all peers with it."""
        for tenant in self.tenants.awake():
            peer = tenant.peer
            self._actions.act(tenant, peer.start(now) if self.up else peer.stop())

    def _set_peer(self, order: SetPeer, now: float) -> None:
        if self._table.owner(row_of(order.peer)) != self._number:
            return
        known = len(self.tenants)
        tenant = self.tenants.take_in(order)
        self._actions.counters.store(Counter.PEERS, len(self.tenants))
        if tenant is None:
            return
        peer, endpoint = tenant.peer, endpoint_of(order)
        outcomes: list[Outcome] = []
        if len(self.tenants) == known:
            outcomes += peer.set_preshared_key(order.preshared_key)
            if endpoint is not None:
                outcomes += peer.set_endpoint(endpoint)
                tenant.save()  # now, for a peer that was moved has not roamed
        elif tenant.row.figures().last_handshake_ns and peer.endpoint is not None:
            self.revivals.append(order.peer)
        outcomes += peer.set_keepalive(order.keepalive, now)
        self._actions.act(tenant, outcomes)

    def _make_peer(
        self, order: SetPeer, endpoint: Endpoint | None, greatest_timestamp: bytes
    ) -> Peer:
        peer = Peer(
            peer=order.peer,
            identity=self._identity,
            public_key=order.public_key,
            preshared_key=order.preshared_key,
            keepalive=0,
            endpoint=endpoint,
            indices=self._indices,
            randomness=os.urandom,
            tai64n=_tai64n,
            greatest_timestamp=greatest_timestamp,
        )
        peer.mtu = self.mtu
        peer.running = self.up
        return peer

    def _remove_peer(self, peer: int) -> None:
        tenant = self.tenants.remove(peer)
        self._actions.counters.store(Counter.PEERS, len(self.tenants))
        if tenant is not None:
            self._actions.act(tenant, tenant.peer.close())
            tenant.row.abandon()


def _tai64n() -> bytes:
    return tai64n.label(time.time_ns())
