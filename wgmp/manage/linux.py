"""The back ends of Linux: a gateway of ours, or the kernel's own WireGuard.

They differ in how the interface comes to be; keys and peers are set by `wg`, and addresses, MTU
and routes by link.py, which journals them.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import sys
from collections.abc import Callable

import msgspec

from wgmp import uapi_server
from wgmp.config import PeerConfig, QuickConfig
from wgmp.errors import CommandError, UnsupportedPlatformError
from wgmp.manage import link, routes, wg
from wgmp.manage.backend import POLL_S, START_LIMIT_S, STOP_LIMIT_S, with_peer, without_peer
from wgmp.manage.journal import Journal
from wgmp.manage.runner import Commands, Runner
from wgmp.manage.settings import settings_of


class LinuxBackend(abc.ABC):
    """What both have in common; see `backend.Backend`. `journal`: gives an interface's."""

    name: str

    def __init__(
        self, run: Runner | None = None, journal: Callable[[str], Journal] = Journal.of
    ) -> None:
        self._run = run or Commands()
        self._journal = journal

    @abc.abstractmethod
    async def make(self, interface: str) -> None:
        """Make the bare interface."""

    @abc.abstractmethod
    async def end(self, interface: str) -> None:
        """Do what is left to do when the interface is gone."""

    async def exists(self, interface: str) -> bool:
        """See `Backend.exists`."""
        return await link.exists(interface, self._run)

    async def create(self, interface: str, config: QuickConfig) -> None:
        """See `Backend.create`."""
        await self.make(interface)
        try:
            await wg.set_device(interface, config, self._run)
            for peer in config.peers:
                await wg.set_peer(interface, peer, self._run)
            await link.bring_up(interface, settings_of(config), self._run, self._journal(interface))
        except BaseException:
            with contextlib.suppress(CommandError):
                await self.delete(interface)
            raise

    async def adopt(self, interface: str, config: QuickConfig) -> QuickConfig:
        """See `Backend.adopt`."""
        now = await wg.adopt_device(interface, config, self._run)
        for address in config.interface.addresses:
            await self._run.run("ip", "address", "replace", str(address), "dev", interface)
        await self._run.run("ip", "link", "set", "up", "dev", interface)
        settings = settings_of(now)
        nothing = msgspec.structs.replace(settings, allowed_ips=())
        await routes.change(interface, nothing, settings, self._run)
        return now

    async def set_peer(self, interface: str, before: QuickConfig, peer: PeerConfig) -> None:
        """See `Backend.set_peer`."""
        await wg.set_peer(interface, peer, self._run)
        await self._change_routes(interface, before, with_peer(before, peer))

    async def remove_peer(self, interface: str, before: QuickConfig, peer: PeerConfig) -> None:
        """See `Backend.remove_peer`."""
        await wg.remove_peer(interface, peer, self._run)
        await self._change_routes(interface, before, without_peer(before, peer.public_key))

    async def trouble(self, interface: str) -> str:
        """See `Backend.trouble`."""
        shown = await self._run.run("ip", "-j", "link", "show", "dev", interface)
        (state,) = msgspec.json.decode(shown.stdout)
        return (
            "" if "UP" in state["flags"] else f"{interface} is down: `ip link set {interface} up`"
        )

    async def dump(self, interface: str) -> str:
        """See `Backend.dump`."""
        return await wg.dump(interface, self._run)

    async def delete(self, interface: str) -> None:
        """See `Backend.delete`."""
        await link.take_down(interface, self._run, self._journal(interface))
        if await self.exists(interface):
            await self._run.run("ip", "link", "delete", "dev", interface)
        await self.end(interface)

    async def _change_routes(
        self, interface: str, before: QuickConfig, wanted: QuickConfig
    ) -> None:
        await routes.change(interface, settings_of(before), settings_of(wanted), self._run)


class WgmpBackend(LinuxBackend):
    """Interfaces of gateways of ours: each a `wgmp supervise` that goes on by itself."""

    name = "wgmp"

    async def make(self, interface: str) -> None:
        """Make the bare interface."""
        command = (sys.executable, "-m", "wgmp", "supervise", interface)
        await self._run.run(*command, limit_s=START_LIMIT_S)

    async def end(self, interface: str) -> None:
        """Wait for the gateway's end after its interface's, so that another can have the name."""
        socket = uapi_server.socket_path(interface)
        for _ in range(int(STOP_LIMIT_S / POLL_S)):
            if not socket.exists():
                return
            await asyncio.sleep(POLL_S)
        raise CommandError(f"the gateway of {interface} does not end: {socket} is still there")


class KernelBackend(LinuxBackend):
    """Interfaces of the kernel's own WireGuard, where it has that."""

    name = "kernel"

    async def make(self, interface: str) -> None:
        """Make the bare interface. Raises UnsupportedPlatformError without the module."""
        command = ("ip", "link", "add", "dev", interface, "type", "wireguard")
        done = await self._run.run(*command, check=False)
        if "Unknown device type" in done.stderr or "not supported" in done.stderr:
            raise UnsupportedPlatformError(
                "this kernel has no WireGuard: load it with `modprobe wireguard`, or use the "
                "back end wgmp"
            )
        if done.code:
            raise done.failure()

    async def end(self, interface: str) -> None:
        """Do nothing: the kernel's interface has no process."""
