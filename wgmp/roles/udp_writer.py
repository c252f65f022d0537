"""udp_writer: sealed datagrams from the workers, and admission's cookie replies, to the network."""

from __future__ import annotations

import socket

from wgmp.counters import Counter
from wgmp.events import OffloadDisabled
from wgmp.orders import ForgetSources, Order, SetSockets
from wgmp.protocol.constants import HANDSHAKE_TRAFFIC_CLASS
from wgmp.protocol.outcome import DropReason, Endpoint
from wgmp.record import HANDSHAKE, Record
from wgmp.role import Role, RoleContext
from wgmp.udp import Sender, TrainRefusedError

# Records sent from one ring in one step.
_BURST = 16


class UdpWriter(Role):
    """Sends. A datagram that the network refuses is counted as SEND_FAILED."""

    def __init__(self, context: RoleContext) -> None:
        super().__init__(context)
        self._segments = context.devices.offloads.udp_segment
        self._blocked: int | None = None
        self._sent = 0  # datagrams of the first waiting record that are on their way already
        self._use(context.devices.sockets)

    def blocked_on(self) -> int | None:
        """The socket whose send buffer is full."""
        return self._blocked

    def obey(self, order: Order, now: float, sockets: list[socket.socket]) -> None:
        """Change over to new sockets, or to other paths."""
        if isinstance(order, SetSockets):
            self._use(sockets)
        elif isinstance(order, ForgetSources):
            self._sender.forget_paths()

    def step(self, now: float) -> bool:
        """Send some records of each ring, until the socket takes no more."""
        self._blocked = None
        for ring in self.inputs:
            for _ in range(_BURST):
                record = ring.peek()
                if record is None:
                    break
                self._send(record)
                if self._blocked is not None:
                    # Its place in the rotation stays, so that `_sent` speaks of this record.
                    self.inputs.remove(ring)
                    self.inputs.insert(0, ring)
                    return False
                ring.release()
        return self.has_input()

    def _use(self, sockets: list[socket.socket]) -> None:
        self._sender = Sender(sockets, self._segments)
        self._blocked = None
        self.counters.store(Counter.UDP_SEGMENT, self._segments)

    def _send(self, record: Record) -> None:
        """Send a record's datagrams from the first unsent one on; stop where it must wait."""
        endpoint = record.endpoint()
        if endpoint is None:
            self._count_in(record)
            self.counters.drop(DropReason.NO_ENDPOINT, record.count)
            return
        traffic_class = HANDSHAKE_TRAFFIC_CLASS if record.flags & HANDSHAKE else record.ecn
        for datagrams, length, count in record.trains(self._sent):
            if count > 1 and self._send_train(datagrams, length, count, endpoint, traffic_class):
                if self._blocked is not None:
                    return
                continue
            for at in range(0, len(datagrams), max(1, length)):
                self._send_one(datagrams[at : at + length], endpoint, traffic_class)
                if self._blocked is not None:
                    return
        self._sent = 0
        self._count_in(record)

    def _send_train(
        self, train: memoryview, length: int, count: int, endpoint: Endpoint, traffic_class: int
    ) -> bool:
        """Send a train in one call; return False when its datagrams have to go one by one."""
        if not self._sender.takes_trains(endpoint):
            return False
        try:
            self._blocked = self._sender.send(train, endpoint, traffic_class, length)
        except TrainRefusedError as error:
            if self._segments and not self._sender.segments:
                self._segments = False
                self.counters.store(Counter.UDP_SEGMENT, 0)
                self.emit(OffloadDisabled(offload="udp_segment", reason=str(error.strerror)))
            return False
        except OSError:
            self.counters.drop(DropReason.SEND_FAILED, count)
            self._sent += count
            return True
        if self._blocked is None:
            self._count(count, len(train))
        return True

    def _send_one(self, datagram: memoryview, endpoint: Endpoint, traffic_class: int) -> None:
        try:
            self._blocked = self._sender.send(datagram, endpoint, traffic_class)
        except OSError:
            self.counters.drop(DropReason.SEND_FAILED)
            self._sent += 1
            return
        if self._blocked is None:
            self._count(1, len(datagram))

    def _count_in(self, record: Record) -> None:
        self.counters.add(Counter.RECORDS_IN)
        self.counters.add(Counter.PACKETS_IN, record.count)
        self.counters.add(Counter.BYTES_IN, record.used)

    def _count(self, datagrams: int, length: int) -> None:
        self._sent += datagrams
        self.counters.add(Counter.PACKETS_OUT, datagrams)
        self.counters.add(Counter.BYTES_OUT, length)
