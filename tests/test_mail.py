"""Orders and reports between a supervisor's loop and a process, over lines of both kinds.

Nobody waits for the other, nothing is lost or overtaken, and the loop has nothing to do for a line
on which nothing happens.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Awaitable, Callable
from types import ModuleType

import pytest

from wgmp import system
from wgmp.child import Child
from wgmp.mail import Mail
from wgmp.orders import (
    AddAllowedIP,
    Failed,
    Order,
    Ready,
    Report,
    SetLink,
    decode_orders,
    encode_report,
)
from wgmp.system import linux, posix
from wgmp.system.line import Line
from wgmp.topology import ProcessRow

SYSTEMS = pytest.mark.parametrize("system_of_lines", [linux, posix], ids=["packets", "stream"])
LIMIT_S = 20.0
# More than any socket takes at once.
MANY: list[Order] = [AddAllowedIP(number.to_bytes(16, "big"), 128, 7) for number in range(200_000)]


class Office:
    """The supervisor's mail with one process, which does `part` with its end of the line.

    `heard`: what it has reported; `go` lets a part go on that waits for it.
    """

    def __init__(self, lines: ModuleType, part: Callable[[Line, int], None]) -> None:
        self.heard: list[Report] = []
        self.mail = Mail(lambda child, report: self.heard.append(report))
        ours, theirs = lines.line_pair()
        waiting, self._start = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                ours.close()
                part(theirs, waiting)
            finally:
                os._exit(0)
        theirs.close()
        os.close(waiting)
        trace = system.memory_file("trace")
        self.child = Child(ProcessRow("part", ()), pid, os.pidfd_open(pid), ours, trace)
        self.mail.begin(self.child)

    def go(self) -> None:
        """Let the process go on."""
        os.write(self._start, b"go")

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the loop turn until it is so."""
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                await asyncio.sleep(0.01)

    def is_idle(self) -> bool:
        """Tell whether the loop waits for the line to take or bring nothing; that ends here."""
        loop, line = asyncio.get_running_loop(), self.child.control.fileno()
        return not (loop.remove_writer(line) or loop.remove_reader(line))

    def close(self) -> None:
        """End the process."""
        os.close(self._start)
        self.child.kill()
        self.child.reap()


def play(
    lines: ModuleType,
    part: Callable[[Line, int], None],
    scene: Callable[[Office], Awaitable[None]],
) -> None:
    """Play a scene with a process that plays a part."""

    async def run() -> None:
        office = Office(lines, part)
        try:
            await scene(office)
        finally:
            office.close()

    asyncio.run(run())


def messages(line: Line) -> list[Order]:
    """Read orders until SetLink has come; wait for those that are to come."""
    orders: list[Order] = []
    while not orders or not isinstance(orders[-1], SetLink):
        select.select([line], [], [], LIMIT_S)
        try:
            orders += decode_orders(line.receive()[0])  # type: ignore[arg-type]
        except BlockingIOError:
            continue
    return orders


def count_later(line: Line, waiting: int) -> None:
    """Read nothing until told to; then say what came, if it came in order."""
    os.read(waiting, 9)
    orders = messages(line)
    line.send(encode_report(Failed(f"{len(orders)}, {orders[:-1] == MANY}")), [])
    os.read(waiting, 9)


@SYSTEMS
def test_orders_that_find_no_room_arrive_when_there_is_some(system_of_lines: ModuleType) -> None:
    async def scene(office: Office) -> None:
        office.mail.send([office.child], MANY)
        office.mail.send([office.child], [SetLink(up=True, mtu=1380)])
        await asyncio.sleep(0.1)
        assert office.heard == []
        office.go()
        await office.until(lambda: bool(office.heard))
        assert office.heard == [Failed(f"{len(MANY) + 1}, True")]
        loop = asyncio.get_running_loop()
        assert not loop.remove_writer(office.child.control.fileno()), "it waits for room no more"

    play(system_of_lines, count_later, scene)


def leave_a_word(line: Line, waiting: int) -> None:
    """Say two things and end."""
    for report in (Ready(), Failed("no more")):
        line.send(encode_report(report), [])


@SYSTEMS
def test_what_a_process_said_before_it_ended_is_heard(system_of_lines: ModuleType) -> None:
    async def scene(office: Office) -> None:
        select.select([office.child.end], [], [], LIMIT_S)  # the loop has not turned meanwhile
        office.mail.end(office.child)
        assert office.heard == [Ready(), Failed("no more")]
        assert office.is_idle()

    play(system_of_lines, leave_a_word, scene)


@SYSTEMS
def test_orders_that_wait_for_a_process_that_ended_are_waited_for_no_more(
    system_of_lines: ModuleType,
) -> None:
    async def scene(office: Office) -> None:
        office.mail.send([office.child], MANY)
        office.child.kill()
        select.select([office.child.end], [], [], LIMIT_S)
        office.mail.end(office.child)
        assert office.is_idle()

    play(system_of_lines, count_later, scene)


def hang_up(line: Line, waiting: int) -> None:
    """Hang up, and go on living."""
    line.send(encode_report(Ready()), [])
    line.close()
    os.read(waiting, 9)


@SYSTEMS
def test_a_process_that_hangs_up_and_lives_on_costs_the_loop_nothing(
    system_of_lines: ModuleType,
) -> None:
    async def scene(office: Office) -> None:
        await office.until(lambda: bool(office.heard))
        await asyncio.sleep(0.1)
        assert office.is_idle()
        office.mail.send([office.child], [SetLink(up=True, mtu=1380)])  # nobody is there
        assert office.is_idle()
        assert office.heard == [Ready()]

    play(system_of_lines, hang_up, scene)
