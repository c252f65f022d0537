"""udp_writer: sealed datagrams from the workers, and admission's cookie replies, to the network."""

from __future__ import annotations

import socket

from wgmp.counters import Counter
from wgmp.orders import Order, SetSockets
from wgmp.protocol.constants import HANDSHAKE_TRAFFIC_CLASS
from wgmp.protocol.outcome import DropReason
from wgmp.record import HANDSHAKE, Record
from wgmp.role import Role, RoleContext
from wgmp.udp import Sender

# Records sent from one ring in one step.
_BURST = 8


class UdpWriter(Role):
    """Sends. A datagram that the network refuses is counted as SEND_FAILED."""

    def __init__(self, context: RoleContext) -> None:
        super().__init__(context)
        self._sender = Sender(context.sockets)
        self._blocked: int | None = None
        self._sent = 0  # datagrams of the first waiting record that are on their way already

    def blocked_on(self) -> int | None:
        """The socket whose send buffer is full."""
        return self._blocked

    def obey(self, order: Order, now: float, sockets: list[socket.socket]) -> None:
        """Change over to new sockets."""
        if isinstance(order, SetSockets):
            self._sender = Sender(sockets)
            self._blocked = None

    def step(self, now: float) -> bool:
        """Send some records of each ring, until the socket takes no more."""
        self._blocked = None
        busy = False
        for ring in self.inputs:
            for _ in range(_BURST):
                record = ring.peek()
                if record is None:
                    break
                busy = True
                self._send(record)
                if self._blocked is not None:
                    # Its place in the rotation stays, so that `_sent` speaks of this record.
                    self.inputs.remove(ring)
                    self.inputs.insert(0, ring)
                    return False
                ring.release()
        return busy

    def _send(self, record: Record) -> None:
        """Send a record's datagrams from the first unsent one on; stop where it must wait."""
        endpoint = record.endpoint()
        packets = record.packets()
        if endpoint is None:
            self.counters.drop(DropReason.NO_ENDPOINT, len(packets))
            return
        traffic_class = HANDSHAKE_TRAFFIC_CLASS if record.flags & HANDSHAKE else record.ecn
        for datagram in packets[self._sent :]:
            try:
                self._blocked = self._sender.send(datagram, endpoint, traffic_class)
            except OSError:
                self.counters.drop(DropReason.SEND_FAILED)
            else:
                if self._blocked is not None:
                    return
                self.counters.add(Counter.PACKETS_OUT)
                self.counters.add(Counter.BYTES_OUT, len(datagram))
            self._sent += 1
        self._sent = 0
        self.counters.add(Counter.RECORDS_IN)
        self.counters.add(Counter.PACKETS_IN, len(packets))
        self.counters.add(Counter.BYTES_IN, record.used)
