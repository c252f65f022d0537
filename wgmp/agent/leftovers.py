"""What an agent that was killed left behind, found and cleared by the next one.

The agent writes down which gateways it runs. They end with it, but the next agent may be faster;
and rules, firewall tables, the resolver and hooks are undone by their journals (manage/journal.py)
only when somebody reads them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from pathlib import Path

import msgspec

from wgmp.agent.gateway_process import remove_sockets
from wgmp.errors import UNDECODABLE, PrivilegeError
from wgmp.files import write_whole
from wgmp.manage import link
from wgmp.manage.journal import Journal
from wgmp.manage.runner import Runner

log = logging.getLogger("wgmp")

_LIMITS_S = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 2.0))
_POLL_S = 0.05


class RunningGateway(msgspec.Struct, frozen=True):
    """A gateway by its interface and process. `started`: clock ticks since boot (proc(5))."""

    interface: str
    pid: int
    started: int


class Ledger:
    """The file of the gateways that run, by network. Raises PrivilegeError if it takes no more."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._running = _read(path)

    def add(self, name: str, interface: str, pid: int) -> None:
        """Note that a network's gateway runs."""
        self._running[name] = RunningGateway(interface, pid, started_at(pid) or 0)
        self._write()

    def remove(self, name: str) -> None:
        """Note that a network's gateway is gone and all of it undone."""
        if self._running.pop(name, None) is not None:
            self._write()

    async def clear(self, run: Runner) -> None:
        """End and undo what the last agent left; called before the first `add`."""
        for name, gateway in list(self._running.items()):
            log.warning("%s: clearing what is left of %s", name, gateway.interface)
            await _end(gateway)
            await link.take_down(gateway.interface, run, Journal.of(gateway.interface))
            remove_sockets(gateway.interface)
            self.remove(name)

    def _write(self) -> None:
        if not self._running:
            self._path.unlink(missing_ok=True)
            return
        try:
            write_whole(self._path, msgspec.json.encode(self._running))
        except OSError as error:
            text = f"cannot write {self._path}: {error.strerror}"
            raise PrivilegeError(text, error.errno or 0) from error


def _read(path: Path) -> dict[str, RunningGateway]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, RunningGateway])
    except FileNotFoundError:
        return {}
    except UNDECODABLE as error:
        log.warning("%s is damaged, and what it names is not cleared: %s", path, error)
        return {}


async def _end(gateway: RunningGateway) -> None:
    """End the process if it is still the one that was written down."""
    loop = asyncio.get_running_loop()
    for number, limit_s in _LIMITS_S:
        deadline = loop.time() + limit_s
        if started_at(gateway.pid) == gateway.started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(gateway.pid, number)
        while started_at(gateway.pid) == gateway.started and loop.time() < deadline:
            await asyncio.sleep(_POLL_S)


def started_at(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None when it has ended.

    With its id this names a process for good (proc(5), stat, fields 3 and 22).
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
