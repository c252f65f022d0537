"""A gateway's shared memory, where there is none to be had."""

from __future__ import annotations

from tests.descriptors import open_files, room_for
from wgmp.fabric import Fabric
from wgmp.topology import Shape, build


def test_a_fabric_that_cannot_be_made_leaves_nothing_open() -> None:
    old = Fabric(build(Shape.PIPELINE, 1))
    before = open_files()
    room, made = 0, None
    while made is None:
        with room_for(room):
            try:
                made = old.succeed(build(Shape.PIPELINE, 2))
            except OSError:
                room += 1
        if made is None:
            assert open_files() == before, f"with {room - 1} descriptors"
    assert room > 10, "of them bells and taps are kept open"
    made.close()
    old.close()
