"""A stream of records into one ring: opened when needed, published when full or flushed.

Everything that fills rings does it through a stream, so that one place decides when a record
is full and counts what went out.
"""

from __future__ import annotations

from wgmp.counters import Counter, Counters
from wgmp.protocol.outcome import DropReason, Endpoint
from wgmp.record import MAX_PACKETS, Kind, Record
from wgmp.ring import RingWriter


class RecordStream:
    """Records of one role for one ring. What `start` says holds for all records until the next.

    `sent_packets`, `sent_bytes`: what was published since `start`.
    """

    __slots__ = (
        "_counters",
        "_endpoint",
        "_flags",
        "_kind",
        "_peer",
        "_record",
        "_ring",
        "sent_bytes",
        "sent_packets",
    )

    def __init__(self, ring: RingWriter, counters: Counters) -> None:
        self._ring = ring
        self._counters = counters
        self._record: Record | None = None
        self._kind = Kind.PACKETS
        self._peer = 0
        self._flags = 0
        self._endpoint: Endpoint | None = None
        self.sent_packets = 0
        self.sent_bytes = 0

    def start(
        self, kind: Kind, peer: int = 0, flags: int = 0, endpoint: Endpoint | None = None
    ) -> None:
        """Publish what is open; the records to come are of this kind, peer, flags, endpoint."""
        self.flush()
        self._kind, self._peer, self._flags, self._endpoint = kind, peer, flags, endpoint
        self.sent_packets = 0
        self.sent_bytes = 0

    def room(self, length: int) -> Record | None:
        """Return the open record with room for one more packet of `length` bytes, or None.

        None means that the ring is full; nothing is open then, and the caller drops and counts.
        """
        record = self._record
        if record is not None:
            if record.count < MAX_PACKETS and record.used + length <= len(record.payload):
                return record
            self.flush()
        record = self._ring.reserve()
        if record is not None:
            record.begin(self._kind, self._peer, self._flags)
            if self._endpoint is not None:
                record.set_endpoint(self._endpoint)
            self._record = record
        return record

    def append(self, packet: bytes | memoryview) -> bool:
        """Copy one packet in; on a full ring count a drop and return False."""
        record = self.room(len(packet))
        if record is None:
            self._counters.drop(DropReason.RING_FULL)
            return False
        record.append(packet)
        return True

    def flush(self) -> None:
        """Publish the open record, unless it is empty."""
        record, self._record = self._record, None
        if record is None or not record.count:
            return
        self._counters.add(Counter.RECORDS_OUT)
        self._counters.add(Counter.PACKETS_OUT, record.count)
        self._counters.add(Counter.BYTES_OUT, record.used)
        self.sent_packets += record.count
        self.sent_bytes += record.used
        self._ring.publish()
