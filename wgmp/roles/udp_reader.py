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

from wgmp.counters import Counter, Counters
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


class _OpenRecord:
    """The record of one ring that is being filled: datagrams of one kind, endpoint and flags."""

    __slots__ = ("_counters", "_endpoint", "_kind", "_record", "_ring")

    def __init__(self, ring: RingWriter, counters: Counters) -> None:
        self._ring = ring
        self._counters = counters
        self._record: Record | None = None
        self._kind = Kind.DATAGRAMS
        self._endpoint: Endpoint | None = None

    def append(self, datagram: memoryview, endpoint: Endpoint, kind: Kind, flags: int) -> bool:
        """Add a datagram, to a new record where it must; return False when the ring is full."""
        record = self._record
        if (
            record is None
            or kind is not self._kind
            # The receiver hands out one object per endpoint; equal ones are a rare second.
            or (endpoint is not self._endpoint and endpoint != self._endpoint)
            or flags != record.flags
            or not record.fits(len(datagram))
        ):
            self.publish()
            record = self._record = self._ring.reserve()
            if record is None:
                return False
            self._kind, self._endpoint = kind, endpoint
            record.begin(kind, flags=flags)
            record.set_endpoint(endpoint)
        record.append(datagram)
        return True

    def publish(self) -> None:
        """Hand the record on, if there is one."""
        record = self._record
        if record is None:
            return
        self._record = None
        self._counters.add(Counter.RECORDS_OUT)
        self._counters.add(Counter.PACKETS_OUT, record.count)
        self._counters.add(Counter.BYTES_OUT, record.used)
        self._ring.publish()


class UdpReader(Role):
    """Receives. Each drop is counted: bad type or length, truncated, unknown index, ring full."""

    def __init__(self, context: RoleContext) -> None:
        super().__init__(context)
        self._sockets = context.sockets
        self._peers = context.peers
        self._indices = context.indices
        self._open = {
            name: _OpenRecord(ring, self.counters) for name, ring in context.outputs.items()
        }
        self._admission = self._open["admission"]
        self._workers = [self._open[f"worker{n}"] for n in range(context.workers)]
        self._receiver = Receiver()
        self._buffer = memoryview(bytearray(MAX_DATAGRAM_BYTES))

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
        for record in self._open.values():
            record.publish()
        return True

    def _drain(self, sock: socket.socket) -> None:
        count = received_bytes = 0
        while count < _BURST:
            received = self._receiver.receive(sock, self._buffer)
            if received is None:
                break
            length, endpoint, congestion = received
            count += 1
            received_bytes += length
            if endpoint is None:
                self.counters.drop(DropReason.TRUNCATED)
            else:
                self._take(self._buffer[:length], endpoint, congestion)
        else:
            self.readable = True  # there may be more
        self.counters.add(Counter.PACKETS_IN, count)
        self.counters.add(Counter.BYTES_IN, received_bytes)

    def _take(self, datagram: memoryview, endpoint: Endpoint, congestion: int) -> None:
        """Find one datagram's ring and append it to the record of its endpoint there."""
        kind = messages.message_type(datagram)
        if isinstance(kind, DropReason):
            self.counters.drop(kind)
            return
        target, sort, flags = self._admission, Kind.HANDSHAKE_MESSAGES, 0
        if kind is not MessageType.INITIATION and kind is not MessageType.RESPONSE:
            row = self._indices.row(messages.receiver_index(datagram))
            if row is None:
                self.counters.drop(DropReason.UNKNOWN_INDEX)
                return
            target = self._workers[self._peers.owner(row)]
            if kind is MessageType.TRANSPORT:
                sort, flags = Kind.DATAGRAMS, ecn_flags(congestion)
        if not target.append(datagram, endpoint, sort, flags):
            self.counters.drop(DropReason.RING_FULL)
