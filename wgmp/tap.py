"""Taps: copies of records for `wgmp capture`, from roles that have packets in their hands.

Each such role has a ring of its own for them, made before the fork; its memory is untouched until
somebody captures, and given back afterwards. One word says whether anybody does, and what: a role
looks at it once per record or less, and never sees half of a change. A ring that is full loses the
copy and counts it, as any ring does.

| word of the control segment | | written by |
|---|---|---|
| 0 | what is wanted: the sum of `INNER`, `OUTER`, `SECRETS`; 0 is nothing | the supervisor |
| 0, above 3 bits | the peer id to copy and no other, plus 1; 0 for all | the supervisor |
| 8 | 0: the reader of the rings is never woken, it comes by itself | nobody |

A copy is a record with its `Annotation` in the header. What was dropped of it is known once the
role has dealt with it, so that is when it is copied, with the time at which it came.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from enum import IntEnum, unique
from typing import NamedTuple

from wgmp.counters import Counters
from wgmp.protocol.outcome import DropReason, Endpoint
from wgmp.record import MAX_PACKETS, SLOT_BYTES, Kind, Record
from wgmp.ring import Doorbell, RingReader, RingWriter, create_ring
from wgmp.shm import PAGE_BYTES, Segment

INNER = 1
OUTER = 2
SECRETS = 4

_WANTED, _ASLEEP = 0, 8
_SIDE_BITS = 3
_SLOTS = 128

NOBODY = -1


@unique
class Point(IntEnum):
    """Where packets were copied, and which way they went."""

    INNER_OUT = 0  # from the TUN
    INNER_IN = 1  # to the TUN
    OUTER_OUT = 2  # to the network
    OUTER_IN = 3  # from the network
    SECRET = 4  # no packet but an ephemeral private key, for the key log that was asked for

    @property
    def side(self) -> int:
        """Return what must be wanted: INNER, OUTER or SECRETS."""
        return (INNER, INNER, OUTER, OUTER, SECRETS)[self]


class Annotation(NamedTuple):
    """What a copy's header says of it.

    `time_ns`: Unix time; `reason`: of the most drops among its packets, 0 without; `dropped`:
    how many of its packets were; `peer`: peer id, NOBODY when not known.
    """

    time_ns: int
    point: Point
    reason: int
    dropped: int
    peer: int

    @classmethod
    def of(cls, record: Record) -> Annotation:
        """Read it. Raises ValueError when the record has none that makes sense."""
        time_ns, point, reason, dropped, peer = record.annotation()
        return cls(time_ns, Point(point), reason, dropped, peer - 1)

    def write(self, record: Record) -> None:
        """Write it. A peer id of all ones, which rubbish in a ring may have, is nobody's."""
        peer = self.peer + 1 & 0xFFFF_FFFF_FFFF_FFFF
        record.annotate(self.time_ns, self.point, self.reason, self.dropped, peer)


class _Seen(NamedTuple):
    """A record's packets."""

    kind: Kind
    packets: bytes | memoryview
    lengths: list[int]
    endpoint: Endpoint | None
    flags: int

    @classmethod
    def of(cls, record: Record) -> _Seen:
        packets = bytes(record.payload[: record.used])
        return cls(Kind(record.kind), packets, record.lengths(), record.endpoint(), record.flags)


class Tap:
    """One role's tap."""

    __slots__ = ("_bell", "_ring", "_segment", "_words")

    def __init__(self, words: memoryview, bell: Doorbell, segment: Segment) -> None:
        self._words = words
        self._bell = bell
        self._segment = segment
        self._ring: RingWriter | None = None

    @property
    def word(self) -> memoryview:
        """The word, of format "Q", that is not 0 while anybody captures."""
        return self._words[_WANTED : _WANTED + 1]

    @property
    def on(self) -> bool:
        """Whether anybody captures."""
        return self._words[_WANTED] != 0

    def wants(self, point: Point, peer: int) -> bool:
        """Return whether packets of this peer are wanted from there."""
        wanted = self._words[_WANTED]
        return bool(wanted & point.side) and wanted >> _SIDE_BITS in (0, peer + 1)

    def around(
        self,
        serve: Callable[[], None],
        record: Record,
        point: Point,
        peer: int,
        counters: Counters,
    ) -> None:
        """Let `serve` deal with a record of its input, then copy it with what was dropped of it."""
        if not self.wants(point, peer):
            serve()
            return
        at = time.time_ns()
        before = counters.drops()
        # Once served, its slot is the producer's again.
        seen = _Seen.of(record)
        serve()
        after = counters.drops().items()
        drops = {name: count - before.get(name, 0) for name, count in after}
        total = sum(drops.values())
        reason = DropReason[max(drops, key=drops.__getitem__).upper()] if total else 0
        self._put(seen, Annotation(at, point, reason, total, peer))

    def published(self, record: Record, point: Point) -> None:
        """Copy a record that the role is about to publish."""
        if self.wants(point, record.peer):
            self._put(_Seen.of(record), Annotation(time.time_ns(), point, 0, 0, record.peer))

    def packets(
        self,
        kind: Kind,
        packets: bytes | memoryview,
        lengths: list[int],
        point: Point,
        *,
        peer: int = NOBODY,
        endpoint: Endpoint | None = None,
        reason: int = 0,
    ) -> None:
        """Copy packets that lie one behind the other, all of them dropped if there is a reason."""
        if self.wants(point, peer):
            dropped = len(lengths) if reason else 0
            note = Annotation(time.time_ns(), point, reason, dropped, peer)
            self._put(_Seen(kind, packets, lengths, endpoint, 0), note)

    def secret(self, key: bytes, peer: int) -> None:
        """Give an ephemeral private key to a key log, if there is one."""
        self.packets(Kind.HANDSHAKE_MESSAGES, key, [len(key)], Point.SECRET, peer=peer)

    def _put(self, seen: _Seen, note: Annotation) -> None:
        """Copy what was seen, or lose it."""
        kind, packets, lengths, endpoint, flags = seen
        if self._ring is None:
            self._ring = RingWriter(self._segment, self._bell)
        copy = self._ring.reserve()
        if copy is None or len(packets) > copy.bytes_left() or len(lengths) > MAX_PACKETS:
            return
        copy.begin(kind, 0, flags)
        if endpoint is not None:
            copy.set_endpoint(endpoint)
        copy.payload[: len(packets)] = packets
        copy.commit_all(lengths)
        note.write(copy)
        self._ring.publish()


class Taps:
    """The taps of one gateway. Made before the fork; `start` and `stop` are the supervisor's."""

    def __init__(self, roles: Sequence[str]) -> None:
        """Make them. Raises OSError, and leaves nothing open then."""
        control = Segment("taps", PAGE_BYTES)
        self._words = control.words
        self._bell = Doorbell(control, _ASLEEP)
        self.rings: dict[str, Segment] = {}
        try:
            for role in roles:
                self.rings[role] = create_ring(f"tap:{role}", _SLOTS, SLOT_BYTES, shared=True)
        except OSError:
            self.close()
            raise

    def tap(self, role: str) -> Tap | None:
        """Return the role's tap; None for a role that has none."""
        segment = self.rings.get(role)
        return None if segment is None else Tap(self._words, self._bell, segment)

    @property
    def busy(self) -> bool:
        """Whether somebody captures already."""
        return self._words[_WANTED] != 0

    def start(self, wanted: int, peer: int) -> list[int]:
        """Let copies be made; return the descriptors of the rings' memory, in order.

        `wanted`: the sum of INNER, OUTER, SECRETS; `peer`: a peer id, NOBODY for all.
        """
        for segment in self.rings.values():
            left_over = RingReader(segment)
            while left_over.waiting():
                left_over.release()
        self._words[_WANTED] = peer + 1 << _SIDE_BITS | wanted
        return [segment.descriptor for segment in self.rings.values()]

    def close(self) -> None:
        """No role writes to them any more: close what would be handed out."""
        self._bell.close()
        for segment in self.rings.values():
            os.close(segment.descriptor)

    def stop(self, read_on: bool = False) -> None:
        """Make no more copies, and give the memory back unless it is still `read_on`."""
        self._words[_WANTED] = 0
        for segment in () if read_on else self.rings.values():
            segment.discard(PAGE_BYTES)
