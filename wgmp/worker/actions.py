"""What the protocol core answers, done: datagrams sent, packets written, drops counted.

After each answer what outlives the worker is copied to the peer's row, and the peer's next
timer goes into the schedule.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from typing import assert_never

from wgmp import events
from wgmp.addresses import format_endpoint
from wgmp.counters import Counter, Counters
from wgmp.fastpath import virtio
from wgmp.fastpath.interface import Leases
from wgmp.keys import to_base64
from wgmp.protocol import messages
from wgmp.protocol.messages import MessageType
from wgmp.protocol.outcome import (
    Drop,
    DropReason,
    Endpoint,
    HandshakeCompleted,
    HandshakeGivenUp,
    Outcome,
    SendDatagram,
    SessionExpired,
    WritePacket,
)
from wgmp.record import HANDSHAKE, Kind
from wgmp.stream import Label, RecordStream
from wgmp.worker.tenants import Tenant

KEEPALIVE_BYTES = 32

# With a handshake message dropped for one of these a handshake has failed.
_FAILURES = frozenset(
    {
        DropReason.BAD_EPHEMERAL,
        DropReason.BAD_STATIC,
        DropReason.BAD_TIMESTAMP,
        DropReason.REPLAYED_INITIATION,
        DropReason.INITIATION_FLOOD,
        DropReason.BAD_RESPONSE,
        DropReason.BAD_COOKIE_REPLY,
    }
)


class Schedule:
    """When which peer's earliest timer is due. A peer put off keeps its early entry."""

    __slots__ = ("_heap",)

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []

    def enter(self, tenant: Tenant) -> None:
        """Note the peer's next timer, unless an entry that is no later stands already."""
        deadline = tenant.peer.deadline()
        if deadline is not None and (tenant.scheduled is None or deadline < tenant.scheduled):
            tenant.scheduled = deadline
            heapq.heappush(self._heap, (deadline, tenant.peer.peer))

    def next(self) -> float | None:
        """Return the earliest entry's time, or None."""
        return self._heap[0][0] if self._heap else None

    def take(self, now: float) -> tuple[float, int] | None:
        """Remove and return the earliest entry, (time, peer), if it is due."""
        if not self._heap or self._heap[0][0] > now:
            return None
        return heapq.heappop(self._heap)


class Actions:
    """Does what the core says. `udp`, `tun`: the streams to udp_writer and tun_writer.

    `leases`: ended by whatever is done about a peer. `emit`: tells an event to whoever listens.
    """

    __slots__ = ("_emit", "counters", "leases", "schedule", "tun", "udp")

    def __init__(
        self,
        counters: Counters,
        udp: RecordStream,
        tun: RecordStream,
        leases: Leases,
        emit: Callable[[events.AnyEvent], None],
    ) -> None:
        self.counters = counters
        self._emit = emit
        self.udp = udp
        self.tun = tun
        self.leases = leases
        self.schedule = Schedule()

    def act(self, tenant: Tenant, outcomes: list[Outcome]) -> None:
        """Do what the core says, save what outlives the worker, schedule its next timer."""
        for outcome in outcomes:
            match outcome:
                case SendDatagram():
                    self._send(tenant, outcome)
                case WritePacket(packet):
                    self.write(tenant, packet)
                case Drop(reason, count):
                    if reason is DropReason.BAD_STATIC:
                        # An initiation that cannot be made is one that was dropped.
                        self.counters.add(Counter.HANDSHAKES_BEGUN)
                        self._tell_failure(tenant, reason)
                    self.drop(tenant, reason, count)
                case HandshakeCompleted(initiator):
                    self.counters.add(Counter.HANDSHAKES_COMPLETED)
                    tenant.row.set_last_handshake(time.time_ns())
                    key, endpoint = _key(tenant), _text(tenant.peer.endpoint)
                    self._emit(
                        events.HandshakeCompleted(peer=key, endpoint=endpoint, initiator=initiator)
                    )
                case HandshakeGivenUp():
                    self.counters.add(Counter.HANDSHAKES_GIVEN_UP)
                    self._tell_failure(tenant, DropReason.HANDSHAKE_TIMEOUT)
                case SessionExpired():
                    self._emit(events.SessionExpired(peer=_key(tenant)))
                case _:
                    assert_never(outcome)
        self.leases.revoke(tenant.peer.peer)
        before = tenant.save()
        if before is not None:
            where = _text(tenant.endpoint)
            self._emit(events.PeerRoamed(peer=_key(tenant), before=_text(before), endpoint=where))
        self._count_staged(tenant)
        self.schedule.enter(tenant)

    def write(self, tenant: Tenant, packet: bytes) -> None:
        """Write one plain IP packet to the TUN."""
        self.tun.start(Label(Kind.PACKETS, tenant.peer.peer))
        if not self.tun.append(virtio.PLAIN + packet, [virtio.SIZE + len(packet)]):
            tenant.row.drop(DropReason.RING_FULL, 1)
        self.tun.flush()

    def drop(self, tenant: Tenant, reason: DropReason, count: int = 1) -> None:
        """Count packets that do not go out to their peer."""
        self.counters.drop(reason, count)
        tenant.row.drop(reason, count)

    def drop_inward(self, tenant: Tenant, reason: DropReason, count: int = 1) -> None:
        """Count datagrams of a peer, or packets out of them, that do not come in."""
        self.counters.inward.drop(reason, count)
        tenant.row.drop(reason, count)
        if reason in _FAILURES:
            self._tell_failure(tenant, reason)

    def _count_staged(self, tenant: Tenant) -> None:
        staged = tenant.peer.staged
        if staged != tenant.staged:
            self.counters.add(Counter.STAGED, staged - tenant.staged)
            tenant.staged = staged

    def _tell_failure(self, tenant: Tenant, reason: DropReason) -> None:
        where = _text(tenant.peer.endpoint)
        self._emit(
            events.HandshakeFailed(reason=reason.name.lower(), peer=_key(tenant), endpoint=where)
        )

    def _send(self, tenant: Tenant, outcome: SendDatagram) -> None:
        match messages.message_type(outcome.datagram):
            case MessageType.INITIATION:
                self.counters.add(Counter.HANDSHAKES_BEGUN)
            case MessageType.RESPONSE:
                self.counters.add(Counter.HANDSHAKES_ANSWERED)
            case MessageType.TRANSPORT:
                self.counters.add(Counter.SEALED)
                if len(outcome.datagram) == KEEPALIVE_BYTES:
                    self.counters.add(Counter.KEEPALIVES_SENT)
        flags = HANDSHAKE if outcome.handshake else 0
        self.udp.start(Label(Kind.DATAGRAMS, tenant.peer.peer, flags, outcome.endpoint))
        if not self.udp.append(outcome.datagram, [len(outcome.datagram)]):
            tenant.row.drop(DropReason.RING_FULL, 1)
        self.udp.flush()
        tenant.row.add_sent(self.udp.sent_bytes)


def _key(tenant: Tenant) -> str:
    return to_base64(tenant.peer.public_key)


def _text(endpoint: Endpoint | None) -> str:
    return "" if endpoint is None else format_endpoint(endpoint)
