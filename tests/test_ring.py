"""Rings: against a deque, with corrupt memory, and with both ends killed at random moments."""

from __future__ import annotations

import os
import random
import select
import signal
import time
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wgmp.errors import RingError
from wgmp.record import SMALL_SLOT_BYTES, Kind
from wgmp.ring import Doorbell, RingReader, RingView, RingWriter, create_ring
from wgmp.shm import PAGE_BYTES, WORD_BYTES, Segment

KILLS = 150  # of each end
WORD = 8


def make(slots: int = 4, slot_bytes: int = SMALL_SLOT_BYTES) -> tuple[Segment, Doorbell]:
    return create_ring("test", slots, slot_bytes), Doorbell(Segment("bells", 64), 0)


def put(writer: RingWriter, payload: bytes, peer: int = 0) -> bool:
    record = writer.reserve()
    if record is None:
        return False
    record.begin(Kind.PACKETS, peer)
    record.append(payload)
    writer.publish()
    return True


def take(reader: RingReader) -> bytes | None:
    record = reader.peek()
    if record is None:
        return None
    payload = b"".join(record.packets())
    reader.release()
    return payload


@given(st.lists(st.one_of(st.binary(max_size=200), st.none()), max_size=200))
@settings(max_examples=60, deadline=None)
def test_ring_behaves_as_a_bounded_deque(steps: list[bytes | None]) -> None:
    segment, bell = make(slots=3)
    writer, reader = RingWriter(segment, bell), RingReader(segment)
    model: deque[bytes] = deque()
    for step in steps:
        if step is None:
            assert take(reader) == (model.popleft() if model else None)
        else:
            assert put(writer, step) == (len(model) < 3)
            if len(model) < 3:
                model.append(step)
        assert reader.waiting() == len(model)


def test_full_ring_refuses_and_counts() -> None:
    segment, bell = make(slots=2)
    writer = RingWriter(segment, bell)
    assert [put(writer, b"x") for _ in range(4)] == [True, True, False, False]
    figures = RingView(segment).figures()
    assert (figures["full"], figures["depth"], figures["high_water"]) == (2, 2, 2)


def test_writer_rings_only_a_sleeper() -> None:
    segment, bell = make()
    writer = RingWriter(segment, bell)
    poll = select.poll()
    poll.register(bell.descriptor, select.POLLIN)
    put(writer, b"awake")
    assert not poll.poll(0)
    bell.fall_asleep()
    put(writer, b"asleep")
    assert poll.poll(0)
    bell.wake_up()
    bell.silence()
    put(writer, b"awake again")
    assert not poll.poll(0)
    assert RingView(segment).figures()["wake_ups"] == 1


def test_attaching_to_what_is_no_ring_is_refused() -> None:
    with pytest.raises(RingError, match="not a ring"):
        RingReader(Segment("zeros", 4096))


@pytest.mark.parametrize("word", [0, 1], ids=["magic", "version"])
def test_a_ring_of_another_kind_or_version_is_refused(word: int) -> None:
    segment, bell = make()
    segment.words[word] += 1
    for attach in (lambda: RingReader(segment), lambda: RingWriter(segment, bell)):
        with pytest.raises(RingError, match="not a ring of version 1"):
            attach()


@pytest.mark.parametrize(("slots", "slot_bytes"), [(0, 4096), (4, 4095), (-1, 64)])
def test_a_ring_that_cannot_be_laid_out_is_refused(slots: int, slot_bytes: int) -> None:
    with pytest.raises(RingError, match=f"{slots} slots of {slot_bytes} bytes cannot be laid out"):
        create_ring("test", slots, slot_bytes)


def test_ring_larger_than_its_memory_is_refused() -> None:
    segment, _ = make(slots=4)
    segment.words[2] = 400
    with pytest.raises(RingError, match="are not in"):
        RingReader(segment)


@pytest.mark.parametrize(
    ("word", "value"), [(0, 1 | 300 << 32), (1, 1 << 20), (1, 6)], ids=["count", "used", "sum"]
)
def test_corrupt_record_is_dropped_and_the_next_one_served(word: int, value: int) -> None:
    segment, bell = make()
    writer, reader = RingWriter(segment, bell), RingReader(segment)
    put(writer, b"corrupt")
    put(writer, b"sound")
    segment.words[PAGE_BYTES // WORD_BYTES + word] = value
    assert take(reader) == b"sound"
    assert RingView(segment).figures()["corrupt"] == 1


def test_a_record_and_its_index_keep_their_order_on_any_cpu(
    fences: list[Callable[[], object]],
) -> None:
    segment, bell = make()
    writer, reader = RingWriter(segment, bell), RingReader(segment)
    seen: list[tuple[int, ...]] = []

    def look() -> None:
        count = segment.words[PAGE_BYTES // WORD_BYTES] >> 32
        seen.append((count, segment.words[8], segment.words[16]))

    fences += [look, look]
    put(writer, b"one")
    # It is whole before the head is, and the head before the bell is looked at.
    assert seen == [(1, 0, 0), (1, 1, 0)]
    # What had changed when the head was seen is what is looked at.
    fences.append(lambda: segment.bytes[PAGE_BYTES + 128 :].__setitem__(0, 9))
    assert reader.peek() is None
    put(writer, b"two")
    assert reader.peek() is not None
    fences.append(look)
    reader.release()
    assert seen[2:] == [(1, 2, 1)]
    assert segment.words[16] == 2


def test_impossible_head_drops_everything_and_goes_on() -> None:
    segment, bell = make()
    reader = RingReader(segment)
    segment.words[8] = 1000
    assert take(reader) is None
    writer = RingWriter(segment, bell)
    put(writer, b"after")
    assert take(reader) == b"after"
    assert RingView(segment).figures()["corrupt"] == 1


def _fork(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    finally:
        os._exit(0)


def _payload(sequence: int) -> bytes:
    """Return bytes that show a torn record: all of them follow from the sequence number."""
    return sequence.to_bytes(WORD, "little") * (1 + sequence % 100)


def test_ends_killed_at_random_moments_tear_lose_and_double_nothing() -> None:
    """Kill writer and reader 150 times each; every record arrives once, whole and in order.

    The writer takes its next sequence number from the ring's head, the reader notes what it
    read at the place the ring's tail names before it releases: what a death interrupts, the
    successor does again.
    """
    segment, bell = make(slots=8)
    notes = Segment("notes", 64 << 20)  # word 0: torn records; then one word per sequence number
    room = len(notes.words) - 1

    def write() -> None:
        writer = RingWriter(segment, bell)
        while True:
            sequence = segment.words[8]
            if sequence >= room:
                return
            put(writer, _payload(sequence), peer=sequence)

    def read() -> None:
        reader = RingReader(segment)
        while True:
            record = reader.peek()
            if record is None:
                continue
            if b"".join(record.packets()) != _payload(record.peer):
                notes.words[0] += 1
            notes.words[1 + segment.words[16]] = record.peer + 1
            reader.release()

    randomness = random.Random(1)
    ends = [write, read]
    pids = [_fork(end) for end in ends]
    try:
        for kill in range(2 * KILLS):
            time.sleep(randomness.uniform(0.0005, 0.006))
            victim = kill % 2
            os.kill(pids[victim], signal.SIGKILL)
            os.waitpid(pids[victim], 0)
            pids[victim] = _fork(ends[victim])
        time.sleep(0.05)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    assert notes.words[0] == 0, "a record was torn"
    read_count = segment.words[16]
    assert read_count > 2 * KILLS, "hardly anything was exchanged"
    assert RingView(segment).figures()["corrupt"] == 0
    assert notes.words[1 : 1 + read_count].tolist() == list(range(1, read_count + 1))
