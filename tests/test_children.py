"""Processes and their successors: real ones, which do no more than a test asks of them."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterable

import pytest

from wgmp import system
from wgmp.child import Child
from wgmp.children import Children
from wgmp.errors import ControlError, WgmpError
from wgmp.eventhub import EventHub
from wgmp.events import RoleRestarted
from wgmp.fabric import Fabric
from wgmp.orders import Drain, Drained, Failed, Order, Ready, SetLink, decode_orders, encode_report
from wgmp.resharding import reshard
from wgmp.system.line import PacketLine
from wgmp.tap import NOBODY, OUTER
from wgmp.topology import ProcessRow, Shape, build

NAME = "gateway"
LINK = SetLink(up=True, mtu=1380)


def report_and_obey(control: socket.socket) -> None:
    """Be ready, drain when told to, and end when the supervisor hangs up."""
    control.send(encode_report(Ready()))
    while message := control.recv(1 << 16):
        if Drain() in decode_orders(message):
            control.send(encode_report(Drained()))


class Home:
    """The supervisor's part: it forks, as often as it can, and hears how the gateway ends.

    `parts`: what the processes forked next do with their control sockets before they end, one
    after the other; all others report and obey. `no_memory`: how many forks fail before one works.
    """

    def __init__(self) -> None:
        self.parts: list[Callable[[socket.socket], None]] = []
        self.no_memory = 0
        self.failure: WgmpError | None = None
        self.events = EventHub()
        self.told = self.events.subscribe()
        self.fabric = Fabric(build(Shape.COMPACT, 1))
        self.children = Children(self, self.fabric, self.events)

    def fork(self, row: ProcessRow, fabric: Fabric) -> Child:
        """Fork a process that plays the part."""
        if self.no_memory:
            self.no_memory -= 1
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        part = self.parts.pop(0) if self.parts else report_and_obey
        pid = os.fork()
        if not pid:
            try:
                signal.alarm(20)
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                ours.close()
                part(theirs)
            finally:
                os._exit(0)
        theirs.close()
        ended = system.Lifeline().in_parent(pid)
        return Child(row, pid, ended, PacketLine(ours), os.memfd_create("trace"))

    def configuration(self) -> Iterable[Order]:
        """A link is all there is."""
        return [LINK]

    def stop(self, failure: WgmpError) -> None:
        """Note why the gateway ends."""
        self.failure = failure
        self.children.replace_nobody()

    @property
    def living(self) -> Child:
        """The one process that there is."""
        return self.children.living[NAME]

    async def ends(self, count: int = 1) -> list[str]:
        """Wait until processes have ended, so many, and a successor works; return how they did."""
        told: list[RoleRestarted] = []
        while len(told) < count:
            events = await self.told.take()
            told += (event for event in events if isinstance(event, RoleRestarted))
        while NAME not in self.children.living or not self.living.ready:
            await asyncio.sleep(0.01)
        return [event.how for event in told]


def play(scene: Callable[[Home], Awaitable[None]]) -> None:
    """Play a scene that begins with a process that is ready, and take it all down."""

    async def run() -> None:
        home = Home()
        try:
            home.children.fill()
            await home.children.wait_until_ready()
            async with asyncio.timeout(20):
                await scene(home)
        finally:
            await home.children.stop()
            home.fabric.close()

    asyncio.run(run())


def babble(control: socket.socket) -> None:
    """Be ready, and then say what is no report."""
    control.send(encode_report(Ready()))
    control.send(b"\xc1 no report")
    while control.recv(1 << 16):
        pass


def babble_at_the_end(control: socket.socket) -> None:
    """Obey, and then say what is no report."""
    report_and_obey(control)
    control.send(b"\xc1 no report")


def fail(control: socket.socket) -> None:
    """Say that there is no starting."""
    control.send(encode_report(Failed("there is no memory")))


KILLED = "was killed by SIGKILL"


def test_one_that_is_killed_has_a_successor_at_once() -> None:
    async def scene(home: Home) -> None:
        first = home.living.pid
        os.kill(first, signal.SIGKILL)
        assert await home.ends() == [KILLED]
        assert home.living.pid != first

    play(scene)


def test_one_that_dies_of_a_signal_without_a_name_has_a_successor_too() -> None:
    async def scene(home: Home) -> None:
        os.kill(home.living.pid, signal.SIGRTMIN + 3)
        assert await home.ends() == [f"was killed by signal {signal.SIGRTMIN + 3}"]

    play(scene)


def test_one_that_reports_nonsense_is_ended_and_replaced() -> None:
    async def scene(home: Home) -> None:
        home.parts = [babble]
        os.kill(home.living.pid, signal.SIGKILL)
        assert await home.ends(2) == [KILLED, KILLED]

    play(scene)


def test_nonsense_as_last_words_does_not_keep_the_successor_away() -> None:
    async def scene(home: Home) -> None:
        home.parts = [babble_at_the_end]
        os.kill(home.living.pid, signal.SIGKILL)
        await home.ends()
        home.living.stop()
        assert await home.ends() in (["exited with 0"], [KILLED])

    play(scene)


def test_a_successor_that_cannot_be_forked_is_tried_again() -> None:
    async def scene(home: Home) -> None:
        home.no_memory = 2
        os.kill(home.living.pid, signal.SIGKILL)
        failed = "cannot be forked: Cannot allocate memory"
        assert await home.ends(3) == [KILLED, failed, failed]
        assert home.failure is None

    play(scene)


def test_a_successor_that_cannot_start_is_tried_again() -> None:
    async def scene(home: Home) -> None:
        home.parts = [fail, fail]
        os.kill(home.living.pid, signal.SIGKILL)
        assert await home.ends(3) == [KILLED, "exited with 0", "exited with 0"]
        assert home.failure is None

    play(scene)


def test_a_gateway_whose_first_process_cannot_start_stops_and_says_why() -> None:
    async def scene() -> Home:
        home = Home()
        home.parts = [fail]
        home.children.fill()
        await home.children.wait_until_ready()  # for the end has begun
        await home.children.stop()
        home.fabric.close()
        return home

    assert str(asyncio.run(scene()).failure) == f"{NAME} cannot start: there is no memory"


def test_a_gateway_whose_processes_keep_dying_stops_and_says_why() -> None:
    async def scene(home: Home) -> None:
        for _ in range(10):
            home.children.deaths.died(NAME, 0.0)
        os.kill(home.living.pid, signal.SIGKILL)
        while home.failure is None:
            await asyncio.sleep(0.01)
        assert str(home.failure) == f"{NAME} {KILLED}, for the 11th time in a row: giving up"

    play(scene)


def test_a_gateway_that_cannot_fork_at_all_does_not_start() -> None:
    async def scene() -> Home:
        home = Home()
        home.no_memory = 1
        home.children.fill()
        await home.children.wait_until_ready()  # for the end has begun
        home.fabric.close()
        return home

    home = asyncio.run(scene())
    assert str(home.failure) == f"{NAME} cannot be forked: Cannot allocate memory"
    assert not home.children.living


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


def test_nobody_is_started_once_the_end_has_begun() -> None:
    async def scene(home: Home) -> None:
        home.children.replace_nobody()
        os.kill(home.living.pid, signal.SIGKILL)
        await home.living.ended.wait()
        home.children.fill()  # as after a handover that failed
        assert not home.children.living

    play(scene)


def test_who_comes_later_is_told_the_configuration_before_it_begins() -> None:
    heard, tell = os.pipe()

    def pass_on(control: socket.socket) -> None:
        control.send(encode_report(Ready()))
        while message := control.recv(1 << 16):
            os.write(tell, repr(decode_orders(message)).encode())

    async def scene(home: Home) -> None:
        home.parts = [pass_on]
        os.kill(home.living.pid, signal.SIGKILL)
        await home.ends()
        while b"Begin" not in (text := os.read(heard, 1 << 16)):
            assert repr(LINK).encode() in text
        assert b"Begin(orderly=False, deaths=1)" in text

    play(scene)
    os.close(heard)
    os.close(tell)
