"""One role process as the supervisor sees it: forked, told what to do, watched, reaped.

A child is forked from the supervisor, so that it inherits the shared memory and the
descriptors; it keeps the descriptors it needs and closes every other. It dies with its
supervisor (`system.die_with`), so that a supervisor killed outright leaves no orphans.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Iterable
from typing import Never

from wgmp import logs, process, sandbox, system
from wgmp.fabric import Fabric
from wgmp.role import Devices, Role
from wgmp.roles import build_role
from wgmp.sandbox import OFF, Sandbox
from wgmp.syscalls import signal_name
from wgmp.system.line import Line
from wgmp.topology import ProcessRow

log = logging.getLogger("wgmp")

_TRACE_BYTES = 1 << 16


class Child:
    """A running role process. `end` is readable when it has ended; `control` carries reports.

    `ready`: it has said that it has all it needs. `started`: it has, or has ended; `drained`: it
    reads nothing more, or has ended; `moved`: it has closed all UDP sockets but those it was sent
    last, or has ended; `ended`: it has been reaped, and `ended_in_order`, or was `killed` by
    somebody else, or neither.
    `started_at`: boot time. `hung_s`: how long its loop had not turned when it was found to
    hang, else None. `failure`: why it could not start or go on, in its words, "" for nothing said.
    `_trace`: a file in memory, where it writes its stack when a signal ends it.
    """

    def __init__(self, row: ProcessRow, pid: int, end: int, control: Line, trace: int) -> None:
        self.row = row
        self.pid = pid
        self.end = end
        self.control = control
        self.ready = False
        self.started = asyncio.Event()
        self.drained = asyncio.Event()
        self.moved = asyncio.Event()
        self.moved.set()
        self.ended = asyncio.Event()
        self.ended_in_order = self.killed = False
        self.started_at = system.boottime()
        self.hung_s: float | None = None
        self.failure = ""
        self._trace = trace
        self._condemned = False
        self._moves = 0
        self._queue: deque[tuple[bytes, list[int]]] = deque()

    def send(self, messages: Iterable[bytes], descriptors: list[int]) -> bool:
        """Queue encoded orders and send what the socket takes; return whether some still wait.

        `descriptors`: go with the first message, and may be closed when this returns.
        """
        if self.ended.is_set():
            return False
        try:
            for message in messages:
                # Copies: until the socket takes the message, the numbers may be another's.
                self._queue.append((message, [os.dup(each) for each in descriptors]))
                descriptors = []
        except OSError as error:
            self._give_up(error)
        return self.flush()

    def flush(self) -> bool:
        """Send queued orders; return whether some still wait for the process to read."""
        try:
            while self._queue:
                self.control.send(*self._queue[0])
                self._forget_first()
            return self.control.flush()
        except BlockingIOError:
            return True
        except ConnectionError:
            self._forget_queue()  # it has died, or is to end
        except OSError as error:
            self._give_up(error)
        return False

    def move(self) -> None:
        """Note that it is sent other UDP sockets."""
        if not self.ended.is_set():
            self._moves += 1
            self.moved.clear()

    def has_moved(self) -> None:
        """Note that it has closed those that it had before."""
        self._moves -= 1
        if not self._moves:
            self.moved.set()

    def _give_up(self, error: OSError) -> None:
        """End a process that orders cannot reach; its successor is sent everything anew."""
        log.error("%s cannot be told anything, and is ended: %s", self.row.name, error.strerror)
        self._forget_queue()
        self.kill()

    def _forget_first(self) -> None:
        _, descriptors = self._queue.popleft()
        for descriptor in descriptors:
            os.close(descriptor)

    def _forget_queue(self) -> None:
        while self._queue:
            self._forget_first()

    def stop(self) -> None:
        """Ask the process to end: its control socket reads as closed."""
        self.control.hang_up()

    def kill(self) -> None:
        """End the process at once."""
        self._condemned = True
        self._signal(signal.SIGKILL)

    def abort(self) -> None:
        """Let the process write down where it is, and end. One that is stopped does neither."""
        self._signal(signal.SIGABRT)

    def _signal(self, number: signal.Signals) -> None:
        if not self.ended.is_set():  # until it is reaped its number is nobody else's
            os.kill(self.pid, number)

    def reap(self) -> str:
        """Collect the ended process; return how it ended, in words."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        stack = os.pread(self._trace, _TRACE_BYTES, 0).decode(errors="replace")
        if stack:
            log.error("%s was here:\n%s", self.row.name, stack.strip())
        for descriptor in (self.end, self._trace):
            os.close(descriptor)
        self.control.close()
        self._forget_queue()
        how = "" if self.hung_s is None else f"did not turn its loop for {self.hung_s:.1f} s and "
        self.ended_in_order = not code and not how
        self.killed = code == -signal.SIGKILL and not self._condemned
        for event in (self.started, self.drained, self.moved, self.ended):
            event.set()
        if code >= 0:
            return f"{how}exited with {code}"
        return f"{how}was killed by {signal_name(-code)}"


def spawn(
    row: ProcessRow, fabric: Fabric, devices: Devices, silent: bool = False, limits: Sandbox = OFF
) -> Child:
    """Fork the process of `row`; it reports on its control socket. Raises OSError.

    `silent`: it prints nothing, for whoever started the daemon may wait for its output's end.
    `limits`: what it gives up before its loop begins.
    """
    with contextlib.ExitStack() as undo:
        ours, theirs = system.line_pair()
        undo.callback(ours.close)
        undo.callback(theirs.close)
        trace = system.memory_file(f"trace of {row.name}")
        undo.callback(os.close, trace)
        lifeline = system.Lifeline()
        undo.callback(lifeline.close)
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if not pid:
            ends = lifeline.in_child()
            _live(row, fabric, devices, silent, limits, theirs, trace, ends, parent)
        undo.callback(_undo_fork, pid)
        end = lifeline.in_parent(pid)
        undo.pop_all()
    theirs.close()
    return Child(row, pid, end, ours, trace)


def _undo_fork(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _live(
    row: ProcessRow,
    fabric: Fabric,
    devices: Devices,
    silent: bool,
    limits: Sandbox,
    control: Line,
    trace: int,
    lifeline: list[int],
    parent: int,
) -> Never:
    """Be the process that was forked, to its end."""
    code = 70  # EX_SOFTWARE, sysexits.h
    try:
        # The parent's objects must never be collected here: closing them by number would close
        # what this process opens under the same number.
        gc.freeze()
        system.die_with(parent)
        if silent:
            _close_output()
        system.set_name(f"wgmp:{row.name}")
        logs.name_process(row.name)
        bells = [end for bell in fabric.doorbells.values() for end in bell.descriptors()]
        queues = [descriptor for queue in devices.tun for descriptor in queue.descriptors()]
        outside = [*queues, *(sock.fileno() for sock in devices.sockets)]
        system.close_others([control.fileno(), trace, *lifeline, *bells, *outside])

        def build() -> list[Role]:
            fabric.guard_sessions(row.roles)
            roles = [build_role(fabric.context(role, devices)) for role in row.roles]
            sandbox.enter(limits)
            return roles

        bell = fabric.doorbells[row.name]
        code = process.run(build, bell, control, devices.sockets, trace, fabric.fastpath)
    finally:
        os._exit(code)


def _close_output() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        os.dup2(null, descriptor)
