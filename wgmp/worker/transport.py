"""The worker's packet path: records of packets sealed, records of datagrams opened.

```
out:  peer -> endpoint? -> keypair? -> seal into a record for udp_writer -> timers, rekey
                        -> none: stage the packets, start a handshake
in:   index -> keypair -> age -> open into a record for tun_writer -> promote, roam, timers
```
"""

from __future__ import annotations

from itertools import groupby

from wgmp.counters import Counter
from wgmp.fastpath import reference, virtio
from wgmp.fastpath.segment import TCP, UDP
from wgmp.offload import Offloads
from wgmp.protocol.icmp import ErrorLimiter
from wgmp.protocol.outcome import DropReason, Endpoint
from wgmp.record import Kind, Record, ecn_flags
from wgmp.stream import Label
from wgmp.worker.actions import KEEPALIVE_BYTES, Actions
from wgmp.worker.configuration import Configuration
from wgmp.worker.indices import Indices
from wgmp.worker.tenants import Tenant


class Transport:
    """Seals and opens for the peers of `configuration`. `offloads`: those in use."""

    def __init__(
        self, configuration: Configuration, indices: Indices, actions: Actions, offloads: Offloads
    ) -> None:
        self._configuration = configuration
        self._indices = indices
        self._actions = actions
        self._counters = actions.counters
        self._inward = actions.counters.inward
        self._udp = actions.udp
        self._tun = actions.tun
        self._coalesce = frozenset(
            protocol
            for protocol, wanted in ((TCP, offloads.tun_tcp), (UDP, offloads.tun_udp))
            if wanted
        )
        self._unreachable = ErrorLimiter()

    # --- out ---

    def seal(self, record: Record, now: float) -> None:
        """Seal a record of packets for its peer, or stage them."""
        tenant = self._configuration.find(record.peer, now)
        if record.shortest() < virtio.SIZE:
            self._counters.drop(DropReason.RING_CORRUPT, record.count)
            return
        if tenant is None:
            self._counters.drop(DropReason.PEER_REMOVED, record.count)
            return
        peer = tenant.peer
        if peer.endpoint is None or not self._configuration.up:
            self._refuse(tenant, record.packets(), now)
            return
        packets = record.packets()
        keypair = peer.sending_keypair(now)
        if keypair is not None:
            out = self._udp
            out.start(Label(Kind.DATAGRAMS, record.peer, ecn_flags(record.ecn), peer.endpoint))
            sealed = reference.seal(keypair, packets, out, self._configuration.mtu)
            out.flush()
            self._counters.add(Counter.CUT, sealed.cut)
            for reason, count in sealed.drops.items():
                self._actions.drop(tenant, reason, count)
            tenant.row.add_sent(out.sent_bytes)
            self._counters.add(Counter.SEALED, out.sent_packets)
            self._actions.act(tenant, peer.packets_sent(keypair, out.sent_packets, now))
            packets = packets[sealed.packets :]
        for packet in packets:
            self._stage(tenant, packet, now)

    def _stage(self, tenant: Tenant, packet: memoryview, now: float) -> None:
        """Let the peer keep a packet, or the segments of a super-packet, for a session to come."""
        plain = reference.plain_packets(packet)
        if isinstance(plain, DropReason):
            self._actions.drop(tenant, plain)
            return
        self._counters.add(Counter.CUT, len(plain) - 1)
        for each in plain:
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

    def open(self, record: Record, now: float) -> None:
        """Open a record of datagrams: usually of one receiver index, possibly of several."""
        endpoint = record.endpoint()
        if endpoint is None or record.shortest() < KEEPALIVE_BYTES:
            self._inward.drop(DropReason.RING_CORRUPT, record.count)
            return
        for index, trains in groupby(reference.trains(record), lambda train: train.index):
            self._open_session(index, list(trains), record, endpoint, now)

    def _open_session(
        self,
        index: int,
        trains: list[reference.Train],
        record: Record,
        endpoint: Endpoint,
        now: float,
    ) -> None:
        """Open one session's datagrams."""
        peer = self._indices.peer(index)
        tenant = self._configuration.get(peer, now)
        keypair = None if tenant is None else tenant.peer.keypair(index)
        count = sum(train.count for train in trains)
        if tenant is None or keypair is None:
            self._inward.drop(DropReason.UNKNOWN_INDEX, count)
            return
        if keypair.expired(now):
            self._actions.drop_inward(tenant, DropReason.KEYPAIR_EXPIRED, count)
            return
        owner = self._configuration.sources.owner
        self._tun.start(Label(Kind.PACKETS, peer))
        opened = reference.open_trains(
            keypair,
            record,
            trains,
            self._tun,
            lambda source: owner(source) == peer,
            congestion=record.ecn,
            coalesce=self._coalesce,
        )
        self._tun.flush()
        self._inward.add(Counter.JOINED, opened.joined)
        for reason, dropped in opened.drops.items():
            self._actions.drop_inward(tenant, reason, dropped)
        authenticated = opened.data + opened.keepalives
        if authenticated:
            tenant.row.add_received(opened.received_bytes)
            self._inward.add(Counter.OPENED, authenticated)
            self._inward.add(Counter.KEEPALIVES_RECEIVED, opened.keepalives)
            outcomes = tenant.peer.datagrams_received(
                keypair, endpoint, opened.data, opened.keepalives, now
            )
            self._actions.act(tenant, outcomes)
