"""A running gateway as handover.py sees it: what it holds, what it leaves, how it ends."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from msgspec import structs

from wgmp import handover, inheritance, system
from wgmp.control import Upgraded
from wgmp.errors import ControlError
from wgmp.estate import Estate, peers_of
from wgmp.opening import Opened
from wgmp.options import Options
from wgmp.syscalls import parent_death_signal
from wgmp.systemd import Manager


class Departure:
    """The gateway `opened`, started with `options`, a service of `manager`."""

    def __init__(self, opened: Opened, options: Options, manager: Manager) -> None:
        self.interface = opened.supervisor.interface
        self._supervisor = opened.supervisor
        self._server = opened.control
        self._metrics = opened.metrics
        self._options = options
        self._manager = manager
        self._keeping = asyncio.Event()
        self._keeping.set()

    async def settled(self) -> None:
        """Return when no upgrade goes on that could end this process yet, or fail."""
        await self._keeping.wait()

    async def upgrade(self, program: Sequence[str]) -> Upgraded:
        """Let `program` take over; this process has nothing to do any more when that is done.

        Raises ControlError, and the gateway goes on.
        """
        if not system.FULL:
            raise ControlError("only on Linux can a gateway be handed over: start it anew")
        if os.getpid() == 1:
            raise ControlError("this gateway is process 1, which cannot be another: start it anew")
        if parent_death_signal():
            raise ControlError(
                "this gateway lives and dies with the program that started it: start it anew there"
            )
        self._refuse_while_captured()
        async with self._supervisor.change_of_processes():
            pid, version, pause_s = await handover.hand_over(self, program)
        return Upgraded(pid, version, pause_s)

    @property
    def ending(self) -> bool:
        """Whether the gateway has been told to stop."""
        return self._supervisor.stopping.is_set()

    async def hold(self) -> None:
        """Take no request from now on: whoever asks waits."""
        self._keeping.clear()
        self._server.hold()
        await self._supervisor.hold()

    async def resume(self) -> None:
        """Take requests again; processes that were ended are forked again."""
        await self._supervisor.resume()
        await self._server.start()
        self._keeping.set()

    async def leave(self) -> bool:
        """End all processes; return whether they ended in order. Raises ControlError."""
        self._refuse_while_captured()  # one may have begun meanwhile
        return await self._supervisor.leave()

    def _refuse_while_captured(self) -> None:
        if self._supervisor.fabric.taps.busy:
            raise ControlError("a capture is running: end it, then upgrade")

    def followed_by(self, pid: int) -> None:
        """Tell systemd that process `pid` is the service now."""
        self._manager.succeeded_by(pid)

    def bequeath(self) -> tuple[Estate, list[tuple[str, int]]]:
        """Return all that goes to the successor; the descriptors stay this process's."""
        supervisor = self._supervisor
        named = [
            *supervisor.descriptors(),
            (inheritance.CONTROL, self._server.descriptor),
            *supervisor.memory.descriptors(),
        ]
        if self._metrics is not None:
            named.append((inheritance.METRICS, self._metrics.descriptor))
        return self._estate(), named

    def _estate(self) -> Estate:
        supervisor, device = self._supervisor, self._supervisor.device
        options = structs.replace(
            self._options,
            interface=supervisor.interface,
            topology=supervisor.topology.shape,
            workers=supervisor.topology.workers,
            tun_fd=None,
            uapi_fd=None,
        )
        return Estate(
            options,
            list(supervisor.fabric.counters),
            device.private_key,
            device.generations,
            peers_of(device),
            supervisor.known_link,
        )
