"""Taps: free while nobody captures; full ones lose copies and count them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import pytest

from wgmp.protocol.outcome import DropReason, Endpoint
from wgmp.record import Kind
from wgmp.shm import PAGE_BYTES
from wgmp.tap import INNER, NOBODY, OUTER, SECRETS, Point, Tap, Taps
from wgmp.taphost import CaptureStarted
from wgmp.tapreader import Captured, TapReader, wire_packet

HERE = Endpoint(bytes([127, 0, 0, 2]), 5)
DATAGRAM = bytes(148)


@dataclass
class Bench:
    """One role's tap and its reader."""

    taps: Taps = field(default_factory=lambda: Taps(["worker0"]))

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


def test_a_key_is_wiped_from_the_ring_when_it_is_read() -> None:
    bench = Bench()
    reader = bench.start(SECRETS)
    bench.tap.secret(b"\xab" * 32, 3)
    (segment,) = bench.taps.rings.values()
    assert b"\xab" * 32 in bytes(segment.bytes)
    (captured,) = reader.poll(everything=True)
    assert captured.packets == [b"\xab" * 32]
    assert b"\xab" * 32 not in bytes(segment.bytes)


@pytest.mark.parametrize("address", [bytes([192, 0, 2, 2]), b"\x20\x01\x0d\xb8" + bytes(12)])
def test_outer_packets_have_headers_with_good_checksums(address: bytes) -> None:
    from scapy.layers.inet import IP, UDP
    from scapy.layers.inet6 import IPv6

    endpoint = Endpoint(address, 5, source=address)
    raw = wire_packet(DATAGRAM, endpoint, 51820, True, 0x88)
    packet = (IP if len(address) == 4 else IPv6)(raw)
    assert bytes(packet[UDP].payload) == DATAGRAM
    assert (packet[UDP].sport, packet[UDP].dport) == (51820, 5)
    rebuilt = packet.copy()
    del rebuilt[UDP].chksum
    if len(address) == 4:
        del rebuilt.chksum
    assert bytes(rebuilt) == raw
