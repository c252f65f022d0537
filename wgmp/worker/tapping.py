"""What a worker lets a capture see: every record it takes in, and every one it publishes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from wgmp.counters import Counters
from wgmp.protocol import messages
from wgmp.protocol.messages import MessageType
from wgmp.record import Kind, Record
from wgmp.ring import RingReader
from wgmp.stream import RecordStream
from wgmp.tap import NOBODY, Point, Tap
from wgmp.worker.indices import Indices

_Serve = Callable[[RingReader, Record, float], None]

# All else in a ring is rubbish, or an initiation, which admission has copied.
_COPIED = frozenset({Kind.PACKETS, Kind.DATAGRAMS, Kind.HANDSHAKE_MESSAGES})
_WITH_RECEIVER = frozenset({MessageType.TRANSPORT, MessageType.RESPONSE, MessageType.COOKIE_REPLY})


class Tapping:
    """Asks the worker's tap once a step whether anybody captures, and turns the hooks on or off."""

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
            if record.kind not in _COPIED:
                serve(ring, record, now)
                return
            point = Point.INNER_OUT if record.kind == Kind.PACKETS else Point.OUTER_IN
            peer = record.peer if point is Point.INNER_OUT else self._peer_of(record)
            self._tap.around(lambda: serve(ring, record, now), record, point, peer, self._counters)

        return serve_and_copy

    def _peer_of(self, record: Record) -> int:
        for first in record.packets()[:1]:
            if messages.message_type(first) in _WITH_RECEIVER:
                return self._indices.peer(messages.receiver_index(first))
        return NOBODY
