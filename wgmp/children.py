"""The role processes of a gateway: started, replaced when they die, ended.

| a process | what is done |
|---|---|
| is forked | it is sent the whole configuration, and all changes from then on |
| says that it is ready | nothing; it begins when it is told to |
| dies | a successor inherits the same rings and descriptors, at once or later (`deaths.py`) |
| hangs (`hangwatch.py`) | it is ended, and so it dies |
| cannot start at all, or keeps dying | the gateway is stopped, with the reason |

A second generation of them, with rings of its own, is recruited while the first works, and begins
when that has left (`resharding.py`, `succession.py`). Two processes of one role never work at once:
they would write the same rings.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from typing import Protocol

from wgmp import logs
from wgmp.child import Child
from wgmp.deaths import Deaths
from wgmp.errors import ControlError, RoleError, WgmpError
from wgmp.eventhub import EventHub
from wgmp.events import RoleRestarted
from wgmp.fabric import Fabric
from wgmp.hangwatch import ABORT_GRACE_S, LOOK_EVERY_S, HangWatch
from wgmp.mail import Mail
from wgmp.orders import (
    Begin,
    Drained,
    Failed,
    Happened,
    LoopOrder,
    Moved,
    Order,
    Ready,
    Report,
    SetPeer,
    row_of,
)
from wgmp.peertable import ROWS
from wgmp.system import boottime
from wgmp.topology import ProcessRow

log = logging.getLogger("wgmp")

_BOOT_LIMIT_S = 20.0
_STOP_LIMIT_S = 2.0
_POLL_S = 0.02


class Parent(Protocol):
    """What the processes have from their supervisor."""

    def fork(self, row: ProcessRow, fabric: Fabric) -> Child:
        """Return a new process with its descriptors. Raises OSError."""

    def configuration(self) -> Iterable[Order]:
        """Return all that a process has to know before it begins."""

    def stop(self, failure: WgmpError) -> None:
        """Begin the end of the gateway, because of `failure`."""


class Children:
    """The processes of `fabric`, forked by `parent`; what happens to them goes to `events`.

    `fabric`: the one that works, of the generation that works. `living`: its processes, by name.
    `deaths`: the books of those that ended.
    """

    def __init__(self, parent: Parent, fabric: Fabric, events: EventHub) -> None:
        self.fabric = fabric
        self.events = events
        self.living: dict[str, Child] = {}
        self.deaths = Deaths()
        self.deaths.open_books(row.name for row in fabric.topology.processes)
        self._parent = parent
        self._mail = Mail(self._heed)
        self._hang_watch = HangWatch(fabric.counters)
        self._newcomers: list[Child] = []
        # Nobody is replaced: while a generation leaves, and from the beginning of the end.
        self._leaving = False
        self._ending = False
        self._all_ready = asyncio.Event()

    # --- one generation ---

    def fill(self) -> None:
        """Start each process of the topology that does not run; stop the gateway if that fails."""
        self._leaving = False
        if self._ending:
            return
        for row in self.fabric.topology.processes:
            if row.name not in self.living:
                try:
                    self._start(row)
                except OSError as error:
                    self._parent.stop(RoleError(f"{row.name} {_not_forked(error)}"))
                    return

    async def wait_until_ready(self) -> None:
        """Return when all are ready, or the end has begun. Raises RoleError after a while."""
        try:
            async with asyncio.timeout(_BOOT_LIMIT_S):
                await self._all_ready.wait()
        except TimeoutError:
            late = [name for name, child in self.living.items() if not child.ready]
            raise RoleError(f"not ready after {_BOOT_LIMIT_S:.0f} s: {', '.join(late)}") from None

    def replace_nobody(self) -> None:
        """The end begins: whoever ends from now on has no successor."""
        self._ending = True
        self._all_ready.set()

    async def stop(self) -> None:
        """End all processes, the newcomers too; return when the living have ended."""
        self.replace_nobody()
        for child in self.everybody():
            child.stop()
        for _ in range(int(_STOP_LIMIT_S / _POLL_S)):
            if not self.living:
                return
            await asyncio.sleep(_POLL_S)
        for child in self.living.values():
            log.warning("%s does not stop: killing it", child.row.name)
            child.kill()
        while self.living:
            await asyncio.sleep(_POLL_S)

    def _start(self, row: ProcessRow) -> None:
        assert row.name not in self.living
        child = self.living[row.name] = self._fork(row, self.fabric)
        self.send([child], [Begin(deaths=self.deaths.in_a_row[row.name])])

    def _fork(self, row: ProcessRow, fabric: Fabric) -> Child:
        """Return a new process that knows the configuration and waits for the order to begin."""
        with logs.timed(f"starting {row.name}"):
            child = self._parent.fork(row, fabric)
        asyncio.get_running_loop().add_reader(child.end, self._bury, child)
        self._mail.begin(child)
        orders = list(self._parent.configuration())
        self._assign(orders)
        self.send([child], orders)
        return child

    # --- deaths ---

    def watch_for_hangs(self) -> None:
        """From now on, end the processes whose loops do not turn."""
        loop = asyncio.get_running_loop()
        for child in self._hang_watch.look(self.living.values(), time.monotonic()):
            self.deaths.hangs[child.row.name] += 1
            child.abort()
            loop.call_later(ABORT_GRACE_S, child.kill)
        loop.call_later(LOOK_EVERY_S, self.watch_for_hangs)

    def _bury(self, child: Child) -> None:
        """A process has ended: collect it, and replace it unless it was to end."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(child.end)
        self._mail.end(child)
        name = child.row.name
        how = child.reap()
        if self.living.get(name) is not child:
            return  # it never began
        at_start = self._is_starting(child)
        del self.living[name]
        if self._ending or self._leaving:
            return
        if at_start:
            said = f"cannot start: {child.failure}" if child.failure else ""
            self._parent.stop(RoleError(f"{name} {said or f'{how} before it was ready'}"))
            return
        self._succeed(child.row, how, boottime() - child.started_at, child.killed)

    def _is_starting(self, child: Child) -> bool:
        """Tell whether a process is the first of its name, and has not come up yet."""
        name = child.row.name
        first = self.living.get(name) is child and not self.deaths.restarts[name]
        return first and not child.ready

    def _succeed(self, row: ProcessRow, how: str, age_s: float, killed: bool = False) -> None:
        """Let a successor come, or give up. `how` the last one ended, `age_s` old, in words."""
        delay_s = self.deaths.died(row.name, age_s, killed)
        if delay_s is None:
            count = self.deaths.in_a_row[row.name]
            failure = RoleError(f"{row.name} {how}, for the {count}th time in a row: giving up")
            self._parent.stop(failure)
            return
        self.events.publish(RoleRestarted(process=row.name, how=how, delay_s=delay_s))
        asyncio.get_running_loop().call_later(delay_s, self._replace, row)

    def _replace(self, row: ProcessRow) -> None:
        """Start a successor, unless its place is taken by now, or there is none any more."""
        vacant = row in self.fabric.topology.processes and row.name not in self.living
        if vacant and not self._leaving and not self._ending:
            try:
                self._start(row)
            except OSError as error:
                self._succeed(row, _not_forked(error), 0.0)

    # --- a second generation ---

    def recruit(self, fabric: Fabric) -> list[Child]:
        """Fork the processes of a fabric that does not work yet. They wait, and hear all changes.

        Raises ControlError when there cannot be so many; `dismiss` ends those that were forked.
        """
        another = fabric is not self.fabric
        if another:
            self.fabric.keep_from_children()
        try:
            for row in fabric.topology.processes:
                self._newcomers.append(self._fork(row, fabric))
        except OSError as error:
            raise ControlError(f"no more processes can be started: {error.strerror}") from error
        finally:
            if another:
                self.fabric.keep_from_children(False)
        return self._newcomers

    async def dismiss(self) -> None:
        """End the processes that were recruited."""
        newcomers, self._newcomers = self._newcomers, []
        for child in newcomers:
            if not child.ended.is_set():
                child.kill()
                await child.ended.wait()

    def hand_over(self) -> list[Child]:
        """Replace nobody until `begin` or `fill`; return the processes that are to leave."""
        self._leaving = True
        return list(self.living.values())

    def begin(self, fabric: Fabric, newcomers: Sequence[Child], orderly: bool) -> None:
        """Let the newcomers begin in the place of those who have ended, in order or not."""
        self.fabric = fabric
        self.living = {child.row.name: child for child in newcomers}
        self._newcomers = []
        self._leaving = False
        self.deaths.open_books(self.living)
        for row in range(ROWS):
            fabric.peers.set_owner(row, row % fabric.topology.workers)
        self.send(newcomers, [Begin(orderly)])
        for child in newcomers:
            if child.ended.is_set():
                del self.living[child.row.name]
                self._replace(child.row)

    # --- orders and reports ---

    def everybody(self) -> list[Child]:
        """Return all processes, the newcomers too."""
        return [*self.living.values(), *self._newcomers]

    def tell(self, orders: Sequence[Order | LoopOrder], descriptors: Sequence[int] = ()) -> None:
        """Send orders to all processes, the newcomers too."""
        self._assign(orders)
        self.send(self.everybody(), orders, descriptors)

    def send(
        self,
        children: Sequence[Child],
        orders: Sequence[Order | LoopOrder],
        descriptors: Sequence[int] = (),
    ) -> None:
        """Send orders to some of the processes."""
        self._mail.send(children, orders, descriptors)

    def _assign(self, orders: Iterable[Order | LoopOrder]) -> None:
        """Give each peer its owner, before any role hears of it."""
        for order in orders:
            if isinstance(order, SetPeer):
                owner = row_of(order.peer) % self.fabric.topology.workers
                self.fabric.peers.set_owner(order.peer, owner)

    def _heed(self, child: Child, report: Report) -> None:
        match report:
            case Ready():
                child.ready = True
                child.started.set()
                if all(each.ready for each in self.living.values()):
                    self._all_ready.set()
            case Drained():
                child.drained.set()
            case Moved():
                child.has_moved()
            case Happened(event):
                self.events.publish(event)
            case Failed(text):
                child.failure = text
                if not self._is_starting(child):  # else it is why the gateway stops
                    log.error("%s: %s", child.row.name, text)


def _not_forked(error: OSError) -> str:
    return f"cannot be forked: {error.strerror}"
