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
looks once more, and waits in epoll. A producer stores head, fences, and writes the doorbell's
eventfd only when asleep is set. One of the two always sees the other, and under load nobody
makes that system call.
"""

from __future__ import annotations

import os

from wgmp.errors import RingError
from wgmp.record import Record
from wgmp.shm import PAGE_BYTES, Segment, full_fence

MAGIC = 0x676E69725F706D77  # "wmp_ring", little-endian
VERSION = 1

_SLOTS, _SLOT_BYTES = 2, 3
_HEAD, _FULL, _HIGH_WATER, _WAKE_UPS = 8, 9, 10, 11
_TAIL, _CORRUPT = 16, 17

SLOT_ALIGNMENT = 64


class Doorbell:
    """A consuming process's bell: one asleep word (written by the consumer) and an eventfd.

    `word` is the index of the asleep word in `segment`. Made by the supervisor before the fork.
    """

    __slots__ = ("_word", "_words", "descriptor")

    def __init__(self, segment: Segment, word: int) -> None:
        self._words = segment.words
        self._word = word
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fall_asleep(self) -> None:
        """Consumer: declare sleep. Look at every ring once more after this."""
        self._words[self._word] = 1
        full_fence()

    def wake_up(self) -> None:
        """Consumer: take the declaration back."""
        self._words[self._word] = 0

    def close(self) -> None:
        """Nobody rings or hears it any more."""
        os.close(self.descriptor)

    def silence(self) -> None:
        """Consumer: the eventfd was reported readable; make it quiet again."""
        try:
            os.eventfd_read(self.descriptor)
        except BlockingIOError:
            return

    def ring(self) -> bool:
        """Producer, after publishing: wake the consumer if it sleeps; return whether it did."""
        full_fence()
        if not self._words[self._word]:
            return False
        # The word is the consumer's, so it may be rung more than once before it wakes.
        os.eventfd_write(self.descriptor, 1)
        return True


def create_ring(name: str, slots: int, slot_bytes: int, shared: bool = False) -> Segment:
    """Return a new, empty ring of `slots` slots of `slot_bytes` (a multiple of 64) each.

    `shared`: its memory can be given to other programs.
    """
    if slots < 1 or slot_bytes % SLOT_ALIGNMENT:
        raise RingError(f"ring {name}: {slots} slots of {slot_bytes} bytes cannot be laid out")
    segment = Segment(name, PAGE_BYTES + slots * slot_bytes, shared)
    segment.words[_SLOTS] = slots
    segment.words[_SLOT_BYTES] = slot_bytes
    segment.words[1] = VERSION
    segment.words[0] = MAGIC
    return segment


def _attach(segment: Segment) -> list[Record]:
    """Check the header against the mapping and return a Record per slot; raise RingError."""
    words = segment.words
    slots, slot_bytes = words[_SLOTS], words[_SLOT_BYTES]
    if words[0] != MAGIC or words[1] != VERSION:
        raise RingError(f"not a ring of version {VERSION}: magic {words[0]:#x}, version {words[1]}")
    if not slots or slot_bytes % SLOT_ALIGNMENT or PAGE_BYTES + slots * slot_bytes > segment.size:
        raise RingError(f"{slots} slots of {slot_bytes} bytes are not in {segment.size} bytes")
    starts = range(PAGE_BYTES, PAGE_BYTES + slots * slot_bytes, slot_bytes)
    return [Record(segment.bytes[start : start + slot_bytes]) for start in starts]


class RingWriter:
    """The producing end. Only one process at a time may hold it."""

    __slots__ = ("_doorbell", "_head", "_records", "_slots", "_words")

    def __init__(self, segment: Segment, doorbell: Doorbell) -> None:
        self._records = _attach(segment)
        self._slots = len(self._records)
        self._words = segment.words
        self._head = self._words[_HEAD]
        self._doorbell = doorbell

    def reserve(self) -> Record | None:
        """Return the next free slot's record, or None when the ring is full (and count that).

        Reserving again without publishing returns the same slot.
        """
        waiting = self._head - self._words[_TAIL]
        if waiting >= self._slots:
            self._words[_FULL] += 1
            return None
        return self._records[self._head % self._slots]

    def waiting(self) -> int:
        """Return how many records the consumer has not released yet."""
        return self._head - self._words[_TAIL]

    def publish(self) -> None:
        """Hand the reserved record to the consumer, and wake it if it sleeps."""
        words = self._words
        self._records[self._head % self._slots].finish()
        self._head += 1
        words[_HEAD] = self._head
        waiting = self._head - words[_TAIL]
        if waiting > words[_HIGH_WATER]:
            words[_HIGH_WATER] = waiting
        if self._doorbell.ring():
            words[_WAKE_UPS] += 1


class RingReader:
    """The consuming end. Only one process at a time may hold it."""

    __slots__ = ("_records", "_slots", "_tail", "_words")

    def __init__(self, segment: Segment) -> None:
        self._records = _attach(segment)
        self._slots = len(self._records)
        self._words = segment.words
        self._tail = self._words[_TAIL]

    def waiting(self) -> int:
        """Return how many records wait, as far as the producer's word can be believed."""
        return self._words[_HEAD] - self._tail

    @property
    def slots(self) -> int:
        """The ring's capacity in records."""
        return self._slots

    def peek(self) -> Record | None:
        """Return the oldest record, checked, or None when the ring is empty.

        A record that fails its check is released and counted as corrupt; a head that cannot be
        drops everything up to it.
        """
        while True:
            waiting = self._words[_HEAD] - self._tail
            if waiting == 0:
                return None
            if not 0 < waiting <= self._slots:
                self._words[_CORRUPT] += 1
                self._tail = self._words[_HEAD]
                self._words[_TAIL] = self._tail
                return None
            record = self._records[self._tail % self._slots]
            if record.check():
                return record
            self._words[_CORRUPT] += 1
            self.release()

    def release(self) -> None:
        """Give the slot of the record last peeked at back to the producer."""
        self._tail += 1
        self._words[_TAIL] = self._tail


class RingView:
    """A ring as statistics see it: read-only, at any time, by any process that maps it."""

    def __init__(self, segment: Segment) -> None:
        self._words = segment.words

    def figures(self) -> dict[str, int]:
        """Return slots, depth (records waiting), and the counters of the table above."""
        words = self._words
        tail = words[_TAIL]
        return {
            "slots": words[_SLOTS],
            "depth": max(0, words[_HEAD] - tail),
            "published": words[_HEAD],
            "high_water": words[_HIGH_WATER],
            "full": words[_FULL],
            "wake_ups": words[_WAKE_UPS],
            "corrupt": words[_CORRUPT],
        }
