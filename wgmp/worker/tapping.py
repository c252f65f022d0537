"""What a worker lets a capture see: every record it takes in, and every one it publishes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from wgmp.counters import Counters
from wgmp.protocol import messages
from wgmp.record import Kind, Record
from wgmp.ring import RingReader
from wgmp.stream import RecordStream
from wgmp.tap import NOBODY, Point, Tap
from wgmp.worker.indices import Indices

_Serve = Callable[[RingReader, Record, float], None]


class Tapping:
    """Asks the worker's tap once a step whether anybody captures, and turns the hooks on or off.

    An initiation was copied by admission, before it was opened.
    """

    def __init__(
        self,
        tap: Tap | None,
        indices: Indices,
        udp: RecordStream,
        tun: RecordStream,
        counters: Counters,
    ) -> None:
        assert tap is not None
        self._tap = tap
        self._indices = indices
        self._streams = (udp, Point.OUTER_OUT), (tun, Point.INNER_IN)
        self._counters = counters
        self._on = False

    def on(self) -> bool:
        """Return whether anybody captures; published records are copied as long as it is so."""
        if self._tap.on != self._on:
            self._on = self._tap.on
            for stream, point in self._streams:
                stream.tap = partial(self._tap.published, point=point) if self._on else None
        return self._on

    def around(self, serve: _Serve) -> _Serve:
        """Return what deals with a record as `serve` does, and copies it."""

        def serve_and_copy(ring: RingReader, record: Record, now: float) -> None:
            if record.kind == Kind.OPENED_INITIATION:
                serve(ring, record, now)
                return
            point = Point.INNER_OUT if record.kind == Kind.PACKETS else Point.OUTER_IN
            peer = record.peer if point is Point.INNER_OUT else self._peer_of(record)
            self._tap.around(lambda: serve(ring, record, now), record, point, peer, self._counters)

        return serve_and_copy

    def _peer_of(self, record: Record) -> int:
        first = record.packets()[:1]
        if not first or len(first[0]) < messages.TransportHeader.SIZE:
            return NOBODY
        return self._indices.peer(messages.receiver_index(first[0]))
