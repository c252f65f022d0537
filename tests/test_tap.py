"""Taps: free while nobody captures; full ones lose copies and count them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

import pytest

from wgmp.counters import Counters, create_counters
from wgmp.protocol.outcome import DropReason, Endpoint
from wgmp.record import MAX_PACKETS, SLOT_BYTES, Kind
from wgmp.ring import Doorbell, RingReader, RingWriter, create_ring
from wgmp.shm import PAGE_BYTES, Segment
from wgmp.tap import INNER, NOBODY, OUTER, SECRETS, Point, Tap, Taps
from wgmp.taphost import CaptureStarted
from wgmp.tapreader import Captured, TapReader, wire_packet

HERE = Endpoint(bytes([127, 0, 0, 2]), 5)
DATAGRAM = bytes(148)


# One for all: each has a descriptor.
BELL = Doorbell(Segment("bell", PAGE_BYTES), 0)


@dataclass
class Bench:
    """One role's tap and its reader."""

    taps: Taps = field(default_factory=lambda: Taps(["worker0"]))

    @property
    def bell(self) -> Doorbell:
        """A bell that nobody waits for."""
        return BELL

    @property
    def tap(self) -> Tap:
        """The role's end."""
        tap = self.taps.tap("worker0")
        assert tap is not None
        return tap

    def start(self, wanted: int = INNER | OUTER, peer: int = NOBODY) -> TapReader:
        """Begin to capture."""
        descriptors = [os.dup(each) for each in self.taps.start(wanted, peer)]
        return TapReader(CaptureStarted(51820, ["worker0"], {}), descriptors)

    def memory(self) -> int:
        """Bytes of memory that the ring really has."""
        (segment,) = self.taps.rings.values()
        return os.fstat(segment.descriptor).st_blocks * 512


def see(tap: Tap, point: Point = Point.OUTER_IN, peer: int = 3, reason: int = 0) -> None:
    """Let a tap see a datagram."""
    lengths = [len(DATAGRAM)]
    tap.packets(Kind.DATAGRAMS, DATAGRAM, lengths, point, peer=peer, endpoint=HERE, reason=reason)


def points(captured: list[Captured]) -> list[Point]:
    """Return where packets were seen."""
    return [each.note.point for each in captured]


def test_a_tap_that_is_off_copies_nothing_and_has_no_memory() -> None:
    bench = Bench()
    tap = bench.tap
    see(tap)
    assert not tap.on
    assert bench.memory() <= PAGE_BYTES
    reader = bench.start()
    for _ in range(50):
        see(tap)
    assert len(reader.poll(everything=True)) == 50
    assert bench.memory() > PAGE_BYTES
    bench.taps.stop()
    assert bench.memory() <= PAGE_BYTES
    see(tap)
    assert reader.poll(everything=True) == []


def test_a_capture_begins_with_what_comes_after_its_beginning() -> None:
    bench = Bench()
    tap = bench.tap
    bench.start()
    see(tap)
    bench.taps.stop()
    reader = bench.start()
    see(tap, Point.OUTER_OUT)
    assert points(reader.poll(everything=True)) == [Point.OUTER_OUT]


def test_a_full_tap_loses_copies_and_counts_them() -> None:
    bench = Bench()
    tap, reader = bench.tap, bench.start()
    for _ in range(130):
        see(tap)
    assert reader.lost == 2
    assert len(reader.poll(everything=True)) == 128
    see(tap)
    assert len(reader.poll(everything=True)) == 1


@pytest.mark.parametrize(
    ("wanted", "peer", "seen"),
    [
        (INNER, NOBODY, [Point.INNER_OUT, Point.INNER_IN]),
        (OUTER, NOBODY, [Point.OUTER_OUT, Point.OUTER_IN]),
        (SECRETS, NOBODY, [Point.SECRET]),
        (INNER | OUTER | SECRETS, NOBODY, list(Point)),
        (INNER | OUTER, 3, [Point.INNER_OUT, Point.INNER_IN, Point.OUTER_OUT, Point.OUTER_IN]),
        (INNER | OUTER, 4, []),
    ],
)
def test_only_what_is_wanted_is_copied(wanted: int, peer: int, seen: list[Point]) -> None:
    bench = Bench()
    reader = bench.start(wanted, peer)
    for point in Point:
        see(bench.tap, point)
    assert points(reader.poll(everything=True)) == seen


def test_a_copy_knows_its_peer_and_why_it_was_dropped() -> None:
    bench = Bench()
    reader = bench.start()
    see(bench.tap, reason=DropReason.BAD_MAC1)
    (captured,) = reader.poll(everything=True)
    note = captured.note
    assert (note.peer, note.reason, note.dropped) == (3, DropReason.BAD_MAC1, 1)
    assert captured.packets == [wire_packet(DATAGRAM, HERE, 51820, False, 0)]
    see(bench.tap, peer=NOBODY)
    (captured,) = reader.poll(everything=True)
    assert (captured.note.peer, captured.note.reason, captured.note.dropped) == (NOBODY, 0, 0)


def test_a_key_is_wiped_from_the_ring_when_it_is_read() -> None:
    bench = Bench()
    reader = bench.start(SECRETS)
    bench.tap.secret(b"\xab" * 32, 3)
    (segment,) = bench.taps.rings.values()
    assert b"\xab" * 32 in bytes(segment.bytes)
    (captured,) = reader.poll(everything=True)
    assert captured.packets == [b"\xab" * 32]
    assert b"\xab" * 32 not in bytes(segment.bytes)


def served(bench: Bench, counters: Counters, *drops: DropReason) -> list[int]:
    """Let the role serve a record of two datagrams that it had from a ring; return when."""
    ring = create_ring("in", 4, 65_536)
    writer, reader = RingWriter(ring, bench.bell), RingReader(ring)
    record = writer.reserve()
    assert record is not None
    record.begin(Kind.DATAGRAMS, 3)
    record.set_endpoint(HERE)
    for number in range(2):
        record.append(DATAGRAM + bytes([number]))
    writer.publish()
    taken = reader.peek()
    assert taken is not None
    times: list[int] = []

    def serve() -> None:
        times.append(time.time_ns())
        for reason in drops:
            counters.drop(reason)
        reader.release()
        taken.wipe()  # the slot is the producer's again

    bench.tap.around(serve, taken, Point.OUTER_IN, 3, counters)
    return times


@pytest.mark.parametrize(
    ("drops", "noted"),
    [
        ([], (0, 0)),
        ([DropReason.REPLAYED], (DropReason.REPLAYED, 1)),
        ([DropReason.BAD_TAG, DropReason.BAD_TAG], (DropReason.BAD_TAG, 2)),
        ([DropReason.BAD_TAG, *[DropReason.REPLAYED] * 2], (DropReason.REPLAYED, 3)),
    ],
)
def test_a_record_is_copied_with_what_was_dropped_of_it_and_the_time_it_came(
    drops: list[DropReason], noted: tuple[int, int]
) -> None:
    bench, counters = Bench(), Counters(create_counters(1), 0)
    counters.drop(DropReason.BAD_TAG, 1000)  # of others, before
    reader = bench.start()
    (at,) = served(bench, counters, *drops)
    (captured,) = reader.poll(everything=True)
    assert (captured.note.reason, captured.note.dropped) == noted
    assert (captured.note.peer, captured.count) == (3, 2)
    assert [packet[-1] for packet in captured.packets] == [0, 1]
    assert captured.note.time_ns <= at


@pytest.mark.parametrize(
    ("wanted", "peer"), [(0, NOBODY), (INNER, NOBODY), (OUTER | INNER, 4), (SECRETS, 3)]
)
def test_a_record_that_is_not_wanted_is_served_and_not_copied(wanted: int, peer: int) -> None:
    bench, counters = Bench(), Counters(create_counters(1), 0)
    reader = bench.start(wanted, peer)
    assert len(served(bench, counters, DropReason.BAD_TAG)) == 1
    assert counters.drops() == {"bad_tag": 1}
    assert reader.poll(everything=True) == []


def test_what_does_not_fit_a_copy_is_left_out_and_the_next_is_copied() -> None:
    bench = Bench()
    reader = bench.start()
    huge = bytes(SLOT_BYTES)
    bench.tap.packets(Kind.DATAGRAMS, huge, [len(huge)], Point.OUTER_IN)
    bench.tap.packets(Kind.DATAGRAMS, bytes(2 * MAX_PACKETS), [1] * (MAX_PACKETS + 1), Point(3))
    see(bench.tap, Point.OUTER_OUT)
    assert points(reader.poll(everything=True)) == [Point.OUTER_OUT]


def test_only_roles_that_hold_packets_have_a_tap() -> None:
    bench = Bench()
    assert bench.taps.tap("worker0") is not None
    assert bench.taps.tap("udp_writer") is None


def test_somebody_captures_from_the_start_to_the_stop() -> None:
    bench = Bench()
    assert not bench.taps.busy
    bench.start(SECRETS)
    assert bench.taps.busy
    assert bench.tap.on
    bench.taps.stop()
    assert not bench.taps.busy
