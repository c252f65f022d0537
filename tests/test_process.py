"""The run loop: a process of roles that a test has written, and its supervisor's part."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator

import pytest

from wgmp import process, system
from wgmp.counters import Counter
from wgmp.events import AnyEvent, EventsLost, SessionExpired
from wgmp.fabric import Fabric
from wgmp.offload import Offloads
from wgmp.orders import (
    Begin,
    Drain,
    Drained,
    Failed,
    Happened,
    LoopOrder,
    Order,
    Ready,
    Report,
    SetLink,
    SetPrivateKey,
    decode_report,
    encode_orders,
)
from wgmp.record import Kind
from wgmp.role import Devices, Role, RoleContext
from wgmp.topology import Shape, build

LIMIT_S = 10
DEVICES = Devices([], [], Offloads())


class Actor(Role):
    """A role that tells what happens to it through a pipe, and plays tun_writer's part."""

    def __init__(self, context: RoleContext, tell: int) -> None:
        super().__init__(context)
        self._pipe = tell

    def tell(self, text: str) -> None:
        """Say a line."""
        os.write(self._pipe, f"{text}\n".encode())

    def obey(self, order: Order, now: float, sockets: list[socket.socket]) -> None:
        """Tell of it."""
        self.tell(f"obey {type(order).__name__}")

    def step(self, now: float) -> bool:
        """Take a record."""
        (ring,) = self.inputs
        record = ring.peek()
        if record is not None:
            self.tell(f"record {bytes(record.packets()[0]).decode()}")
            ring.release()
        return ring.waiting() > 0

    def teardown(self) -> None:
        """Tell of it."""
        self.tell("teardown")


class Stage:
    """A process with one role, and everything that its neighbours would do."""

    def __init__(self, role: Callable[[RoleContext, int], Role]) -> None:
        self.fabric = Fabric(build(Shape.PIPELINE, 1))
        self._reader, tell = os.pipe()
        os.set_blocking(self._reader, False)
        self.line, theirs = system.line_pair()
        self._heard = ""
        self.code: int | None = None
        self.pid = os.fork()
        if not self.pid:
            code = 70
            try:
                signal.alarm(2 * LIMIT_S)
                self.line.close()
                context = self.fabric.context("tun_writer", DEVICES)
                bell = self.fabric.doorbells["tun_writer"]
                trace = os.open(os.devnull, os.O_WRONLY)
                path = self.fabric.fastpath
                code = process.run(lambda: [role(context, tell)], bell, theirs, [], trace, path)
            finally:
                os._exit(code)
        os.close(tell)
        theirs.close()
        self.ring = self.fabric.context("worker0", DEVICES).outputs["tun_writer"]

    def order(self, *orders: Order | LoopOrder) -> None:
        """Send orders."""
        for message in encode_orders(orders):
            self.line.send(message, [])

    def report(self) -> Report | None:
        """Return the next report, None when the process has ended."""
        assert select.select([self.line], [], [], LIMIT_S)[0], "nothing is reported"
        message, _ = self.line.receive()
        return decode_report(message) if message else None

    def offer(self, text: str) -> None:
        """Let a record wait for the process."""
        record = self.ring.reserve()
        assert record is not None
        record.begin(Kind.PACKETS)
        record.append(text.encode())
        self.ring.publish()

    def hear(self, last: str) -> list[str]:
        """Return all that the role has told, up to a line."""
        while last not in self._heard.splitlines():
            assert select.select([self._reader], [], [], LIMIT_S)[0], f"no {last}: {self._heard}"
            text = os.read(self._reader, 1 << 16).decode()
            assert text, f"the process ended: {self._heard}"
            self._heard += text
        before, found, self._heard = self._heard.partition(f"{last}\n")
        return (before + found).splitlines()

    def end(self) -> int:
        """Hang up and return the process's exit code."""
        if self.code is None:
            self.line.hang_up()
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code

    def close(self) -> None:
        """End it, and let everything go."""
        self.end()
        self.line.close()
        os.close(self._reader)
        self.fabric.close()


MakeStage = Callable[[Callable[[RoleContext, int], Role]], Stage]


@pytest.fixture
def stage() -> Iterator[MakeStage]:
    """Make stages that are closed with the test."""
    made: list[Stage] = []

    def make(role: Callable[[RoleContext, int], Role]) -> Stage:
        made.append(Stage(role))
        assert made[-1].report() == Ready()
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_nothing_is_done_before_the_order_to_begin_and_the_end_is_in_order(
    stage: MakeStage,
) -> None:
    one = stage(Actor)
    one.offer("first")
    one.order(SetPrivateKey(b""), SetLink(True, 1420))
    one.order(Begin())
    order = ["obey SetPrivateKey", "obey SetLink", "obey Begin", "record first"]
    assert one.hear("record first") == order
    one.offer("second")
    assert one.hear("record second") == ["record second"]
    one.line.hang_up()
    assert one.hear("teardown") == ["teardown"]
    assert one.report() is None
    assert one.end() == 0


def test_one_that_is_told_to_stop_before_it_begins_touches_nothing(stage: MakeStage) -> None:
    one = stage(Actor)
    one.offer("left")
    assert one.end() == 0
    assert one.ring.waiting() == 1


@pytest.mark.parametrize(("deaths", "taken"), [(1, ["one", "two"]), (2, ["two"])])
def test_after_two_young_deaths_the_oldest_record_is_skipped_and_counted(
    stage: MakeStage, deaths: int, taken: list[str]
) -> None:
    one = stage(Actor)
    for text in ("one", "two"):
        one.offer(text)
    one.order(Begin(deaths=deaths))
    assert one.hear("record two") == ["obey Begin", *(f"record {each}" for each in taken)]
    drops = one.fabric.counters["tun_writer"].drops()
    assert drops == ({"ring_corrupt": 1} if deaths == 2 else {})


def test_a_broken_invariant_ends_the_process_and_is_reported_with_its_place(
    stage: MakeStage,
) -> None:
    class Broken(Actor):
        def step(self, now: float) -> bool:
            raise AssertionError("two is not three")

    one = stage(Broken)
    one.order(Begin())
    failed = one.report()
    assert isinstance(failed, Failed)
    assert failed.message.startswith("AssertionError: two is not three (test_process.py:")
    assert one.report() is None
    assert one.end() == 1


def test_orders_that_are_none_end_the_process(stage: MakeStage) -> None:
    one = stage(Actor)
    one.line.send(b"\xc1 no orders", [])
    failed = one.report()
    assert isinstance(failed, Failed)
    assert failed.message.startswith("DecodeError: ")
    assert one.end() == 1


def test_a_role_that_cannot_be_built_is_reported() -> None:
    def build_it(context: RoleContext, tell: int) -> Role:
        raise OSError(28, "No space left on device")

    one = Stage(build_it)
    failed = one.report()
    assert isinstance(failed, Failed)
    assert failed.message.startswith("OSError: [Errno 28] No space left on device (test_process")
    assert one.end() == 1
    one.close()


def test_draining_works_off_the_rings_and_reads_nothing_more(stage: MakeStage) -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    class Reader(Actor):
        def descriptors(self) -> list[int]:
            return [theirs.fileno()]

        def step(self, now: float) -> bool:
            if self.readable:  # and stays so, for there may be more
                with contextlib.suppress(BlockingIOError):
                    self.tell(f"read {theirs.recv(100).decode()}")
            return super().step(now)

    one = stage(Reader)
    one.order(Begin())
    ours.send(b"before")
    one.hear("read before")
    one.order(Drain())
    assert one.report() == Drained()
    ours.send(b"after")
    one.offer("record")
    assert one.hear("record record") == ["record record"]
    assert one.end() == 0
    assert theirs.recv(100) == b"after", "it waits for the successor"
    ours.close()
    theirs.close()


def test_a_role_that_waits_for_a_socket_is_woken_by_it_and_does_not_turn_meanwhile(
    stage: MakeStage,
) -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    fill(theirs)

    class Writer(Actor):
        waits: int | None = None
        turns = 0

        def blocked_on(self) -> int | None:
            return self.waits

        def step(self, now: float) -> bool:
            self.turns += 1
            (ring,) = self.inputs
            self.waits = None
            while ring.peek() is not None:
                try:
                    theirs.send(b"x")
                except BlockingIOError:
                    self.waits = theirs.fileno()
                    return False
                ring.release()
                self.tell(f"sent after {'few' if self.turns < 500 else 'many'} turns")
            return False

    one = stage(Writer)
    one.order(Begin())
    one.hear("obey Begin")
    one.offer("record")
    beats = one.fabric.counters["tun_writer"]
    before = beats.value(Counter.HEARTBEAT)
    while beats.value(Counter.HEARTBEAT) == before:  # it turns once a second, no more
        select.select([], [], [], 0.01)
    for _ in range(40):  # were it woken by the clock, that would take longer than it lives
        drain(ours)
        one.hear("sent after few turns")
        fill(theirs)
        one.offer("record")
    drain(ours)
    ours.close()
    theirs.close()


def fill(sock: socket.socket) -> None:
    """Send until the socket takes no more."""
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(4096))


def drain(sock: socket.socket) -> None:
    """Receive all there is."""
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.recv(1 << 16, socket.MSG_DONTWAIT)


class Talker(Actor):
    """Tells more events of a record than there is room for."""

    def step(self, now: float) -> bool:
        """Tell them before it takes the record."""
        for _ in range(self.inputs[0].waiting() and 1000):
            self.emit(SessionExpired(peer="k" * 40_000))
        return super().step(now)


def test_events_that_find_no_room_are_lost_and_counted(stage: MakeStage) -> None:
    one = stage(Talker)
    one.order(Begin())
    one.offer("talk")
    one.hear("record talk")  # nobody read, and it went on
    told: list[AnyEvent] = []
    while not told or not isinstance(told[-1], EventsLost):
        report = one.report()
        assert isinstance(report, Happened)
        told.append(report.event)
    assert len(told) - 1 + told[-1].count == 1000
    assert one.end() == 0


def test_a_report_waits_for_room_behind_events(stage: MakeStage) -> None:
    one = stage(Talker)
    one.order(Begin())
    one.offer("talk")
    one.hear("record talk")
    one.order(Drain())
    while isinstance(report := one.report(), Happened):
        pass
    assert report == Drained()
