"""udp_reader: datagrams from the UDP sockets to admission and to the workers.

1. Receive a datagram, or a train of them, straight into the record filled last.
2. Check type and size, and mac1 where there is one; anything else ends here. A sender that does
   not know our public key costs two hashes, less than handing its message on.
3. Initiations and responses go to admission; transport data and cookie replies to the worker
   that owns their receiver index.
4. Datagrams of one endpoint for one worker share a record until one of another comes, or
   nothing is left to receive. Handshake messages share one whoever they are from, so that a
   flood from many sources costs little more than one from a single source, and wait for it to
   fill for as long as admission has others to look at.

A train of one session is checked and handed on as a whole. Any other is taken apart.
"""

from __future__ import annotations

import socket

import numpy as np

from wgmp.counters import Counter
from wgmp.orders import Order, SetPrivateKey, SetSockets
from wgmp.protocol import messages
from wgmp.protocol.cookie import mac1_ok
from wgmp.protocol.messages import MessageType
from wgmp.protocol.noise import Identity
from wgmp.protocol.outcome import DropReason, Endpoint
from wgmp.record import Kind, ecn_flags, pack_endpoint
from wgmp.role import Role, RoleContext
from wgmp.stream import Intake, Label, RecordStream
from wgmp.tap import Point
from wgmp.udp import Receiver, Source

_MAX_RECEIVE_BYTES = 65_535
# A transport datagram begins with type and receiver index.
_SESSION_BYTES = 8


class UdpReader(Role):
    """Receives. Each drop is counted: bad type or length, truncated, unknown index, ring full."""

    def __init__(self, context: RoleContext) -> None:
        super().__init__(context)
        self._sockets = context.devices.sockets
        self._peers = context.peers
        self._indices = context.indices
        self._admission = RecordStream(context.outputs["admission"], self.counters)
        self._workers = [
            RecordStream(context.outputs[f"worker{n}"], self.counters)
            for n in range(context.workers)
        ]
        self._intake = Intake(self._workers, _MAX_RECEIVE_BYTES)
        self._receiver = Receiver()
        self._label = Label(Kind.DATAGRAMS)
        self._admission.start(Label(Kind.ADDRESSED_MESSAGES))
        self._mac1_key: bytes | None = None
        self._gathering = False  # messages for admission wait for more

    def descriptors(self) -> list[int]:
        """Both sockets."""
        return [sock.fileno() for sock in self._sockets]

    def obey(self, order: Order, now: float, sockets: list[socket.socket]) -> None:
        """Change over to new sockets; keep the key of mac1."""
        match order:
            case SetSockets():
                self._sockets = sockets
                self.readable = True
            case SetPrivateKey(private_key):
                self._mac1_key = Identity(private_key).mac1_key if private_key else None
            case _:
                return

    def step(self, now: float) -> bool:
        """Receive a burst from each socket into records."""
        if not self.readable:
            self._admission.flush()
            self._gathering = False
            return False
        # Which socket begins changes, so that neither starves the other.
        self._sockets = self._sockets[1:] + self._sockets[:1]
        drained = [self._drain(sock) for sock in self._sockets]
        self.readable = not all(drained)
        self._intake.flush()
        self._gathering = self._admission.waiting() > 0
        if not self._gathering:
            self._admission.flush()
        return self.readable

    def deadline(self) -> float | None:
        """At once, while messages wait for more that may not come."""
        return 0.0 if self._gathering else None

    def _drain(self, sock: socket.socket) -> bool:
        """Receive while this turn lasts; return whether nothing is left."""
        while self._intake.turn():
            received = self._receiver.receive(sock, self._intake.buffers())
            if received is None:
                return True
            length, source = received
            self.counters.add(Counter.BYTES_IN, length)
            if source is None:
                self.counters.add(Counter.PACKETS_IN)
                self.counters.drop(DropReason.BAD_LENGTH)
            else:
                self._take(self._intake.view(length), source)
        return False

    def _take(self, datagrams: memoryview, source: Source) -> None:
        """Hand on what one call received: a datagram, or a train of `source.segment` each."""
        size, total = source.segment, len(datagrams)
        if not 0 < size < total:
            self.counters.add(Counter.PACKETS_IN)
            self._put(datagrams, source, [total])
            return
        lengths = [size] * (total // size)
        if total % size:
            lengths.append(total % size)
        self.counters.add(Counter.TRAINS_IN)
        self.counters.add(Counter.PACKETS_IN, len(lengths))
        if _is_one_session(datagrams, lengths):
            self._put(datagrams, source, lengths)
            return
        apart = memoryview(bytes(datagrams))
        for number, length in enumerate(lengths):
            self._put(apart[number * size : number * size + length], source, [length])

    def _put(self, datagrams: memoryview, source: Source, lengths: list[int]) -> None:
        """Put a datagram, or a train of one session, into the record where it belongs."""
        first = datagrams[: lengths[0]]
        kind = messages.message_type(first)
        if isinstance(kind, DropReason):
            self._drop(kind, datagrams, lengths, source)
            return
        if kind is MessageType.INITIATION or kind is MessageType.RESPONSE:
            self._knock(datagrams, source)
            return
        row = self._indices.row(messages.receiver_index(first))
        if row is None:
            self._drop(DropReason.UNKNOWN_INDEX, datagrams, lengths, source)
            return
        stream = self._workers[self._peers.owner(row)]
        if kind is MessageType.TRANSPORT:
            label = self._labelled(Kind.DATAGRAMS, source, ecn_flags(source.congestion))
        else:
            label = self._labelled(Kind.HANDSHAKE_MESSAGES, source, 0)
        self._intake.put(stream, label, datagrams, lengths)

    def _knock(self, message: memoryview, source: Source) -> None:
        """Hand an initiation or a response to admission, if its mac1 is for us."""
        if self._mac1_key is None:
            self._drop(DropReason.NO_IDENTITY, message, [len(message)], source)
        elif not mac1_ok(self._mac1_key, message):
            self._drop(DropReason.BAD_MAC1, message, [len(message)], source)
        else:
            addressed = b"".join((pack_endpoint(source.endpoint), message))
            self._admission.append(addressed, [len(addressed)])

    def _drop(
        self, reason: DropReason, datagrams: memoryview, lengths: list[int], source: Source
    ) -> None:
        """Count datagrams that go no further, and let a capture see them."""
        self.counters.drop(reason, len(lengths))
        if self.tap is not None and self.tap.on:
            place = Kind.DATAGRAMS, datagrams, lengths, Point.OUTER_IN
            self.tap.packets(*place, endpoint=source.endpoint, reason=reason)

    def _labelled(self, kind: Kind, source: Source, flags: int) -> Label:
        """Return the label; the same one as before where nothing has changed."""
        last = self._label
        endpoint: Endpoint = source.endpoint
        if last.kind is not kind or last.flags != flags or last.endpoint is not endpoint:
            self._label = Label(kind, 0, flags, endpoint)
        return self._label


def _is_one_session(datagrams: memoryview, lengths: list[int]) -> bool:
    """Return whether a train is transport data of one receiver index throughout."""
    first = bytes(datagrams[:_SESSION_BYTES])
    if messages.message_type(datagrams[: lengths[0]]) is not MessageType.TRANSPORT:
        return False
    size, last = lengths[0], lengths[-1]
    whole = len(lengths) - (last != size)
    heads = np.frombuffer(datagrams, np.uint8, whole * size).reshape(whole, size)
    if not (heads[:, :_SESSION_BYTES] == np.frombuffer(first, np.uint8)).all():
        return False
    tail = datagrams[whole * size :]
    return not len(tail) or (
        bytes(tail[:_SESSION_BYTES]) == first
        and messages.message_type(tail) is MessageType.TRANSPORT
    )
