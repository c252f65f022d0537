"""worker: owns its peers outright: handshakes, timers, keypairs, counters, replay windows.

out:  record of packets    -> keypair? -> seal into a record for udp_writer -> timers, rekey
                           -> none: stage the packets, start a handshake
in:   record of datagrams  -> index -> keypair -> age -> open into a record for tun_writer
                           -> promote, roam, timers
hs:   opened initiation, response, cookie reply -> the peer's state machine -> its answer

Nobody else touches a peer, so all of it is plain sequential code. What outlives the worker
(endpoint, transfer, last handshake, greatest timestamp) is copied to the peer's row in the
shared table; a successor finds it there, and starts handshakes with every peer that had a
session.
"""

from __future__ import annotations

import heapq
import os
import socket
import time
from collections import Counter as Tally
from collections import deque
from itertools import groupby
from typing import assert_never

from wgmp.counters import Counter
from wgmp.fastpath import reference, virtio
from wgmp.fastpath.segment import TCP, UDP
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
from wgmp.protocol import messages, noise, tai64n
from wgmp.protocol.allowedips import AllowedIPs
from wgmp.protocol.icmp import ErrorLimiter
from wgmp.protocol.messages import MessageType
from wgmp.protocol.noise import Identity
from wgmp.protocol.outcome import (
    Drop,
    DropReason,
    Endpoint,
    HandshakeCompleted,
    Outcome,
    SendDatagram,
    WritePacket,
)
from wgmp.protocol.peer import Peer
from wgmp.record import HANDSHAKE, Kind, Record, ecn_flags
from wgmp.role import Role, RoleContext
from wgmp.stream import Label, RecordStream
from wgmp.tenants import Tenant, Tenants, endpoint_of
from wgmp.tun import DEFAULT_MTU

# Records taken from one ring in one step.
_BURST = 8
# Handshakes a successor starts per step, so that it serves its rings meanwhile.
_REVIVALS = 8
# Timers served in one step: thousands of peers may be due at once, when the interface comes up.
_TIMERS = 32
_CACHE_ENTRIES = 65_536
_KEEPALIVE_BYTES = 32


class Worker(Role):
    """Seals, opens and shakes hands for the peers whose rows name it as their owner."""

    def __init__(self, context: RoleContext) -> None:
        super().__init__(context)
        self._number = context.number
        self._workers = context.workers
        self._table = context.peers
        self._indices = context.indices
        self._udp = RecordStream(context.outputs["udp_writer"], self.counters)
        self._tun = RecordStream(context.outputs["tun_writer"], self.counters)
        offloads = context.devices.offloads
        self._coalesce = frozenset(
            protocol
            for protocol, wanted in ((TCP, offloads.tun_tcp), (UDP, offloads.tun_udp))
            if wanted
        )
        self._unreachable = ErrorLimiter()
        self._identity: Identity | None = None
        self._mtu = DEFAULT_MTU
        self._up = True  # the supervisor's first order says whether it is
        self._allowed_ips = AllowedIPs()
        self._sources: dict[bytes, int | None] = {}
        self._tenants = Tenants(context.peers, self._make_peer)
        self._by_index: dict[int, int] = {}
        self._schedule: list[tuple[float, int]] = []
        self._revivals: deque[int] = deque()
        # A predecessor's sessions died with it, and so did their indices.
        self._indices.free_all_of(self._number, self._table)

    # --- receiver indices (the protocol core's IndexSpace) ---

    def draw(self, peer: int) -> int:
        """Claim a receiver index for one of this worker's peers."""
        index = self._indices.draw(peer, self._number, self._workers, os.urandom)
        self._by_index[index] = peer
        return index

    def free(self, index: int) -> None:
        """Give a receiver index back."""
        if self._by_index.pop(index, None) is not None:
            self._indices.free(index)

    # --- orders ---

    def obey(self, order: Order, now: float, sockets: list[socket.socket]) -> None:
        """Change peers, routes or the device's key, without touching what did not change."""
        match order:
            case SetPrivateKey(private_key):
                self._identity = Identity(private_key) if private_key else None
                for tenant in self._tenants.awake():
                    self._act(tenant, tenant.peer.set_identity(self._identity, now), now)
            case SetPeer():
                self._set_peer(order, now)
            case RemovePeer(peer):
                self._allowed_ips.remove_owner(peer)
                self._sources.clear()
                self._remove_peer(peer, now)
            case AddAllowedIP(network, length, peer):
                self._allowed_ips.insert(network, length, peer)
                self._sources.clear()
            case RemoveAllowedIP(network, length, peer):
                self._allowed_ips.remove(network, length, peer)
                self._sources.clear()
            case SetLink(up, mtu):
                self._mtu = mtu
                for tenant in self._tenants.awake():
                    tenant.peer.mtu = mtu
                if up != self._up:
                    self._up = up
                    self._start_or_stop(now)
            case ForgetSources() | SetSockets():
                for tenant in self._tenants.awake():
                    tenant.peer.forget_source()
                    tenant.save()
            case _:
                assert_never(order)

    def _start_or_stop(self, now: float) -> None:
        """The interface went up or down, and all peers with it."""
        for tenant in self._tenants.awake():
            peer = tenant.peer
            self._act(tenant, peer.start(now) if self._up else peer.stop(), now)

    def _set_peer(self, order: SetPeer, now: float) -> None:
        if self._table.owner(row_of(order.peer)) != self._number:
            return
        known = len(self._tenants)
        tenant = self._tenants.take_in(order)
        self.counters.store(Counter.PEERS, len(self._tenants))
        if tenant is None:
            return
        peer, endpoint = tenant.peer, endpoint_of(order)
        outcomes: list[Outcome] = []
        if len(self._tenants) == known:
            outcomes += peer.set_preshared_key(order.preshared_key)
            if endpoint is not None:
                outcomes += peer.set_endpoint(endpoint)
        elif tenant.row.figures().last_handshake_ns and peer.endpoint is not None:
            self._revivals.append(order.peer)
        outcomes += peer.set_keepalive(order.keepalive, now)
        self._act(tenant, outcomes, now)

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
            indices=self,
            randomness=os.urandom,
            tai64n=_tai64n,
            greatest_timestamp=greatest_timestamp,
        )
        peer.mtu = self._mtu
        peer.running = self._up
        return peer

    def _remove_peer(self, peer: int, now: float) -> None:
        tenant = self._tenants.remove(peer)
        self.counters.store(Counter.PEERS, len(self._tenants))
        if tenant is not None:
            self._act(tenant, tenant.peer.close(), now)
            tenant.row.abandon()

    # --- the loop's side ---

    def deadline(self) -> float | None:
        """The earliest timer of all peers."""
        if self._revivals:
            return 0.0
        return self._schedule[0][0] if self._schedule else None

    def step(self, now: float) -> bool:
        """Serve some records of each ring, then the timers that are due."""
        for ring in self.inputs:
            for _ in range(_BURST):
                record = ring.peek()
                if record is None:
                    break
                self._serve(record, now)
                ring.release()
        for _ in range(_TIMERS):
            if not self._schedule or self._schedule[0][0] > now:
                break
            self._serve_timer(now)
        for _ in range(min(_REVIVALS, len(self._revivals))):
            tenant = self._tenants.get(self._revivals.popleft())
            if tenant is not None:
                self._act(tenant, tenant.peer.begin_handshake(now), now)
        return self.has_input()

    def _serve(self, record: Record, now: float) -> None:
        self.counters.add(Counter.RECORDS_IN)
        self.counters.add(Counter.PACKETS_IN, record.count)
        self.counters.add(Counter.BYTES_IN, record.used)
        match record.kind:
            case Kind.PACKETS:
                self._seal(record, now)
            case Kind.DATAGRAMS:
                self._open(record, now)
            case Kind.OPENED_INITIATION:
                self._answer_initiation(record, now)
                record.wipe()
            case Kind.HANDSHAKE_MESSAGES:
                for datagram in record.packets():
                    self._consume(bytes(datagram), record.endpoint(), now)
            case _:
                self.counters.drop(DropReason.RING_CORRUPT)

    def _serve_timer(self, now: float) -> None:
        deadline, peer = heapq.heappop(self._schedule)
        tenant = self._tenants.get(peer)
        if tenant is None or tenant.scheduled != deadline:
            return  # the peer is gone, or has an earlier entry
        tenant.scheduled = None
        self._act(tenant, tenant.peer.due(now), now)

    # --- out ---

    def _tenant(self, peer: int) -> Tenant | None:
        """Return the peer a record is for, which may have been added this very moment."""
        tenant = self._tenants.get(peer)
        if tenant is None:
            self.catch_up()
            tenant = self._tenants.get(peer)
        return tenant

    def _seal(self, record: Record, now: float) -> None:
        """Seal a record of packets for its peer, or stage them."""
        tenant = self._tenant(record.peer)
        if record.shortest() < virtio.SIZE:
            self.counters.drop(DropReason.RING_CORRUPT)
            return
        if tenant is None:
            self.counters.drop(DropReason.PEER_REMOVED, record.count)
            return
        peer = tenant.peer
        if peer.endpoint is None or not self._up:
            self._refuse(tenant, record.packets(), now)
            return
        packets = record.packets()
        keypair = peer.sending_keypair(now)
        if keypair is not None:
            out = self._udp
            out.start(Label(Kind.DATAGRAMS, record.peer, ecn_flags(record.ecn), peer.endpoint))
            sealed = reference.seal(keypair, packets, out, self._mtu)
            out.flush()
            self._count_drops(sealed.drops)
            tenant.row.add_sent(out.sent_bytes)
            self.counters.add(Counter.SEALED, out.sent_packets)
            self._act(tenant, peer.packets_sent(keypair, out.sent_packets, now), now)
            packets = packets[sealed.packets :]
        for packet in packets:
            self._stage(tenant, packet, now)

    def _stage(self, tenant: Tenant, packet: memoryview, now: float) -> None:
        """Let the peer keep a packet, or the segments of a super-packet, for a session to come."""
        plain = reference.plain_packets(packet)
        if isinstance(plain, DropReason):
            self.counters.drop(plain)
            return
        for each in plain:
            self._act(tenant, tenant.peer.stage(each, now), now)

    def _refuse(self, tenant: Tenant, packets: list[memoryview], now: float) -> None:
        """Drop packets that cannot be sent; answer those of a peer whose endpoint is not known."""
        if not self._up:
            self.counters.drop(DropReason.LINK_DOWN, len(packets))
            return
        self.counters.drop(DropReason.NO_ENDPOINT, len(packets))
        for packet in packets:
            error = self._unreachable.unreachable(packet[virtio.SIZE :], now)
            if error is not None:
                self._write(tenant, error)
                self.counters.add(Counter.ICMP_ERRORS)

    # --- in ---

    def _open(self, record: Record, now: float) -> None:
        """Open a record of datagrams: usually of one receiver index, possibly of several."""
        endpoint = record.endpoint()
        if endpoint is None or record.shortest() < _KEEPALIVE_BYTES:
            self.counters.drop(DropReason.RING_CORRUPT)
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
        peer = self._by_index.get(index, -1)
        tenant = self._tenants.get(peer)
        keypair = None if tenant is None else tenant.peer.keypair(index)
        count = sum(train.count for train in trains)
        if tenant is None or keypair is None:
            self.counters.drop(DropReason.UNKNOWN_INDEX, count)
            return
        if keypair.expired(now):
            self.counters.drop(DropReason.KEYPAIR_EXPIRED, count)
            return
        self._tun.start(Label(Kind.PACKETS, peer))
        opened = reference.open_trains(
            keypair,
            record,
            trains,
            self._tun,
            lambda source: self._source_owner(source) == peer,
            congestion=record.ecn,
            coalesce=self._coalesce,
        )
        self._tun.flush()
        self._count_drops(opened.drops)
        authenticated = opened.data + opened.keepalives
        if authenticated:
            tenant.row.add_received(opened.received_bytes)
            self.counters.add(Counter.OPENED, authenticated)
            self.counters.add(Counter.KEEPALIVES_RECEIVED, opened.keepalives)
            outcomes = tenant.peer.datagrams_received(
                keypair, endpoint, opened.data, opened.keepalives, now
            )
            self._act(tenant, outcomes, now)

    def _count_drops(self, drops: Tally[DropReason]) -> None:
        for reason, count in drops.items():
            self.counters.drop(reason, count)

    def _source_owner(self, source: bytes) -> int | None:
        try:
            return self._sources[source]
        except KeyError:
            if len(self._sources) >= _CACHE_ENTRIES:
                self._sources.clear()
            owner = self._sources[source] = self._allowed_ips.lookup(source)
            return owner

    # --- handshakes ---

    def _answer_initiation(self, record: Record, now: float) -> None:
        tenant = self._tenant(record.peer)
        endpoint = record.endpoint()
        if tenant is None or endpoint is None:
            self.counters.drop(DropReason.PEER_REMOVED)
            return
        if not self._up:
            self.counters.drop(DropReason.LINK_DOWN)
            return
        opened = noise.OpenedInitiation.unpack(b"".join(record.packets()))
        if isinstance(opened, DropReason):
            self.counters.drop(DropReason.RING_CORRUPT)
            return
        outcomes = tenant.peer.consume_initiation(opened, endpoint, now)
        self._count_handshake(tenant, outcomes, messages.Initiation.SIZE)
        self._act(tenant, outcomes, now)

    def _consume(self, datagram: bytes, endpoint: Endpoint | None, now: float) -> None:
        """Let the peer of its receiver index consume a response or a cookie reply."""
        kind = messages.message_type(datagram)
        if kind not in (MessageType.RESPONSE, MessageType.COOKIE_REPLY):
            self.counters.drop(DropReason.RING_CORRUPT)
            return
        peer = self._by_index.get(messages.receiver_index(datagram), -1)
        tenant = self._tenants.get(peer)
        if tenant is None or endpoint is None:
            self.counters.drop(DropReason.UNKNOWN_INDEX)
            return
        if kind is MessageType.RESPONSE:
            outcomes = tenant.peer.consume_response(datagram, endpoint, now)
            self._count_handshake(tenant, outcomes, len(datagram))
        else:
            outcomes = tenant.peer.consume_cookie_reply(datagram, now)
        self._act(tenant, outcomes, now)

    def _count_handshake(self, tenant: Tenant, outcomes: list[Outcome], length: int) -> None:
        """Count a handshake message as received, as `wg` shows it, if it was not dropped."""
        if not any(isinstance(outcome, Drop) for outcome in outcomes):
            tenant.row.add_received(length)

    # --- what the core answered ---

    def _act(self, tenant: Tenant, outcomes: list[Outcome], now: float) -> None:
        """Do what the core says, save what outlives the worker, schedule its next timer."""
        for outcome in outcomes:
            match outcome:
                case SendDatagram():
                    self._send(tenant, outcome)
                case WritePacket(packet):
                    self._write(tenant, packet)
                case Drop(reason, count):
                    self.counters.drop(reason, count)
                case HandshakeCompleted():
                    self.counters.add(Counter.HANDSHAKES_COMPLETED)
                    tenant.row.set_last_handshake(time.time_ns())
                case _:
                    assert_never(outcome)
        tenant.save()
        deadline = tenant.peer.deadline()
        if deadline is not None and (tenant.scheduled is None or deadline < tenant.scheduled):
            tenant.scheduled = deadline
            heapq.heappush(self._schedule, (deadline, tenant.peer.peer))

    def _send(self, tenant: Tenant, outcome: SendDatagram) -> None:
        match messages.message_type(outcome.datagram):
            case MessageType.INITIATION:
                self.counters.add(Counter.HANDSHAKES_BEGUN)
            case MessageType.RESPONSE:
                self.counters.add(Counter.HANDSHAKES_ANSWERED)
            case MessageType.TRANSPORT:
                self.counters.add(Counter.SEALED)
                if len(outcome.datagram) == _KEEPALIVE_BYTES:
                    self.counters.add(Counter.KEEPALIVES_SENT)
        flags = HANDSHAKE if outcome.handshake else 0
        self._udp.start(Label(Kind.DATAGRAMS, tenant.peer.peer, flags, outcome.endpoint))
        self._udp.append(outcome.datagram, [len(outcome.datagram)])
        self._udp.flush()
        tenant.row.add_sent(self._udp.sent_bytes)

    def _write(self, tenant: Tenant, packet: bytes) -> None:
        self._tun.start(Label(Kind.PACKETS, tenant.peer.peer))
        self._tun.append(virtio.PLAIN + packet, [virtio.SIZE + len(packet)])
        self._tun.flush()


def _tai64n() -> bytes:
    return tai64n.label(time.time_ns())
