"""udp_reader: datagrams from the UDP sockets to admission and to the workers.

1. Receive a datagram, with where it came from.
2. Check type and size; anything else ends here.
3. Initiations and responses go to admission; transport data and cookie replies to the worker
   that owns their receiver index.
4. Datagrams of one endpoint and ECN field for one worker share a record until one of another
   comes, or nothing is left to receive.
"""

from __future__ import annotations

import socket

from wgmp.counters import Counter
from wgmp.orders import Order, SetSockets
from wgmp.protocol import messages
from wgmp.protocol.messages import MessageType
from wgmp.protocol.outcome import DropReason, Endpoint
from wgmp.record import Kind, Record, ecn_flags
from wgmp.ring import RingWriter
from wgmp.role import Role, RoleContext
from wgmp.udp import MAX_DATAGRAM_BYTES, Receiver

# Datagrams received from one socket in one step.
_BURST = 64


class UdpReader(Role):
    """Receives. Each drop is counted: bad type or length, truncated, unknown index, ring full."""

    def __init__(self, context: RoleContext) -> None:
        super().__init__(context)
        self._sockets = context.sockets
        self._peers = context.peers
        self._indices = context.indices
        self._admission = context.outputs["admission"]
        self._workers = [context.outputs[f"worker{n}"] for n in range(context.workers)]
        self._receiver = Receiver()
        self._buffer = memoryview(bytearray(MAX_DATAGRAM_BYTES))
        self._record: Record | None = None  # the open record, of one ring, kind and endpoint
        self._ring: RingWriter | None = None
        self._kind = Kind.DATAGRAMS
        self._endpoint: Endpoint | None = None

    def descriptors(self) -> list[int]:
        """Both sockets."""
        return [sock.fileno() for sock in self._sockets]

    def obey(self, order: Order, now: float, sockets: list[socket.socket]) -> None:
        """Change over to new sockets."""
        if isinstance(order, SetSockets):
            self._sockets = sockets
            self.readable = True

    def step(self, now: float) -> bool:
        """Receive a burst from each socket into records."""
        if not self.readable:
            return False
        self.readable = False
        for sock in self._sockets:
            self._drain(sock)
        self._publish()
        return True

    def _drain(self, sock: socket.socket) -> None:
        for _ in range(_BURST):
            received = self._receiver.receive(sock, self._buffer)
            if received is None:
                return
            length, endpoint, congestion = received
            self.counters.add(Counter.PACKETS_IN)
            self.counters.add(Counter.BYTES_IN, length)
            if endpoint is None:
                self.counters.drop(DropReason.TRUNCATED)
            else:
                self._take(self._buffer[:length], endpoint, congestion)
        self.readable = True  # there may be more

    def _take(self, datagram: memoryview, endpoint: Endpoint, congestion: int) -> None:
        """Find one datagram's ring and append it to the record of its endpoint there."""
        kind = messages.message_type(datagram)
        if isinstance(kind, DropReason):
            self.counters.drop(kind)
            return
        if kind in (MessageType.INITIATION, MessageType.RESPONSE):
            self._append(datagram, endpoint, self._admission, Kind.HANDSHAKE_MESSAGES, 0)
            return
        row = self._indices.row(messages.receiver_index(datagram))
        if row is None:
            self.counters.drop(DropReason.UNKNOWN_INDEX)
            return
        ring = self._workers[self._peers.owner(row)]
        if kind is MessageType.TRANSPORT:
            flags = ecn_flags(congestion)
            self._append(datagram, endpoint, ring, Kind.DATAGRAMS, flags)
        else:
            self._append(datagram, endpoint, ring, Kind.HANDSHAKE_MESSAGES, 0)

    def _append(
        self, datagram: memoryview, endpoint: Endpoint, ring: RingWriter, kind: Kind, flags: int
    ) -> None:
        record = self._record
        if (
            record is None
            or ring is not self._ring
            or kind is not self._kind
            or flags != record.flags
            or endpoint != self._endpoint
            or not record.fits(len(datagram))
        ):
            self._publish()
            record = self._record = ring.reserve()
            if record is None:
                self.counters.drop(DropReason.RING_FULL)
                return
            self._ring, self._kind, self._endpoint = ring, kind, endpoint
            record.begin(kind, flags=flags)
            record.set_endpoint(endpoint)
        record.append(datagram)

    def _publish(self) -> None:
        record, ring = self._record, self._ring
        self._record = None
        if record is None or ring is None:
            return
        self.counters.add(Counter.RECORDS_OUT)
        self.counters.add(Counter.PACKETS_OUT, record.count)
        self.counters.add(Counter.BYTES_OUT, record.used)
        ring.publish()
