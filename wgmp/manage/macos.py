"""The back end of macOS: a gateway of ours on a utun, whose name the system chooses.

    manager's name, such as wgmp0  --/var/run/wireguard/wgmp0.name-->  utun7  --> utun7.sock

The file is where wg-quick keeps it, too. When the socket is deleted the gateway ends, and with it
the interface, its addresses and its routes.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

from wgmp.config import PeerConfig, QuickConfig
from wgmp.errors import CommandError
from wgmp.manage import ifconfig, wg
from wgmp.manage.backend import POLL_S, START_LIMIT_S, STOP_LIMIT_S, with_peer, without_peer
from wgmp.manage.runner import Commands, Runner
from wgmp.manage.settings import settings_of
from wgmp.uapi_server import SOCKET_DIRECTORY


class MacosBackend:
    """Interfaces of gateways of ours. `directory`: of the names and sockets."""

    name = "wgmp"

    def __init__(self, run: Runner | None = None, directory: Path = SOCKET_DIRECTORY) -> None:
        self._run = run or Commands()
        self._directory = directory

    async def exists(self, interface: str) -> bool:
        """See `Backend.exists`."""
        try:
            return self._socket(self._utun(interface)).exists()
        except CommandError:
            return False

    async def create(self, interface: str, config: QuickConfig) -> None:
        """See `Backend.create`."""
        settings = settings_of(config)
        ifconfig.check(settings)
        utun = await self._start(interface)
        try:
            await wg.set_device(utun, config, self._run)
            for peer in config.peers:
                await wg.set_peer(utun, peer, self._run)
            await ifconfig.bring_up(utun, settings, self._run)
        except BaseException:
            with contextlib.suppress(CommandError):
                await self.delete(interface)
            raise

    async def adopt(self, interface: str, config: QuickConfig) -> QuickConfig:
        """See `Backend.adopt`."""
        utun = self._utun(interface)
        now = await wg.adopt_device(utun, config, self._run)
        await ifconfig.bring_up(utun, settings_of(now), self._run)
        return now

    async def set_peer(self, interface: str, before: QuickConfig, peer: PeerConfig) -> None:
        """See `Backend.set_peer`."""
        wanted = settings_of(with_peer(before, peer))
        ifconfig.check(wanted)
        utun = self._utun(interface)
        await wg.set_peer(utun, peer, self._run)
        await ifconfig.change_routes(utun, settings_of(before), wanted, self._run)

    async def remove_peer(self, interface: str, before: QuickConfig, peer: PeerConfig) -> None:
        """See `Backend.remove_peer`."""
        wanted, utun = settings_of(without_peer(before, peer.public_key)), self._utun(interface)
        await wg.remove_peer(utun, peer, self._run)
        await ifconfig.change_routes(utun, settings_of(before), wanted, self._run)

    async def trouble(self, interface: str) -> str:
        """See `Backend.trouble`."""
        utun = self._utun(interface)
        flags = (await self._run.run("ifconfig", utun)).stdout.partition(">")[0]
        up = "UP" in flags.partition("<")[2].split(",")
        return "" if up else f"{interface} is down: `ifconfig {utun} up`"

    async def dump(self, interface: str) -> str:
        """See `Backend.dump`."""
        return await wg.dump(self._utun(interface), self._run)

    async def delete(self, interface: str) -> None:
        """See `Backend.delete`."""
        utun = self._utun(interface)
        self._socket(utun).unlink(missing_ok=True)
        for _ in range(int(STOP_LIMIT_S / POLL_S)):
            if (await self._run.run("ifconfig", utun, check=False)).code:
                self._file(interface).unlink()
                return
            await asyncio.sleep(POLL_S)
        raise CommandError(f"the gateway of {interface} does not end: {utun} is still there")

    async def _start(self, interface: str) -> str:
        """Start a gateway; return the name that the system gave its interface."""
        file = self._file(interface)
        file.unlink(missing_ok=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        command = (sys.executable, "-m", "wgmp", "supervise", "utun")
        await self._run.run("env", f"WG_TUN_NAME_FILE={file}", *command, limit_s=START_LIMIT_S)
        return self._utun(interface)

    def _utun(self, interface: str) -> str:
        """Return the system's name of the interface; raise CommandError when there is none."""
        try:
            return self._file(interface).read_text().strip()
        except OSError as error:
            raise CommandError(f"there is no interface {interface}", error.errno or 0) from error

    def _file(self, interface: str) -> Path:
        return self._directory / f"{interface}.name"

    def _socket(self, utun: str) -> Path:
        return self._directory / f"{utun}.sock"
