"""worker: owns its peers outright: handshakes, timers, keypairs, counters, replay windows.

| record | goes to |
|---|---|
| packets from tun_reader, datagrams from udp_reader | `worker/transport.py` |
| opened initiation, response, cookie reply | `worker/handshakes.py` |

Then come the timers that are due. Nobody else touches a peer, so all of it is plain sequential
code. What outlives the worker is in the peer's row in the shared table (endpoint, transfer,
last handshake, greatest timestamp) and in session memory (`wgmp/sessions.py`), where a
successor finds it and goes on. With private sessions it starts handshakes instead, with every
peer that had one.
"""

from __future__ import annotations

import socket

from wgmp.counters import Counter
from wgmp.orders import Begin, Order
from wgmp.protocol.outcome import DropReason
from wgmp.record import Kind, Record
from wgmp.ring import RingReader
from wgmp.role import Role, RoleContext
from wgmp.stream import RecordStream
from wgmp.worker.actions import Actions
from wgmp.worker.configuration import Configuration
from wgmp.worker.handshakes import Handshakes
from wgmp.worker.indices import Indices
from wgmp.worker.tapping import Tapping
from wgmp.worker.transport import Transport

# Records taken from one ring in one step.
_BURST = 16
# Peers a successor takes over per step, so that it serves its rings meanwhile.
_RETURNS = 8
# Timers served in one step: thousands of peers may be due at once, when the interface comes up.
_TIMERS = 32


class Worker(Role):
    """Seals, opens and shakes hands for the peers whose rows name it as their owner."""

    def __init__(self, context: RoleContext) -> None:
        super().__init__(context)
        udp = RecordStream(context.outputs["udp_writer"], self.counters)
        tun = RecordStream(context.outputs["tun_writer"], self.counters.inward)
        number, peers = context.number, context.peers
        indices = Indices(context.indices, peers, number, context.workers)
        leases = context.fastpath.leases(peers)
        self._actions = Actions(self.counters, udp, tun, leases, lambda event: self.emit(event))
        self.configuration = Configuration(
            number,
            peers,
            context.sessions,
            indices,
            self._actions,
            context.fastpath.allowed_ips(),
            lambda: self.catch_up(),
            self.tap,
        )
        shared = self.configuration, indices, self._actions
        self._transport = Transport(*shared, context)
        self.part = self._transport.part
        self._handshakes = Handshakes(*shared)
        self._tapping = Tapping(self.tap, indices, udp, tun, self.counters)

    def obey(self, order: Order, now: float, sockets: list[socket.socket]) -> None:
        """Change peers, routes or the device's key, without touching what did not change."""
        if isinstance(order, Begin):
            # What a predecessor had staged died with it.
            self.counters.drop(DropReason.WORKER_DIED, self.counters.value(Counter.STAGED))
            self.counters.store(Counter.STAGED, 0)
        self._actions.leases.clear()
        self.configuration.obey(order, now)

    def settle(self, now: float) -> None:
        """Let the peers' timers know what was sent and received under leases."""
        self._transport.settle(now)

    def deadline(self) -> float | None:
        """The earliest timer of all peers; at once while some have yet to return."""
        return self._actions.schedule.next() if self.configuration.settled() else 0.0

    def step(self, now: float) -> bool:
        """Serve some records of each ring, then the timers that are due."""
        captured = self._tapping.on()
        self._transport.copy_records(captured)
        serve = self._tapping.around(self._serve) if captured else self._serve
        for ring in self.inputs:
            for _ in range(_BURST):
                record = ring.peek()
                if record is None:
                    break
                serve(ring, record, now)
        self._serve_timers(now)
        if not self.configuration.settled():
            self.configuration.settle(_RETURNS, now)
        return self.has_input()

    def _serve(self, ring: RingReader, record: Record, now: float) -> None:
        """Serve the ring's oldest record; the packet path may go on with those behind it."""
        if record.kind == Kind.PACKETS:
            self._transport.seal(ring, record, now)
            return
        if record.kind == Kind.DATAGRAMS:
            self._transport.open(ring, now)
            return
        counters = self.counters.inward
        counters.record_in(record.count, record.used)
        match record.kind:
            case Kind.OPENED_INITIATION:
                self._handshakes.answer_initiation(record, now)
                record.wipe()
            case Kind.HANDSHAKE_MESSAGES:
                self._handshakes.consume(record, now)
            case _:
                counters.drop(DropReason.RING_CORRUPT, record.count)
        ring.release()

    def _serve_timers(self, now: float) -> None:
        """Act on some of the schedule's entries that are due, the earliest first."""
        for _ in range(_TIMERS):
            entry = self._actions.schedule.take(now)
            if entry is None:
                return
            deadline, peer = entry
            tenant = self.configuration.get(peer, now)
            # Otherwise the peer is gone, or has an earlier entry.
            if tenant is not None and tenant.scheduled == deadline:
                tenant.scheduled = None
                self._actions.act(tenant, tenant.peer.due(now))
