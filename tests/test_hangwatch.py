"""Which processes are taken for hung, under a clock moved by hand."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from wgmp import system
from wgmp.child import Child
from wgmp.counters import Counter, Counters, create_counters
from wgmp.hangwatch import HANG_LIMIT_S, LOOK_EVERY_S, HangWatch
from wgmp.topology import ProcessRow


class Scene:
    """A real process with two roles, whose heartbeats the test stores, and a watch."""

    def __init__(self) -> None:
        segment = create_counters(2)
        self.counters = {"reader": Counters(segment, 0), "writer": Counters(segment, 1)}
        self.watch = HangWatch(self.counters)
        self.now = 100.0
        lifeline = system.Lifeline()
        pid = os.fork()
        if not pid:
            signal.pause()
        control, _ = system.line_pair()
        row, end = ProcessRow("both", ("reader", "writer")), lifeline.in_parent(pid)
        self.child = Child(row, pid, end, control, system.memory_file("trace"))
        self.child.ready = True

    def look(self, seconds: float = LOOK_EVERY_S) -> list[Child]:
        """Let time pass and look once."""
        self.now += seconds
        return self.watch.look([self.child], self.now)

    def looks(self, seconds: float, beat: bool = False) -> list[Child]:
        """Look again and again for so long; return those that were found to hang."""
        found = []
        for _ in range(int(seconds / LOOK_EVERY_S)):
            if beat:
                self.counters["writer"].add(Counter.HEARTBEAT)
            found += self.look()
        return found

    def close(self) -> None:
        """End the process."""
        self.child.kill()
        self.child.reap()


@pytest.fixture
def scene() -> Iterator[Scene]:
    """Give a scene whose process ends with the test."""
    made = Scene()
    yield made
    made.close()


def test_a_loop_that_does_not_turn_is_found_once(scene: Scene) -> None:
    assert scene.looks(5, beat=True) == []
    assert scene.looks(HANG_LIMIT_S - 0.5) == []
    assert scene.looks(5) == [scene.child]
    assert scene.child.hung_s is not None
    assert scene.child.hung_s >= HANG_LIMIT_S


def test_time_that_the_watch_did_not_see_does_not_count(scene: Scene) -> None:
    scene.looks(1, beat=True)
    assert scene.look(3600) == [], "everybody was stopped, and nobody had a turn since"
    assert scene.looks(HANG_LIMIT_S - 0.5) == []
    assert scene.looks(10, beat=True) == []


def test_a_process_that_is_not_ready_yet_has_more_time(scene: Scene) -> None:
    scene.child.ready = False
    assert scene.looks(10) == []
    assert scene.looks(10) == [scene.child]
