"""A gateway's shared memory: whose is what, what goes on, and where there is none to be had."""

from __future__ import annotations

import os

from tests.descriptors import open_files, room_for
from wgmp.counters import Counter
from wgmp.fabric import Fabric
from wgmp.fastpath import reference
from wgmp.record import Kind
from wgmp.ring import RingWriter
from wgmp.shm import LastingMemory
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


def test_each_process_has_a_bell_that_wakes_nobody_else() -> None:
    fabric = Fabric(build(Shape.PIPELINE, 3))
    bells = list(fabric.doorbells.values())
    assert len({bell.word // 8 for bell in bells}) == len(bells), "on cache lines of their own"
    for sleeper in bells:
        sleeper.fall_asleep()
        assert [bell for bell in bells if bell.ring()] == [sleeper]
        sleeper.silence()
        sleeper.wake_up()
    fabric.close()


def test_counters_go_on_by_name_in_another_topology_and_in_another_supervisor() -> None:
    memory = LastingMemory()
    first = Fabric(build(Shape.PIPELINE, 2), memory=memory)
    for number, counters in enumerate(first.counters.values()):
        counters.store(Counter.SLEEPS, number + 1)
    known = {name: counters.value(Counter.SLEEPS) for name, counters in first.counters.items()}
    more = first.succeed(build(Shape.PIPELINE, 3))
    found = {name: counters.value(Counter.SLEEPS) for name, counters in more.counters.items()}
    assert found == known | {"worker2": 0}
    more.counters["worker2"].store(Counter.SLEEPS, 77)
    left = {name: os.dup(descriptor) for name, descriptor in memory.descriptors()}
    taken = Fabric(build(Shape.COMPACT, 1), memory=LastingMemory(left), roles=list(more.counters))
    found = {name: counters.value(Counter.SLEEPS) for name, counters in taken.counters.items()}
    assert found == known | {"worker2": 77}
    for fabric in (first, more, taken):
        fabric.close()


def test_another_topology_has_the_same_fast_path() -> None:
    first = Fabric(build(Shape.COMPACT, 1), fastpath=reference)
    more = first.succeed(build(Shape.COMPACT, 2))
    assert more.fastpath is reference
    for fabric in (first, more):
        fabric.close()


def test_what_waits_for_some_processes_is_told_from_what_waits_for_others() -> None:
    fabric = Fabric(build(Shape.PIPELINE, 2))
    depths = {"udp_reader>worker0": 2, "admission>worker0": 1, "worker1>tun_writer": 4}
    for ring, count in depths.items():
        for _ in range(count):
            writer = RingWriter(fabric.rings[ring], fabric.doorbells["worker0"])
            record = writer.reserve()
            assert record is not None
            record.begin(Kind.DATAGRAMS)
            record.append(b"x")
            writer.publish()
    assert fabric.waiting(["worker0"]) == 3
    assert fabric.waiting(["worker1"]) == 0
    assert fabric.waiting(["worker0", "tun_writer"]) == 7
    figures = {row["name"]: row["depth"] for row in fabric.ring_figures() if row["depth"]}
    assert figures == depths
    fabric.close()
