"""One role process as the supervisor sees it: forked, told what to do, watched, reaped.

A child is forked from the supervisor, so that it inherits the shared memory and the
descriptors; it keeps the descriptors it needs and closes every other. It dies with its
supervisor (PR_SET_PDEATHSIG), so that a supervisor killed outright leaves no orphans.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Iterable

from wgmp import logs, process, sandbox
from wgmp.fabric import Fabric
from wgmp.role import Devices, Role
from wgmp.roles import build_role
from wgmp.sandbox import OFF, Sandbox
from wgmp.syscalls import PR_SET_PDEATHSIG, prctl, signal_name
from wgmp.topology import ProcessRow

log = logging.getLogger("wgmp")

# linux/prctl.h
_PR_SET_NAME = 15

_CONTROL_BUFFER_BYTES = 4 << 20
_SO_SNDBUFFORCE = 32
_TRACE_BYTES = 1 << 16


class Child:
    """A running role process. `pidfd` is readable when it has ended; `control` carries reports.

    `ready`: it has said that it has all it needs. `started`: it has, or has ended; `drained`: it
    reads nothing more, or has ended; `ended`: it has been reaped, and `ended_in_order`, or not.
    `started_at`: boot time. `hung_s`: how long its loop had not turned when it was found to
    hang, else None. `_trace`: a file in memory, where it writes its stack when a signal ends it.
    """

    def __init__(self, row: ProcessRow, pid: int, control: socket.socket, trace: int) -> None:
        self.row = row
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.control = control
        self.ready = False
        self.started = asyncio.Event()
        self.drained = asyncio.Event()
        self.ended = asyncio.Event()
        self.ended_in_order = False
        self.started_at = process.boottime()
        self.hung_s: float | None = None
        self._trace = trace
        self._queue: deque[tuple[bytes, list[int]]] = deque()

    def send(self, messages: Iterable[bytes], descriptors: list[int]) -> bool:
        """Queue encoded orders and send what the socket takes; return whether some still wait.

        `descriptors`: go with the first message.
        """
        for message in messages:
            self._queue.append((message, descriptors))
            descriptors = []
        return self.flush()

    def flush(self) -> bool:
        """Send queued orders; return whether some still wait for the process to read."""
        while self._queue:
            message, descriptors = self._queue[0]
            try:
                socket.send_fds(self.control, [message], descriptors)
            except BlockingIOError:
                return True
            except OSError:
                self._queue.clear()  # it died; its successor is sent everything anew
                return False
            self._queue.popleft()
        return False

    def stop(self) -> None:
        """Ask the process to end: its control socket reads as closed."""
        try:
            self.control.shutdown(socket.SHUT_WR)
        except OSError:
            log.debug("%s has gone already", self.row.name)

    def kill(self) -> None:
        """End the process at once."""
        self._signal(signal.SIGKILL)

    def abort(self) -> None:
        """Let the process write down where it is, and end. One that is stopped does neither."""
        self._signal(signal.SIGABRT)

    def _signal(self, number: signal.Signals) -> None:
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except (ProcessLookupError, OSError):
            log.debug("%s has gone already", self.row.name)

    def reap(self) -> str:
        """Collect the ended process; return how it ended, in words."""
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        stack = os.pread(self._trace, _TRACE_BYTES, 0).decode(errors="replace")
        if stack:
            log.error("%s was here:\n%s", self.row.name, stack.strip())
        for descriptor in (self.pidfd, self._trace):
            os.close(descriptor)
        self.pidfd = -1
        self.control.close()
        how = "" if self.hung_s is None else f"did not turn its loop for {self.hung_s:.1f} s and "
        self.ended_in_order = result is not None and not result.si_status and not how
        for event in (self.started, self.drained, self.ended):
            event.set()
        if result is None:
            return f"{how}ended"
        if result.si_code == os.CLD_EXITED:
            return f"{how}exited with {result.si_status}"
        return f"{how}was killed by {signal_name(result.si_status)}"


def spawn(
    row: ProcessRow, fabric: Fabric, devices: Devices, silent: bool = False, limits: Sandbox = OFF
) -> Child:
    """Fork the process of `row`; it reports on its control socket. Raises OSError.

    `silent`: it prints nothing, for whoever started the daemon may wait for its output's end.
    `limits`: what it gives up before its loop begins.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        ours.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _CONTROL_BUFFER_BYTES)
    except PermissionError:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _CONTROL_BUFFER_BYTES)
    trace = os.memfd_create(f"wgmp:trace of {row.name}", os.MFD_CLOEXEC)
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        pid = os.fork()
    except OSError:
        os.close(trace)
        raise
    if pid:
        theirs.close()
        return Child(row, pid, ours, trace)
    code = 70
    try:
        # The parent's objects must never be collected here: closing them by number would close
        # what this process opens under the same number.
        gc.freeze()
        _die_with(parent)
        if silent:
            _close_output()
        _set_name(f"wgmp:{row.name}")
        logs.name_process(row.name)
        bells = [bell.descriptor for bell in fabric.doorbells.values()]
        outside = [*devices.tun.descriptors(), *(sock.fileno() for sock in devices.sockets)]
        _close_all_but([theirs.fileno(), trace, *bells, *outside])

        def build() -> list[Role]:
            fabric.guard_sessions(row.roles)
            roles = [build_role(fabric.context(role, devices)) for role in row.roles]
            sandbox.enter(limits)
            return roles

        code = process.run(build, fabric.doorbells[row.name], theirs, devices.sockets, trace)
    finally:
        os._exit(code)


def _die_with(parent: int) -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before the line above


def _close_output() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        os.dup2(null, descriptor)


def _set_name(name: str) -> None:
    prctl(_PR_SET_NAME, name.encode()[:15])


def _close_all_but(kept: list[int]) -> None:
    low = 3
    for descriptor in sorted({fd for fd in kept if fd >= low}):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))
