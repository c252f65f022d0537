"""Streams of records into rings, and reading from a descriptor straight into them.

A `RecordStream` opens records when needed and publishes them when full or flushed: one place
decides when a record is full and counts what went out. An `Intake` lets a reader receive into
the record it filled last, before it knows what comes: nearly always that is where it belongs,
and nothing is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from wgmp.counters import Block
from wgmp.protocol.outcome import DropReason, Endpoint
from wgmp.record import Kind, Record
from wgmp.ring import RingWriter


class Label(NamedTuple):
    """What the packets of one record have in common."""

    kind: Kind
    peer: int = 0
    flags: int = 0
    endpoint: Endpoint | None = None


_BLANK = Label(Kind.PACKETS)


class RecordStream:
    """Records of one role for one ring. The label set last holds for all records to come.

    `sent_packets`, `sent_bytes`: what was published since the label was set. `tap`: is shown
    each record before it is published.
    """

    __slots__ = ("_counters", "_record", "_ring", "label", "sent_bytes", "sent_packets", "tap")

    def __init__(self, ring: RingWriter, counters: Block) -> None:
        self._ring = ring
        self._counters = counters
        self._record: Record | None = None
        self.label = _BLANK
        self.sent_packets = 0
        self.sent_bytes = 0
        self.tap: Callable[[Record], None] | None = None

    def waiting(self) -> int:
        """Return how many records of the ring its consumer has not released yet."""
        return self._ring.waiting()

    def start(self, label: Label) -> None:
        """Publish what is open; the records to come have this label."""
        self.flush()
        self.label = label
        self.sent_packets = 0
        self.sent_bytes = 0
        if self._record is not None:
            self._begin(self._record)

    def room(self, length: int, packets: int = 1) -> Record | None:
        """Return the open record with room for packets of `length` bytes in all, or None.

        None means that the ring is full; the caller drops and counts. Raises nothing for what
        does not fit any record: callers keep within PAYLOAD_BYTES and MAX_PACKETS.
        """
        record = self._record
        if record is None or record.packets_left() < packets or record.bytes_left() < length:
            self.flush()
            record = self._open()
        return record

    def free(self) -> memoryview | None:
        """Return the memory behind the open record's packets, or None when the ring is full."""
        record = self._record if self._record is not None else self._open()
        return None if record is None else record.payload[record.used :]

    def accepts(self, label: Label, packets: int) -> bool:
        """Return whether `packets` that lie in `free` can be committed under this label."""
        record = self._record
        if record is None:
            return False
        if label is self.label:
            return packets <= record.packets_left()
        if not record.count and label != self.label:
            self.label = label
            self.sent_packets = self.sent_bytes = 0
            self._begin(record)
        return label == self.label and packets <= record.packets_left()

    def commit(self, lengths: list[int]) -> None:
        """Count packets that lie at the start of `free`, after `accepts` said yes."""
        assert self._record is not None
        self._record.commit_all(lengths)

    def append(self, packets: bytes | memoryview, lengths: list[int]) -> bool:
        """Copy packets in that lie one behind the other; count them as drops on a full ring."""
        record = self.room(len(packets), len(lengths))
        if record is None:
            self._counters.drop(DropReason.RING_FULL, len(lengths))
            return False
        record.payload[record.used : record.used + len(packets)] = packets
        record.commit_all(lengths)
        return True

    def flush(self) -> None:
        """Publish the open record, unless it is empty."""
        record = self._record
        if record is None or not record.count:
            return
        self._record = None
        self._counters.record_out(record.count, record.used)
        self.sent_packets += record.count
        self.sent_bytes += record.used
        if self.tap is not None:
            self.tap(record)
        self._ring.publish()

    def leave(self) -> None:
        """Publish the open record, and leave the ring to others until it is used again."""
        self.flush()
        self._record = None

    def _open(self) -> Record | None:
        if self._record is None:
            self._record = self._ring.reserve()
            if self._record is not None:
                self._begin(self._record)
        return self._record

    def _begin(self, record: Record) -> None:
        label = self.label
        record.begin(label.kind, label.peer, label.flags)
        if label.endpoint is not None:
            record.set_endpoint(label.endpoint)


# An intake's turn: it ends after so many records or reads, so that in a fused process the
# roles behind it get theirs before the rings between them are full.
_TURN_RECORDS = 4
_TURN_READS = 64

# A record with more than this in it is published at once: the next read may bring 64 KiB, and
# what does not fit behind the packets that wait would have to be copied.
_LARGE_BYTES = 8_192


class Intake:
    """Reads into the open record of the stream used last; `put` says where it belongs.

    `streams`: those to read into, by which nearly everything goes. `most_bytes`: the longest
    read. A turn is any number of cycles and a `flush`; a cycle is `buffers`, the system call,
    `view`, `put`, while `turn` lasts.
    """

    __slots__ = ("_reads", "_records", "_room", "_spill", "_stream", "_streams", "_view")

    def __init__(self, streams: Sequence[RecordStream], most_bytes: int) -> None:
        self._streams = streams
        self._stream = streams[0]
        self._spill = memoryview(bytearray(most_bytes))
        self._room = self._spill[:0]
        self._view = self._room
        self._reads = 0
        self._records = 0

    def turn(self) -> bool:
        """Return whether this turn may read once more."""
        return self._reads < _TURN_READS and self._records < _TURN_RECORDS

    def buffers(self) -> list[memoryview]:
        """Return where to read to: the record's free memory, then what is too much for it."""
        self._reads += 1
        self._room = self._stream.free() or self._spill[:0]
        return [self._room, self._spill]

    def view(self, length: int) -> memoryview:
        """Return the `length` bytes that were read, in one piece."""
        rest = length - len(self._room)
        if rest <= 0:
            self._view = self._room[:length]
        elif len(self._room):
            self._view = memoryview(bytes(self._room) + bytes(self._spill[:rest]))
        else:
            self._view = self._spill[:length]
        return self._view

    def put(
        self, stream: RecordStream, label: Label, packets: memoryview, lengths: list[int]
    ) -> None:
        """Let packets lie where they were read to, if `view` gave them whole; or move them."""
        in_place = packets is self._view and len(packets) <= len(self._room)
        if in_place and stream is self._stream and stream.accepts(label, len(lengths)):
            stream.commit(lengths)
        else:
            if label is not stream.label and label != stream.label:
                stream.start(label)
                self._records += 1
            stream.append(packets, lengths)
            if stream in self._streams:
                self._stream = stream
        if len(packets) > _LARGE_BYTES:
            stream.flush()
            self._records += 1

    def flush(self) -> None:
        """End the turn: publish what is open, for nothing waits for a record to fill.

        The slots are left, too: a role may write to the same rings between two turns.
        """
        for stream in self._streams:
            stream.leave()
        self._reads = self._records = 0
