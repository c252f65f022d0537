"""What a capture sees of a worker: what comes in, what goes out, and what is dropped."""

from __future__ import annotations

import os

from wgmp.protocol.outcome import DropReason
from wgmp.tap import INNER, NOBODY, OUTER, Point
from wgmp.taphost import CaptureStarted
from wgmp.tapreader import TapReader

from .rig import HERE, Rig, packet


def reader_of(rig: Rig) -> TapReader:
    """Begin to capture everything."""
    taps = rig.fabric.taps
    descriptors = [os.dup(each) for each in taps.start(INNER | OUTER, NOBODY)]
    return TapReader(CaptureStarted(51820, list(taps.rings), {}), descriptors)


def test_a_replayed_datagram_is_seen_with_its_reason_and_a_good_one_with_its_packet() -> None:
    rig = Rig()
    session = rig.connect(rig.add_peer(endpoint=HERE))
    reader = reader_of(rig)
    inner = packet(source=bytes([10, 99, 0, 1]), destination=bytes([10, 77, 0, 1]))
    datagram = session.seal(inner)
    for _ in range(2):
        rig.deliver(datagram)
    seen = {
        (each.note.point, each.note.peer, each.note.reason): each.packets[0]
        for each in reader.poll(everything=True)
    }
    assert seen[Point.INNER_IN, 1, 0] == inner
    assert seen[Point.OUTER_IN, 1, 0].endswith(datagram)
    assert seen[Point.OUTER_IN, 1, DropReason.REPLAYED].endswith(datagram)
    assert len(seen) == 3


def test_a_packet_is_seen_before_its_datagram_and_neither_when_nobody_captures() -> None:
    rig = Rig()
    rig.connect(rig.add_peer(endpoint=HERE))
    rig.sent()
    reader = reader_of(rig)
    rig.send(packet())
    (sent,) = rig.sent()
    inside, outside = reader.poll(everything=True)
    assert (inside.note.point, inside.packets) == (Point.INNER_OUT, [packet()])
    assert outside.note.point is Point.OUTER_OUT
    assert outside.packets[0].endswith(sent)
    rig.fabric.taps.stop()
    rig.send(packet())
    assert reader.poll(everything=True) == []
