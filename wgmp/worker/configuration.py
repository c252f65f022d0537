"""What a worker was told: the device's key, the link, its peers and everybody's allowed IPs.

Orders change only what they name; sessions of peers that an order does not touch go on. Until
`Begin` a predecessor may be at work: peers are only noted down. Then those that it knew return,
each when something concerns it, and all of them within a few turns of the loop.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import assert_never

from wgmp.counters import Counter
from wgmp.fastpath.interface import AllowedIPs
from wgmp.orders import (
    AddAllowedIP,
    Begin,
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
from wgmp.protocol.constants import DEFAULT_MTU, KEY_SIZE
from wgmp.protocol.noise import Identity
from wgmp.protocol.outcome import Endpoint, Outcome
from wgmp.protocol.peer import Peer
from wgmp.sessions import SessionMemory, forget_unknown
from wgmp.tap import Point, Tap
from wgmp.worker.actions import Actions
from wgmp.worker.indices import Indices
from wgmp.worker.tenants import Tenant, Tenants

# After so many predecessors in a row that died young, go on without the sessions they left.
_HOPELESS_DEATHS = 5


class Configuration:
    """The worker `number`'s part of the device.

    `up`, `mtu`: the link's; `allowed_ips`: everybody's. `sessions`: where sessions outlive the
    worker, None when they do not. `catch_up`: takes the orders that are on their way.
    """

    def __init__(
        self,
        number: int,
        table: PeerTable,
        sessions: SessionMemory | None,
        indices: Indices,
        actions: Actions,
        allowed_ips: AllowedIPs,
        catch_up: Callable[[], None],
        tap: Tap | None = None,
    ) -> None:
        self.up = True  # the supervisor's first order says whether it is
        self.mtu = DEFAULT_MTU
        self.allowed_ips = allowed_ips
        self._tenants = Tenants(table, self._make_peer)
        self._number = number
        self._table = table
        self._sessions = sessions
        self._indices = indices
        self._actions = actions
        self._catch_up = catch_up
        self._tap = tap
        self._identity: Identity | None = None
        # Orders about peers that wait for Begin; None since.
        self._noted: list[SetPeer | RemovePeer] | None = []
        self._orderly = False
        self._settled = False

    def get(self, peer: int, now: float) -> Tenant | None:
        """Return the peer, woken if need be; None when this worker has no such peer."""
        return self._tenants.get(peer) or self._wake(peer, now)

    def find(self, peer: int, now: float) -> Tenant | None:
        """Return the peer a record is for, which may have been added this very moment."""
        tenant = self.get(peer, now)
        if tenant is None:
            self._catch_up()
            tenant = self.get(peer, now)
        return tenant

    def settled(self) -> bool:
        """Tell whether everybody that a predecessor knew has returned."""
        return self._settled or self._noted is not None

    def settle(self, count: int, now: float) -> None:
        """Let some of them return, `count` at the most."""
        returning = self._tenants.returning
        for peer in list(islice(returning, count)):
            self._wake(peer, now)
        if not returning:
            self._settled = True
            # What is left are handshakes that the predecessor began and nobody can finish.
            self._indices.free_others()

    def obey(self, order: Order, now: float) -> None:
        """Change peers, routes or the device's key, without touching what did not change."""
        match order:
            case SetPrivateKey(private_key):
                self._identity = Identity(private_key) if private_key else None
                if self._sessions is not None:
                    self._sessions.use(self._identity)
                for tenant in self._tenants.awake():
                    self._actions.act(tenant, tenant.peer.set_identity(self._identity, now))
            case SetPeer():
                self._set_peer(order, now)
            case RemovePeer(peer):
                self.allowed_ips.remove_owner(peer)
                self._remove_peer(order)
            case AddAllowedIP(network, length, peer):
                self.allowed_ips.insert(network, length, peer)
            case RemoveAllowedIP(network, length, peer):
                self.allowed_ips.remove(network, length, peer)
            case SetLink(up, mtu):
                self.mtu = mtu
                for tenant in self._tenants.awake():
                    tenant.peer.mtu = mtu
                if up != self.up:
                    self.up = up
                    self._start_or_stop(now)
            case ForgetSources() | SetSockets():
                for tenant in self._tenants.awake():
                    tenant.peer.forget_source()
                    tenant.save()
            case Begin(orderly, deaths):
                self._begin(orderly, deaths, now)
            case _:
                assert_never(order)

    def _begin(self, orderly: bool, deaths: int, now: float) -> None:
        noted, self._noted = self._noted or [], None
        self._orderly = orderly
        if self._sessions is not None:
            known = {order.peer for order in noted}
            known -= {order.peer for order in noted if isinstance(order, RemovePeer)}
            if deaths >= _HOPELESS_DEATHS:
                known.clear()
            forget_unknown(self._sessions, self._table, self._number, known)
        for order in noted:
            if isinstance(order, SetPeer):
                self._set_peer(order, now)
            else:
                self._remove_peer(order)

    def _start_or_stop(self, now: float) -> None:
        """The interface went up or down, and all peers with it."""
        for tenant in self._tenants.awake():
            peer = tenant.peer
            self._actions.act(tenant, peer.start(now) if self.up else peer.stop())

    def _set_peer(self, order: SetPeer, now: float) -> None:
        if self._noted is not None:
            self._noted.append(order)
            return
        if self._table.owner(row_of(order.peer)) != self._number:
            return
        tenant = self._tenants.take_in(order)
        self._actions.counters.store(Counter.PEERS, len(self._tenants))
        if tenant is None:
            if order.keepalive and order.peer not in self._tenants.returning:
                self._wake(order.peer, now)
            return
        peer = tenant.peer
        outcomes = peer.set_preshared_key(order.preshared_key)
        if order.endpoint is not None:
            outcomes += tenant.move(order.endpoint)
        self._actions.act(tenant, outcomes + peer.set_keepalive(order.keepalive, now))

    def _wake(self, peer_id: int, now: float) -> Tenant | None:
        """Wake a peer, with the sessions that it had with a predecessor."""
        returns = peer_id in self._tenants.returning
        woken = self._tenants.wake(peer_id)
        if woken is None:
            return None
        tenant, order = woken
        peer, row = tenant.peer, tenant.row
        outcomes: list[Outcome] = []
        if self._sessions is not None:
            outcomes += peer.resume(*row.initiations(), now)
            for keypair in peer.keypairs:
                self._indices.keep(keypair.local_index, peer_id)
        elif returns and row.figures().last_handshake_ns:
            outcomes += peer.begin_handshake(now)
        if not self.up:
            outcomes += peer.stop()
        self._actions.act(tenant, outcomes + peer.set_keepalive(order.keepalive, now))
        return tenant

    def _make_peer(
        self, order: SetPeer, endpoint: Endpoint | None, greatest_timestamp: bytes
    ) -> Peer:
        store = None
        if self._sessions is not None:
            store = self._sessions.of(order.peer, self._table.row(order.peer), self._orderly)
        peer = Peer(
            peer=order.peer,
            identity=self._identity,
            public_key=order.public_key,
            preshared_key=order.preshared_key,
            keepalive=0,
            endpoint=endpoint,
            indices=self._indices,
            randomness=partial(self._random, order.peer),
            tai64n=_tai64n,
            greatest_timestamp=greatest_timestamp,
            store=store,
        )
        peer.mtu = self.mtu
        peer.running = self.up
        return peer

    def _random(self, peer: int, count: int) -> bytes:
        """Return random bytes for a peer; a key log that was asked for needs those that are a
        handshake's ephemeral private key."""
        drawn, tap = os.urandom(count), self._tap
        if count == KEY_SIZE and tap is not None and tap.wants(Point.SECRET, peer):
            tap.secret(drawn, peer)
        return drawn

    def _remove_peer(self, order: RemovePeer) -> None:
        if self._noted is not None:
            self._noted.append(order)
            return
        peer, row = order.peer, self._table.row(order.peer)
        if peer not in self._tenants:
            return
        tenant = self._tenants.remove(peer)
        self._actions.counters.store(Counter.PEERS, len(self._tenants))
        if tenant is not None:
            self._actions.act(tenant, tenant.peer.close())
        elif self._sessions is not None:
            self._sessions.forget(peer, row)
        row.abandon()


def _tai64n() -> bytes:
    return tai64n.label(time.time_ns())
