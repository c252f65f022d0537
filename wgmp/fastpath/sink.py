"""Where opened packets go: checked, coalesced where possible, into records for the TUN.

For each packet: true length, inner source, outer congestion mark; then it is written behind a
virtio header of its own, or joins the super-packet that is pending.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wgmp.fastpath import virtio
from wgmp.fastpath.checksum import Rows
from wgmp.fastpath.coalesce import (
    MAX_PACKET_BYTES,
    MAX_UDP_SEGMENTS,
    Shape,
    continues,
    groups,
    shape_of,
    super_header,
)
from wgmp.fastpath.segment import UDP
from wgmp.protocol import ecn, ip
from wgmp.protocol.outcome import DropReason
from wgmp.stream import RecordStream


class PacketSink:
    """Takes authenticated packets in order; `begin` and `flush` for those of one session.

    `memory`: where the packets lie. `owner`: tells to which peer an inner source address routes.
    `coalesce`: protocols (TCP, UDP) of which super-packets may be made; `joined`: packets in those
    that were, less the super-packets.
    """

    __slots__ = (
        "_coalesce",
        "_congestion",
        "_drops",
        "_memory",
        "_out",
        "_owner",
        "_peer",
        "_pending",
        "_view",
        "joined",
    )

    def __init__(
        self,
        memory: Rows,
        out: RecordStream,
        owner: Callable[[bytes], int | None],
        coalesce: frozenset[int],
    ) -> None:
        self._memory = memory
        self._view = memory.data
        self._out = out
        self._owner = owner
        self._coalesce = coalesce
        self._pending: tuple[Rows, Shape] | None = None
        self.begin(-1, ecn.NOT_ECT, {})

    def begin(self, peer: int, congestion: int, drops: dict[DropReason, int]) -> None:
        """Take packets of another session, the `peer`'s.

        `congestion`: the outer ECN field of all of them. `drops` is counted into; reasons begin at
        0 there.
        """
        self._peer = peer
        self._congestion = congestion if congestion in ecn.MARKING else ecn.NOT_ECT
        self._drops = drops
        self.joined = 0

    def add(self, start: int, count: int, length: int) -> None:
        """Take `count` packets of one padded `length`, which lie in the memory from `start` on.

        They must stay there until `flush`.
        """
        if count == 1 and self._pending is None:
            self._write(self._view[start : start + length])
            return
        if self._pending is not None and self._append_tail(start, length):
            start, count = start + length, count - 1
        self.flush()
        # A mark may change each packet's header, and with it what may be put together.
        may_join = count > 1 and self._coalesce and self._congestion == ecn.NOT_ECT
        shape = self._shape(start, length) if may_join else None
        if shape is None:
            self._write_each(start, count, length)
            return
        size = shape[1]
        rows = self._memory[start : start + count * length].reshape(count, length)[:, :size]
        for first, last in groups(rows, shape[0]):
            self.flush()
            if last - first > 1:
                self._pending = rows[first:last], shape[0]
            else:
                self._write_each(start + first * length, 1, length)

    def _shape(self, start: int, length: int) -> tuple[Shape, int] | None:
        """Return the first packet's headers and true length, if it may be coalesced."""
        padded = self._view[start : start + length]
        size = ip.true_length(padded)
        if size is None:
            return None
        shape = shape_of(padded[:size])
        if shape is None or shape.protocol not in self._coalesce:
            return None
        return shape, size

    def flush(self) -> None:
        """Write the super-packet that is pending, if there is one."""
        if self._pending is not None:
            self._write_super(*self._pending, None)
            self._pending = None

    def _append_tail(self, start: int, length: int) -> bool:
        """End the pending super-packet with a shorter packet, if that continues it."""
        assert self._pending is not None
        rows, shape = self._pending
        padded = self._view[start : start + length]
        size = ip.true_length(padded)
        if size is None or not continues(rows, padded[:size], shape):
            return False
        count, step = rows.shape
        if count * (step - shape.end) + size > MAX_PACKET_BYTES:
            return False
        if shape.protocol == UDP and count >= MAX_UDP_SEGMENTS:
            return False
        self._write_super(rows, shape, padded[:size])
        self._pending = None
        return True

    def _write_super(self, rows: Rows, shape: Shape, tail: memoryview | None) -> None:
        count, length = rows.shape
        source = rows[0, 12:16] if shape.version == 4 else rows[0, 8:24]
        packets = count + (tail is not None)
        if self._owner(source.tobytes()) != self._peer:
            self._drops[DropReason.SOURCE_NOT_ALLOWED] += packets
            return
        header = super_header(rows, tail, shape)
        body = count * (length - shape.end)
        rest = b"" if tail is None else tail[shape.end :]
        size = len(header) + body + len(rest)
        record = self._out.room(size)
        if record is None:
            self._drops[DropReason.RING_FULL] += packets
            return
        payload, at = record.payload, record.used
        payload[at : at + len(header)] = header
        at += len(header)
        target = np.frombuffer(payload[at : at + body], np.uint8)
        target.reshape(count, length - shape.end)[:] = rows[:, shape.end :]
        payload[at + body : at + body + len(rest)] = rest
        record.commit(size)
        self.joined += packets - 1

    def _write_each(self, start: int, count: int, length: int) -> None:
        view = self._view
        for at in range(start, start + count * length, length):
            self._write(view[at : at + length])

    def _write(self, padded: memoryview) -> None:
        length, source = ip.true_length(padded), ip.source(padded)
        if length is None or isinstance(source, DropReason):
            self._drops[DropReason.BAD_PACKET] += 1
            return
        if self._owner(source) != self._peer:
            self._drops[DropReason.SOURCE_NOT_ALLOWED] += 1
            return
        packet: memoryview | bytes = padded[:length]
        if self._congestion != ecn.NOT_ECT:
            marked = ecn.decapsulate(bytes(packet), self._congestion)
            if marked is None:
                self._drops[DropReason.CONGESTION_NOT_ECT] += 1
                return
            packet = marked
        record = self._out.room(virtio.SIZE + length)
        if record is None:
            self._drops[DropReason.RING_FULL] += 1
            return
        body = record.used + virtio.SIZE
        record.payload[record.used : body] = virtio.PLAIN
        record.payload[body : body + length] = packet
        record.commit(virtio.SIZE + length)
