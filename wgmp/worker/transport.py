"""The worker's packet path: records of packets sealed, records of datagrams opened.

```
out:  peer -> endpoint? -> keypair? -> seal into records for udp_writer -> timers, rekey -> lease
                        -> none: stage the packets, start a handshake
in:   index -> keypair -> age -> open into records for tun_writer -> promote, roam, timers -> lease
```

Sealing and opening are the fast path's (`interface.Sealer`, `interface.Opener`), which goes on with
the records behind the first one, for as long as nothing has to be decided. When nothing will have
to be for a while, the peer's current session is leased: whole turns seal and open on it without
coming here, and `settle` tells the peer's timers of it.
"""

from __future__ import annotations

from wgmp.counters import Counter
from wgmp.fastpath import open, seal, virtio
from wgmp.fastpath.interface import Opener, Sealer, WorkerPart
from wgmp.fastpath.segment import TCP, UDP
from wgmp.protocol.constants import REJECT_AFTER_MESSAGES
from wgmp.protocol.icmp import ErrorLimiter
from wgmp.protocol.keypair import Keypair
from wgmp.protocol.outcome import DropReason
from wgmp.record import Record
from wgmp.ring import RingReader
from wgmp.role import RoleContext
from wgmp.worker.actions import Actions
from wgmp.worker.configuration import Configuration
from wgmp.worker.indices import Indices
from wgmp.worker.tenants import Tenant

# Packets that wait for sessions, of all the worker's peers: some 25 MB. Beyond it each peer
# keeps one, so that thousands that cannot be reached do not fill the memory.
_MOST_STAGED = 16_384


class Transport:
    """Seals and opens for the peers of `configuration`. `context`: the worker's."""

    def __init__(
        self,
        configuration: Configuration,
        indices: Indices,
        actions: Actions,
        context: RoleContext,
    ) -> None:
        self._configuration = configuration
        self._indices = indices
        self._actions = actions
        self._counters = actions.counters
        self._inward = actions.counters.inward
        self._unreachable = ErrorLimiter()
        self._now = 0.0
        self._found: dict[int, tuple[Tenant, Keypair]] = {}
        fastpath, offloads = context.fastpath, context.devices.offloads
        coalesce = frozenset(
            protocol
            for protocol, wanted in ((TCP, offloads.tun_tcp), (UDP, offloads.tun_udp))
            if wanted
        )
        drops, allowed_ips = context.peers.peer_drops, configuration.allowed_ips
        inward = allowed_ips, self._inward, drops, coalesce, self._find
        self._fast: tuple[Sealer, Opener] = (
            fastpath.sealer(context.outputs["udp_writer"], self._counters, drops),
            fastpath.opener(context.outputs["tun_writer"], *inward),
        )
        # Through the streams that a capture watches, and one record after the other.
        self._captured: tuple[Sealer, Opener] = (
            seal.Sealer(actions.udp, self._counters, drops, burst=1),
            open.Opener(actions.tun, *inward, burst=1),
        )
        self._sealer, self._opener = self._fast
        self.part = WorkerPart(*self._fast, actions.leases)

    def copy_records(self, captured: bool) -> None:
        """Let everything go through the streams of `actions`, for as long as it is captured."""
        self._sealer, self._opener = self._captured if captured else self._fast

    # --- out ---

    def seal(self, ring: RingReader, record: Record, now: float) -> None:
        """Seal the ring's oldest record of packets, and those of the same peer behind it.

        Without a session its packets are staged; without a place to send them to, refused.
        """
        tenant = self._configuration.find(record.peer, now)
        if tenant is not None and tenant.peer.endpoint is not None and self._configuration.up:
            keypair = tenant.peer.sending_keypair(now)
            # A super-packet stands for fewer packets than it has bytes.
            if (
                keypair is not None
                and keypair.send_counter + record.used <= REJECT_AFTER_MESSAGES
                and record.used
            ):
                self._seal(ring, tenant, keypair, now)
                return
        self._counters.record_in(record.count, record.used)
        if record.shortest() < virtio.SIZE:
            self._counters.drop(DropReason.RING_CORRUPT, record.count)
        elif tenant is None:
            self._counters.drop(DropReason.PEER_REMOVED, record.count)
        elif tenant.peer.endpoint is None or not self._configuration.up:
            self._refuse(tenant, record.packets(), now)
        else:
            for packet in record.packets():
                self._stage(tenant, packet, now)
        ring.release()

    def _seal(self, ring: RingReader, tenant: Tenant, keypair: Keypair, now: float) -> None:
        peer = tenant.peer
        datagrams, length = self._sealer.seal(
            ring, keypair, peer.peer, tenant.packed_endpoint(), self._configuration.mtu
        )
        tenant.row.add_sent(length)
        self._counters.add(Counter.SEALED, datagrams)
        self._actions.act(tenant, peer.packets_sent(keypair, datagrams, now))
        self._lease(tenant, now)

    def _stage(self, tenant: Tenant, packet: memoryview, now: float) -> None:
        """Let the peer keep a packet, or the segments of a super-packet, for a session to come."""
        plain = seal.plain_packets(packet)
        if isinstance(plain, DropReason):
            self._actions.drop(tenant, plain)
            return
        self._counters.add(Counter.CUT, len(plain) - 1)
        crowded = self._counters.value(Counter.STAGED) >= _MOST_STAGED
        for each in plain:
            if crowded and tenant.peer.staged:
                self._actions.drop(tenant, DropReason.STAGED_OVERFLOW)
            else:
                self._actions.act(tenant, tenant.peer.stage(each, now))

    def _refuse(self, tenant: Tenant, packets: list[memoryview], now: float) -> None:
        """Drop packets that cannot be sent; answer those of a peer whose endpoint is not known."""
        if not self._configuration.up:
            self._actions.drop(tenant, DropReason.LINK_DOWN, len(packets))
            return
        self._actions.drop(tenant, DropReason.NO_ENDPOINT, len(packets))
        for packet in packets:
            error = self._unreachable.unreachable(packet[virtio.SIZE :], now)
            if error is not None:
                self._inward.add(Counter.ICMP_ERRORS)
                self._actions.write(tenant, error)

    # --- in ---

    def open(self, ring: RingReader, now: float) -> None:
        """Open the ring's oldest records of datagrams, whoever they are from."""
        self._now = now
        received, refused = self._opener.open(ring)
        for index, reason, count in refused:
            tenant = self._configuration.get(self._indices.peer(index), now)
            if tenant is None:
                self._inward.drop(reason, count)
            else:
                self._actions.drop_inward(tenant, reason, count)
        for index, packets, keepalives, length, packed in received:
            tenant, keypair = self._found[index]
            tenant.row.add_received(length)
            self._inward.add(Counter.OPENED, packets + keepalives)
            self._inward.add(Counter.KEEPALIVES_RECEIVED, keepalives)
            endpoint = tenant.unpacked_endpoint(packed)
            self._actions.act(
                tenant,
                tenant.peer.datagrams_received(keypair, endpoint, packets, keepalives, now),
            )
            self._lease(tenant, now)
        self._found.clear()

    def _find(self, index: int) -> tuple[Keypair, int] | DropReason:
        """Return the keypair and the peer of a receiver index, or why its datagrams are dropped."""
        peer = self._indices.peer(index)
        tenant = self._configuration.get(peer, self._now)
        keypair = None if tenant is None else tenant.peer.keypair(index)
        if tenant is None or keypair is None:
            return DropReason.UNKNOWN_INDEX
        if keypair.expired(self._now):
            return DropReason.KEYPAIR_EXPIRED
        self._found[index] = tenant, keypair
        return keypair, peer

    # --- without coming here ---

    def settle(self, now: float) -> None:
        """Let the peers' timers know what was sent and received under leases."""
        for peer_id, sent, packets, keepalives, sending_last in self._actions.leases.settle():
            tenant = self._configuration.get(peer_id, now)
            assert tenant is not None
            peer, endpoint = tenant.peer, tenant.peer.endpoint
            keypair = peer.keypairs.current
            assert keypair is not None
            assert endpoint is not None
            outcomes = [] if sending_last else peer.packets_sent(keypair, sent, now)
            if packets or keepalives:
                outcomes += peer.datagrams_received(keypair, endpoint, packets, keepalives, now)
            if sending_last:
                outcomes += peer.packets_sent(keypair, sent, now)
            self._actions.act(tenant, outcomes)
            self._lease(tenant, now)

    def _lease(self, tenant: Tenant, now: float) -> None:
        """Lease the peer's current session until something about it has to be decided."""
        peer = tenant.peer
        keypair = peer.sending_keypair(now)
        if keypair is None or peer.endpoint is None or peer.staged or not self._configuration.up:
            return
        until = keypair.settled_until()
        if now < until:
            place, mtu = tenant.packed_endpoint(), self._configuration.mtu
            self._actions.leases.grant(keypair, peer.peer, place, mtu, until)
