"""The reference fast path at the UDP sockets: datagrams in, sorted into records; records out.

A datagram, or a train of them, is received straight into the record filled last. Datagrams of one
endpoint for one worker share a record until one of another comes. A train of one session is
checked and handed on as a whole; any other is taken apart.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from itertools import repeat
from typing import Final

from wgmp.counters import Block, Counter
from wgmp.datagrams import Receiver, Sender, Source
from wgmp.fastpath.interface import Admit
from wgmp.offload import TrainRefusedError
from wgmp.peertable import IndexTable, PeerTable
from wgmp.protocol import messages
from wgmp.protocol.constants import HANDSHAKE_TRAFFIC_CLASS
from wgmp.protocol.messages import MessageType
from wgmp.protocol.outcome import DropReason, Endpoint
from wgmp.record import HANDSHAKE, Kind, Record, ecn_flags, pack_endpoint
from wgmp.ring import RingReader, RingWriter
from wgmp.stream import Intake, Label, RecordStream

_MAX_RECEIVE_BYTES: Final = 65_535
# A transport datagram begins with type and receiver index.
_SESSION: Final = struct.Struct("8s")
# Records sent from one ring in one call.
_BURST: Final = 16

_Messages = list[tuple[bytes, bytes]]
Watch = Callable[[DropReason, "bytes | memoryview", list[int], Endpoint], None]


class DatagramIntake:
    """Receives. See `interface.DatagramIntake`. `watch` is shown what is dropped."""

    def __init__(
        self,
        workers: list[RingWriter],
        peers: PeerTable,
        indices: IndexTable,
        counters: Block,
        watch: Watch | None = None,
    ) -> None:
        self._watch = watch
        self._peers = peers
        self._indices = indices
        self._counters = counters
        self._workers = [RecordStream(ring, counters) for ring in workers]
        self._intake = Intake(self._workers, _MAX_RECEIVE_BYTES)
        self._receiver = Receiver()
        self._label = Label(Kind.DATAGRAMS)
        self._sockets: list[socket.socket] = []
        self._messages: list[tuple[bytes, Source]] = []
        self.descriptors: list[int] = []

    @property
    def has_messages(self) -> bool:
        """Whether handshake messages that came meanwhile wait for the next `burst`."""
        return bool(self._messages)

    def use(self, sockets: list[socket.socket]) -> None:
        """Receive from these sockets from now on."""
        self._sockets = sockets
        self.descriptors = [sock.fileno() for sock in sockets]

    def burst(self, admit: Admit) -> tuple[bool, _Messages]:
        """Receive a burst from each socket into records."""
        more = self.fill(self.descriptors)
        admitted: _Messages = []
        for message, source in self._messages:
            reason = admit(message)
            if reason is None:
                admitted.append((message, pack_endpoint(source.endpoint)))
            else:
                self._drop(reason, message, [len(message)], source)
        self._messages = []
        return more, admitted

    def fill(self, ready: list[int]) -> bool:
        """Do what `burst` does with these descriptors, and keep the handshake messages."""
        # Which one begins changes, so that neither starves the other.
        self._sockets = self._sockets[1:] + self._sockets[:1]
        drained = [self._drain(sock) for sock in self._sockets if sock.fileno() in ready]
        self._intake.flush()
        return not all(drained)

    def _drain(self, sock: socket.socket) -> bool:
        """Receive while this turn lasts; return whether nothing is left."""
        while self._intake.turn():
            received = self._receiver.receive(sock, self._intake.buffers())
            if received is None:
                return True
            length, source = received
            if source is None:
                self._counters.packets_in(1, length)
                self._counters.drop(DropReason.BAD_LENGTH)
            else:
                self._take(self._intake.view(length), source)
        return False

    def _take(self, datagrams: memoryview, source: Source) -> None:
        """Hand on what one call received: a datagram, or a train of `source.segment` each."""
        size, total = source.segment, len(datagrams)
        if not 0 < size < total:
            self._counters.packets_in(1, total)
            self._put(datagrams, source, [total])
            return
        lengths = [size] * (total // size)
        if total % size:
            lengths.append(total % size)
        self._counters.add(Counter.TRAINS_IN)
        self._counters.packets_in(len(lengths), total)
        if _is_one_session(datagrams, lengths):
            self._put(datagrams, source, lengths)
            return
        apart = memoryview(bytes(datagrams))
        for number, length in enumerate(lengths):
            self._put(apart[number * size : number * size + length], source, [length])

    def _put(self, datagrams: memoryview, source: Source, lengths: list[int]) -> None:
        """Put a datagram, or a train of one session, into the record where it belongs."""
        first = datagrams[: lengths[0]] if len(lengths) > 1 else datagrams
        kind = messages.message_type(first)
        if isinstance(kind, DropReason):
            self._drop(kind, datagrams, lengths, source)
            return
        if kind is not MessageType.TRANSPORT:
            self._messages.append((bytes(datagrams), source))
            return
        row = self._indices.row(messages.receiver_index(first))
        if row is None:
            self._drop(DropReason.UNKNOWN_INDEX, datagrams, lengths, source)
            return
        stream = self._workers[self._peers.owner(row)]
        self._intake.put(stream, self._labelled(source), datagrams, lengths)

    def _drop(
        self,
        reason: DropReason,
        datagrams: bytes | memoryview,
        lengths: list[int],
        source: Source,
    ) -> None:
        self._counters.drop(reason, len(lengths))
        if self._watch is not None:
            self._watch(reason, datagrams, lengths, source.endpoint)

    def _labelled(self, source: Source) -> Label:
        """Return the label; the same one as before where nothing has changed."""
        last, flags = self._label, ecn_flags(source.congestion)
        endpoint: Endpoint = source.endpoint
        if last.flags != flags or last.endpoint is not endpoint:
            self._label = Label(Kind.DATAGRAMS, 0, flags, endpoint)
        return self._label


def _is_one_session(datagrams: memoryview, lengths: list[int]) -> bool:
    """Return whether a train is transport data of one receiver index throughout."""
    size, last = lengths[0], lengths[-1]
    if last < _SESSION.size:
        return False
    # A loop that is C's.
    sessions = set(map(_SESSION.unpack_from, repeat(datagrams), range(0, len(datagrams), size)))
    return (
        len(sessions) == 1
        and messages.message_type(datagrams[:size]) is MessageType.TRANSPORT
        and messages.message_type(datagrams[-last:]) is MessageType.TRANSPORT
    )


class DatagramWriter:
    """Sends. See `interface.DatagramWriter`."""

    def __init__(self, sockets: list[socket.socket], segments: bool, counters: Block) -> None:
        self._counters = counters
        self._sender = Sender(sockets, segments)

    @property
    def segments(self) -> bool:
        """Whether trains go in one call."""
        return self._sender.segments

    def use(self, sockets: list[socket.socket]) -> None:
        """Go on with other sockets."""
        self._sender = Sender(sockets, self._sender.segments)

    def forget_paths(self) -> None:
        """Routes changed: what was too narrow for a train may be wide enough now."""
        self._sender.forget_paths()

    def burst(self, ring: RingReader) -> int | None:
        """Send some of the ring's records; return the descriptor to wait for if it is full."""
        for _ in range(_BURST):
            record = ring.peek()
            if record is None:
                break
            blocked = self._send(ring, record)
            if blocked is not None:
                return blocked
            ring.begun = 0
            self._counters.record_in(record.count, record.used)
            ring.release()
        return None

    def _send(self, ring: RingReader, record: Record) -> int | None:
        """Send a record's datagrams from the first unsent one on; return what it must wait for."""
        endpoint = record.endpoint()
        if endpoint is None:
            self._counters.drop(DropReason.NO_ENDPOINT, record.count)
            return None
        traffic_class = HANDSHAKE_TRAFFIC_CLASS if record.flags & HANDSHAKE else record.ecn
        for datagrams, length, count in record.trains(ring.begun):
            if count == 1 or self._sender.takes_trains(endpoint):
                segment = length if count > 1 else 0
                try:
                    blocked = self._send_train(
                        ring, datagrams, segment, count, endpoint, traffic_class
                    )
                except TrainRefusedError:
                    pass
                else:
                    if blocked is not None:
                        return blocked
                    continue
            for at in range(0, len(datagrams), max(1, length)):
                one = datagrams[at : at + length]
                blocked = self._send_train(ring, one, 0, 1, endpoint, traffic_class)
                if blocked is not None:
                    return blocked
        return None

    def _send_train(
        self,
        ring: RingReader,
        train: memoryview,
        length: int,
        count: int,
        endpoint: Endpoint,
        traffic_class: int,
    ) -> int | None:
        """Send a train, or one datagram of `length` 0, in one call; as `Sender.send` otherwise."""
        try:
            blocked = self._sender.send(train, endpoint, traffic_class, length)
        except TrainRefusedError:
            raise
        except OSError:
            self._counters.drop(DropReason.SEND_FAILED, count)
            ring.begun += count
            return None
        if blocked is None:
            ring.begun += count
            self._counters.packets_out(count, len(train))
        return blocked
