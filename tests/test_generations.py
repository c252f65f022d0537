"""Generations of processes: another number of workers, with the old ones in order or not."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.home import LINK, NAME, Home, play, report_and_obey
from wgmp import resharding
from wgmp.counters import Counter
from wgmp.errors import ControlError
from wgmp.events import WorkersChanged
from wgmp.orders import (
    ROW_BITS,
    Begin,
    Drain,
    Drained,
    Failed,
    Ready,
    SetLink,
    SetPeer,
    decode_orders,
    encode_report,
)
from wgmp.record import Kind
from wgmp.resharding import are_ready, leave, reshard
from wgmp.ring import RingReader, RingWriter
from wgmp.tap import NOBODY, OUTER
from wgmp.topology import Shape, build

WORKER_DIED = "worker_died"


@pytest.mark.parametrize("trouble", ["no memory", "no start"])
def test_a_generation_that_does_not_come_up_leaves_nothing_behind(trouble: str) -> None:
    async def scene(home: Home) -> None:
        first = home.living.pid
        if trouble == "no memory":
            home.no_memory = 1
        else:
            home.parts = [lambda control: None]
        open_before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(ControlError, match=r"no more processes|did not start"):
            await reshard(home.children, 3)
        while len(os.listdir("/proc/self/fd")) > open_before:
            await asyncio.sleep(0.01)
        assert home.living.pid == first
        assert home.children.fabric is home.fabric
        await reshard(home.children, 2)
        assert sorted(home.children.living) == [NAME, "worker1"]
        home.fabric = home.children.fabric

    play(scene)


def test_a_capture_that_begins_while_workers_come_is_not_cut_off() -> None:
    async def scene(home: Home) -> None:
        change = asyncio.create_task(reshard(home.children, 2))
        await asyncio.sleep(0)  # they are forked, and not ready yet
        home.fabric.taps.start(OUTER, NOBODY)
        with pytest.raises(ControlError, match="a capture is running"):
            await change
        assert home.children.fabric is home.fabric
        home.fabric.taps.stop()
        await reshard(home.children, 2)
        home.fabric = home.children.fabric

    play(scene)


def tell_how_it_begins(control: socket.socket) -> None:
    """Do as told, and say on what orders one begins."""
    control.send(encode_report(Ready()))
    orders = []
    while message := control.recv(1 << 16):
        orders += decode_orders(message)
        if isinstance(orders[-1], Begin):
            control.send(encode_report(Failed(repr(orders))))
        if orders[-1] == Drain():
            control.send(encode_report(Drained()))


def die_draining(control: socket.socket) -> None:
    """Be ready, and die when there is no time to."""
    control.send(encode_report(Ready()))
    while Drain() not in decode_orders(control.recv(1 << 16)):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def stay(control: socket.socket) -> None:
    """Drain, and do not end."""
    control.send(encode_report(Ready()))
    while Drain() not in decode_orders(control.recv(1 << 16)):
        pass
    control.send(encode_report(Drained()))
    time.sleep(20)


def never_drain(control: socket.socket) -> None:
    """Be ready, and do nothing until the end."""
    control.send(encode_report(Ready()))
    while control.recv(1 << 16):
        pass


async def replace_the_first(home: Home, *parts: Callable[[socket.socket], None]) -> None:
    """Let the process that there is, and those that come next, play parts."""
    home.parts = list(parts)
    os.kill(home.living.pid, signal.SIGKILL)
    await home.ends()


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until it is so."""
    while not condition():
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("part", "orderly"),
    [(report_and_obey, True), (die_draining, False), (stay, False)],
    ids=["in-order", "died", "killed"],
)
def test_who_comes_is_told_whether_those_before_ended_in_order(
    monkeypatch: pytest.MonkeyPatch, part: Callable[[socket.socket], None], orderly: bool
) -> None:
    monkeypatch.setattr(resharding, "_STOP_LIMIT_S", 0.3 if part is stay else 20.0)

    async def scene(home: Home) -> None:
        await replace_the_first(home, part, tell_how_it_begins)
        await reshard(home.children, 2)
        home.fabric = home.children.fabric
        await until(lambda: home.living.failure)
        assert f"Begin(orderly={orderly}, deaths=0)]" in home.living.failure

    play(scene)


def test_one_that_was_missing_has_not_ended_in_order_and_comes_once() -> None:
    async def scene(home: Home) -> None:
        home.children.deaths.in_a_row[NAME] = 5  # the next one waits for 1.6 s
        home.parts = [tell_how_it_begins]
        last = home.living
        os.kill(last.pid, signal.SIGKILL)
        await last.ended.wait()
        await until(lambda: NAME not in home.children.living)
        await reshard(home.children, 2)
        home.fabric = home.children.fabric
        await until(lambda: home.living.failure)
        assert "Begin(orderly=False, deaths=0)]" in home.living.failure
        newcomer = home.living
        await asyncio.sleep(2.0)
        assert home.living is newcomer

    play(scene)


@pytest.mark.parametrize("served", [True, False], ids=["served", "left"])
def test_records_that_wait_are_worked_off_before_a_generation_ends_but_not_forever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, served: bool
) -> None:
    monkeypatch.setattr(resharding, "_DRAIN_LIMIT_S", 20.0 if served else 0.1)

    async def scene(home: Home) -> None:
        ring = home.fabric.rings["udp_reader>worker0"]

        def serve_late(control: socket.socket) -> None:
            stayed = never_drain if not served else report_and_obey
            if served and not os.fork():  # beside the other one, which drains at once
                time.sleep(0.3)
                reader = RingReader(ring)
                assert reader.peek()
                reader.release()
                os._exit(0)
            stayed(control)

        writer = RingWriter(ring, home.fabric.doorbells[NAME])
        record = writer.reserve()
        assert record is not None
        record.begin(Kind.PACKETS)
        record.append(b"packet")
        writer.publish()
        await replace_the_first(home, serve_late)
        assert await leave(home.children)
        assert home.fabric.waiting([NAME]) == (0 if served else 1)
        assert ("records are left in the rings" in caplog.text) == (not served)

    play(scene)


def test_changes_reach_those_who_wait_before_they_begin() -> None:
    async def scene(home: Home) -> None:
        home.parts = [tell_how_it_begins, tell_how_it_begins]
        fabric = home.fabric.succeed(build(Shape.COMPACT, 2))
        newcomers = home.children.recruit(fabric)
        assert await are_ready(newcomers)
        home.children.tell([SetLink(up=False, mtu=1300)])
        home.children.begin(fabric, newcomers, await leave(home.children))
        home.fabric.retire(fabric)
        home.fabric = fabric
        for child in newcomers:
            await until(lambda child=child: child.failure)  # type: ignore[misc]
            assert child.failure == repr([LINK, SetLink(up=False, mtu=1300), Begin(orderly=True)])

    play(scene)


def count_rings(control: socket.socket) -> None:
    """Say how many rings from udp_reader to worker0 are mapped here."""
    maps = Path("/proc/self/maps").read_text()
    control.send(encode_report(Failed(str(maps.count("wgmp:udp_reader>worker0 ")))))
    report_and_obey(control)


def test_who_comes_has_the_rings_it_works_on_and_not_those_before() -> None:
    async def scene(home: Home) -> None:
        home.parts = [count_rings] * 4
        gc.collect()
        before = Path("/proc/self/maps").read_text().count("wgmp:udp_reader>worker0 ")
        another = home.fabric.succeed(build(Shape.COMPACT, 2))
        for fabric in (another, home.fabric):  # the same one is as after another supervisor
            newcomers = home.children.recruit(fabric)
        assert await are_ready(newcomers)
        found = [int(child.failure) for child in newcomers]
        assert found == [before, before, before + 1], "of two fabrics the other one only"
        await home.children.dismiss()

    play(scene)


def test_one_that_dies_before_it_can_begin_has_a_successor() -> None:
    async def scene(home: Home) -> None:
        fabric = home.fabric.succeed(build(Shape.COMPACT, 2))
        newcomers = home.children.recruit(fabric)
        assert await are_ready(newcomers)
        os.kill(newcomers[1].pid, signal.SIGKILL)
        await newcomers[1].ended.wait()
        assert not await are_ready(newcomers)
        home.children.begin(fabric, newcomers, await leave(home.children))
        home.fabric.retire(fabric)
        home.fabric = fabric
        await until(lambda: all(child.ready for child in home.children.living.values()))
        assert home.living is newcomers[0]
        assert home.children.living["worker1"].pid != newcomers[1].pid

    play(scene)


def test_a_generation_that_stays_after_all_is_whole_again_and_its_dead_are_replaced() -> None:
    async def scene(home: Home) -> None:
        assert await leave(home.children)
        assert not home.children.living
        home.children.fill()  # as after an upgrade that failed
        await until(lambda: home.living.ready)
        first = home.living
        home.children.fill()
        assert home.living is first
        os.kill(first.pid, signal.SIGKILL)
        await until(lambda: home.children.living.get(NAME, first) is not first)

    play(scene)


def test_another_number_of_workers_is_told_and_peers_and_books_go_along() -> None:
    async def scene(home: Home) -> None:
        for count in (3, 1):
            await reshard(home.children, count)
            home.fabric = home.children.fabric
            peers = home.fabric.peers
            assert [peers.owner(row) for row in range(6)] == [row % count for row in range(6)]
            if count == 3:
                home.children.tell([SetPeer(1 << ROW_BITS | 8, bytes(32), bytes(32), 0, None)])
                assert peers.owner(8) == 2
                counters = home.fabric.counters
                for number in (0, 1):
                    counters[f"worker{number}"].store(Counter.STAGED, 5)
                    counters[f"worker{number}"].store(Counter.PEERS, 2)
        staged = [counters[f"worker{number}"].value(Counter.STAGED) for number in (0, 1, 2)]
        assert staged == [5, 0, 0]
        assert [counters[f"worker{n}"].value(Counter.PEERS) for n in (0, 1)] == [2, 0]
        assert (counters["worker1"].drops(), counters["worker0"].drops()) == ({WORKER_DIED: 5}, {})
        told = await home.told.take()
        changes = [event for event in told if isinstance(event, WorkersChanged)]
        assert changes == told, "nobody was restarted"
        assert [(event.before, event.workers) for event in changes] == [(1, 3), (3, 1)]
        assert all(0 <= event.pause_s < 20 for event in changes)
        assert not any(home.children.deaths.restarts.values())

    play(scene)


def test_the_same_number_changes_nothing_and_one_that_cannot_be_is_refused() -> None:
    async def scene(home: Home) -> None:
        first = home.living
        await reshard(home.children, 1)
        for count in (0, -1, 65):
            with pytest.raises(ControlError, match=f"{count} workers are not possible"):
                await reshard(home.children, count)
        assert home.living is first
        assert home.children.fabric is home.fabric

    play(scene)
