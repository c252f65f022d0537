"""Rings: one producer, one consumer, fixed slots in shared memory, four verbs.

Writer: `reserve` a slot, fill it, `publish`. Reader: `peek` at the oldest record, use it,
`release`. A ring is also a trust boundary: its header is checked at attach, and every record's
lengths are checked against its slot at each `peek`.

| word | field | written by |
|---|---|---|
| 0..3 | magic, version, slots, slot bytes | the supervisor, before the fork |
| 8 | head: records ever published | producer |
| 9 | full: times no slot was free | producer |
| 10 | high water: most records ever waiting | producer |
| 11 | wake-ups: times the consumer had to be woken | producer |
| 16 | tail: records ever released | consumer |
| 17 | corrupt: records dropped as invalid | consumer |

Word 8 and word 16 lie on cache lines of their own. Slots follow at byte 4096. Both indices only
grow; the slot is the index modulo the number of slots, and head - tail records wait.

**Death at any instruction.** A record is in the ring from the one store of head on, and out of
it from the one store of tail on. A producer killed before the first loses the record it was
writing; a consumer killed before the second leaves the record for its successor, which sees it
again. Nothing else is held in a process, so a successor attaches and goes on.

**Sleeping.** A consumer that finds all its rings empty sets its doorbell's asleep word, fences,
looks once more, and waits for the doorbell's descriptor. A producer stores head, fences, and
strikes it only when asleep is set. One of the two always sees the other, and under load nobody
makes that system call.
"""

from __future__ import annotations

import os

from wgmp.errors import RingError
from wgmp.record import Record
from wgmp.shm import PAGE_BYTES, Segment, full_fence, keep_order
from wgmp.system import open_bell, silence, strike

MAGIC = 0x676E69725F706D77  # "wmp_ring", little-endian
VERSION = 1

SLOTS_WORD, SLOT_BYTES_WORD = 2, 3
HEAD_WORD, FULL_WORD, HIGH_WATER_WORD, WAKE_UPS_WORD = 8, 9, 10, 11
TAIL_WORD, CORRUPT_WORD = 16, 17

SLOT_ALIGNMENT = 64


class Doorbell:
    """A consuming process's bell: one asleep word (written by the consumer) and a descriptor.

    `word` is the index of the asleep word in `segment`. `descriptor` is readable once it was rung.
    Made by the supervisor before the fork.
    """

    __slots__ = ("_struck", "_words", "descriptor", "segment", "word")

    def __init__(self, segment: Segment, word: int) -> None:
        self.segment = segment
        self.word = word
        self._words = segment.words
        self.descriptor, self._struck = open_bell()

    def descriptors(self) -> set[int]:
        """Return all that a process which rings or hears it must keep open."""
        return {self.descriptor, self._struck}

    def fall_asleep(self) -> None:
        """Consumer: declare sleep. Look at every ring once more after this."""
        self._words[self.word] = 1
        full_fence()

    def wake_up(self) -> None:
        """Consumer: take the declaration back."""
        self._words[self.word] = 0

    def close(self) -> None:
        """Nobody rings or hears it any more."""
        for descriptor in self.descriptors():
            os.close(descriptor)

    def silence(self) -> None:
        """Consumer: the descriptor was reported readable; make it quiet again."""
        try:
            silence(self.descriptor)
        except BlockingIOError:
            return

    def ring(self) -> bool:
        """Producer, after publishing: wake the consumer if it sleeps; return whether it did."""
        full_fence()
        if not self._words[self.word]:
            return False
        # The word is the consumer's, so it may be rung more than once before it wakes.
        strike(self._struck, 1)
        return True


def create_ring(name: str, slots: int, slot_bytes: int, shared: bool = False) -> Segment:
    """Return a new, empty ring of `slots` slots of `slot_bytes` (a multiple of 64) each.

    `shared`: its memory can be given to other programs.
    """
    if slots < 1 or slot_bytes % SLOT_ALIGNMENT:
        raise RingError(f"ring {name}: {slots} slots of {slot_bytes} bytes cannot be laid out")
    segment = Segment(name, PAGE_BYTES + slots * slot_bytes, shared)
    segment.words[SLOTS_WORD] = slots
    segment.words[SLOT_BYTES_WORD] = slot_bytes
    segment.words[1] = VERSION
    segment.words[0] = MAGIC
    return segment


def _attach(segment: Segment) -> list[Record]:
    """Check the header against the mapping and return a Record per slot; raise RingError."""
    words = segment.words
    slots, slot_bytes = words[SLOTS_WORD], words[SLOT_BYTES_WORD]
    if words[0] != MAGIC or words[1] != VERSION:
        raise RingError(f"not a ring of version {VERSION}: magic {words[0]:#x}, version {words[1]}")
    if not slots or slot_bytes % SLOT_ALIGNMENT or PAGE_BYTES + slots * slot_bytes > segment.size:
        raise RingError(f"{slots} slots of {slot_bytes} bytes are not in {segment.size} bytes")
    starts = range(PAGE_BYTES, PAGE_BYTES + slots * slot_bytes, slot_bytes)
    return [Record(segment.bytes[start : start + slot_bytes]) for start in starts]


class RingWriter:
    """The producing end. Only one process at a time may hold it.

    Where the next record goes is read from the ring each time, so that a fast path may publish to
    the same `segment` and ring the same `doorbell` between two uses of this object.
    """

    __slots__ = ("_records", "_slots", "_words", "doorbell", "segment")

    def __init__(self, segment: Segment, doorbell: Doorbell) -> None:
        self._records = _attach(segment)
        self._slots = len(self._records)
        self._words = segment.words
        self.segment = segment
        self.doorbell = doorbell

    def reserve(self) -> Record | None:
        """Return the next free slot's record, or None when the ring is full (and count that).

        Reserving again without publishing returns the same slot.
        """
        head = self._words[HEAD_WORD]
        if head - self._words[TAIL_WORD] >= self._slots:
            self._words[FULL_WORD] += 1
            return None
        return self._records[head % self._slots]

    def waiting(self) -> int:
        """Return how many records the consumer has not released yet."""
        return self._words[HEAD_WORD] - self._words[TAIL_WORD]

    def publish(self) -> None:
        """Hand the reserved record to the consumer, and wake it if it sleeps."""
        words = self._words
        head = words[HEAD_WORD]
        self._records[head % self._slots].finish()
        keep_order()
        words[HEAD_WORD] = head + 1
        waiting = head + 1 - words[TAIL_WORD]
        if waiting > words[HIGH_WATER_WORD]:
            words[HIGH_WATER_WORD] = waiting
        if self.doorbell.ring():
            words[WAKE_UPS_WORD] += 1


class RingReader:
    """The consuming end. Only one process at a time may hold it.

    `fast`: the fast path's own end of the same `segment`, if it has one. `begun`: packets of the
    oldest record that its consumer has done with already.
    """

    __slots__ = ("_checked", "_records", "_slots", "_words", "begun", "fast", "segment")

    def __init__(self, segment: Segment) -> None:
        self._checked = -1  # the record that was checked last, counted from the first ever
        self._records = _attach(segment)
        self._slots = len(self._records)
        self._words = segment.words
        self.segment = segment
        self.fast: object | None = None
        self.begun = 0

    def waiting(self) -> int:
        """Return how many records wait, as far as the producer's word can be believed."""
        return self._words[HEAD_WORD] - self._words[TAIL_WORD]

    @property
    def slots(self) -> int:
        """The ring's capacity in records."""
        return self._slots

    def peek(self) -> Record | None:
        """Return the oldest record, checked, or None when the ring is empty.

        A record that fails its check is released and counted as corrupt; a head that cannot be
        drops everything up to it.
        """
        words = self._words
        while True:
            head, tail = words[HEAD_WORD], words[TAIL_WORD]
            if head == tail:
                return None
            if not 0 < head - tail <= self._slots:
                words[CORRUPT_WORD] += 1
                words[TAIL_WORD] = head
                return None
            record = self._records[tail % self._slots]
            if tail == self._checked:
                return record
            keep_order()
            if record.check():
                self._checked = tail
                return record
            words[CORRUPT_WORD] += 1
            self.release()

    def release(self) -> None:
        """Give the slot of the record last peeked at back to the producer."""
        keep_order()
        self._words[TAIL_WORD] += 1


class RingView:
    """A ring as statistics see it: read-only, at any time, by any process that maps it."""

    def __init__(self, segment: Segment) -> None:
        self._words = segment.words

    def figures(self) -> dict[str, int]:
        """Return slots, depth (records waiting), and the counters of the table above."""
        words = self._words
        tail = words[TAIL_WORD]
        return {
            "slots": words[SLOTS_WORD],
            "depth": max(0, words[HEAD_WORD] - tail),
            "published": words[HEAD_WORD],
            "high_water": words[HIGH_WATER_WORD],
            "full": words[FULL_WORD],
            "wake_ups": words[WAKE_UPS_WORD],
            "corrupt": words[CORRUPT_WORD],
        }
