"""One process as the supervisor holds it: what it is sent, and what is left when it cannot be."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.descriptors import open_files, room_for
from wgmp import child, system
from wgmp.child import Child
from wgmp.fabric import Fabric
from wgmp.offload import Offloads
from wgmp.role import Devices
from wgmp.topology import ProcessRow, Shape, build

ROW = ProcessRow("gateway", ())


@pytest.mark.parametrize("room", range(4))
def test_a_process_that_cannot_be_had_leaves_nothing_behind(room: int) -> None:
    fabric = Fabric(build(Shape.COMPACT, 1))
    before = open_files()
    with room_for(room), pytest.raises(OSError, match="Too many open files"):
        child.spawn(fabric.topology.processes[0], fabric, Devices([], [], Offloads()))
    assert open_files() == before
    with pytest.raises(ChildProcessError):  # not a dead one either
        os.waitpid(-1, os.WNOHANG)
    fabric.close()


class Held:
    """A process that does nothing, and the end of the line that it would read."""

    def __init__(self) -> None:
        ours, self.line = system.line_pair()
        pid = os.fork()
        if not pid:
            time.sleep(20)
            os._exit(0)
        self.child = Child(ROW, pid, os.pidfd_open(pid), ours, system.memory_file("trace"))

    def fill(self) -> None:
        """Send orders that nobody reads, until some have to wait."""
        while not self.child.send([bytes(60_000)], []):
            pass

    def read(self) -> list[tuple[bytes, list[int]]]:
        """Read all that is sent, and what waited."""
        messages = []
        waits = True
        while waits:
            with suppress(BlockingIOError):
                while True:
                    messages.append(self.line.receive())
            waits = self.child.flush()
        with suppress(BlockingIOError):
            while True:
                messages.append(self.line.receive())
        return messages


@pytest.fixture
def held() -> Iterator[Held]:
    """Give a test such a process."""
    before = open_files()
    made = Held()
    yield made
    if not made.child.ended.is_set():
        made.child.kill()
        made.child.reap()
    made.line.close()
    assert open_files() == before


def test_descriptors_that_wait_with_their_order_are_still_what_they_were(held: Held) -> None:
    held.fill()
    meant = os.memfd_create("meant")
    inode = os.fstat(meant).st_ino
    assert held.child.send([b"order"], [meant])
    os.close(meant)
    another = os.memfd_create("another")  # it has the same number, as a rule
    message, (came,) = held.read()[-1]
    assert message == b"order"
    assert os.fstat(came).st_ino == inode
    os.close(another)
    os.close(came)


def test_descriptors_of_orders_that_nobody_will_read_are_closed(held: Held) -> None:
    held.fill()
    held.child.send([b"order"], [0])


def test_a_process_that_is_to_end_is_sent_no_more_and_not_killed_for_it(held: Held) -> None:
    held.child.stop()
    assert not held.child.send([b"order"], [0])
    assert os.waitid(os.P_PID, held.child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def test_a_process_that_orders_cannot_reach_is_ended(held: Held) -> None:
    assert not held.child.send([bytes(64 << 20)], [])  # no socket takes a message as long
    assert os.waitid(os.P_PID, held.child.pid, os.WEXITED | os.WNOWAIT)
    assert held.child.reap() == "was killed by SIGKILL"
