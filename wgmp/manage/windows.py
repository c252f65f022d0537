r"""The back end of Windows: the tunnel services of the official WireGuard.

    config.conf  --wireguard.exe /installtunnelservice-->  service WireGuardTunnel$NAME
                 --wg.exe syncconf-->  peers change while it runs
                 --wireguard.exe /uninstalltunnelservice-->  gone

The service reads the file when it starts and sets addresses and routes itself; a change is
written to the file first.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from pathlib import Path

from wgmp import config as quick
from wgmp.config import PeerConfig, QuickConfig
from wgmp.errors import CommandError, ConfigError
from wgmp.files import write_whole
from wgmp.manage import quick_file, wg
from wgmp.manage.backend import with_peer, without_peer
from wgmp.manage.runner import Commands, Runner

_PROGRAMS = r"C:\Program Files\WireGuard"
_NO_SUCH_SERVICE = 1060  # ERROR_SERVICE_DOES_NOT_EXIST, winerror.h
_STATE = re.compile(r"STATE\s*:\s*\d+\s+(\w+)")
_SERVICE_LIMIT_S = 30.0
_POLL_S = 0.5


class WindowsBackend:
    """Interfaces of the official service. `directory`: for the files, by default in ProgramData."""

    name = "windows"

    def __init__(self, run: Runner | None = None, directory: Path | None = None) -> None:
        self._run = run or Commands()
        data = os.environ.get("PROGRAMDATA", r"C:\ProgramData")
        self._directory = directory or Path(data) / "wgmp"

    async def exists(self, interface: str) -> bool:
        """See `Backend.exists`."""
        return await self._state(interface) != ""

    async def create(self, interface: str, config: QuickConfig) -> None:
        """See `Backend.create`."""
        path = self._write(interface, config)
        try:
            await self._wireguard("/installtunnelservice", str(path))
            await self._wait_until_running(interface)
        except BaseException:
            if await self.exists(interface):
                await self._wireguard("/uninstalltunnelservice", interface)
            path.unlink(missing_ok=True)
            raise

    async def adopt(self, interface: str, config: QuickConfig) -> QuickConfig:
        """See `Backend.adopt`. A service that was stopped is started."""
        if await self._state(interface) != "RUNNING":
            await self._run.run("sc", "start", _service(interface))
            await self._wait_until_running(interface)
        shown = await self._run.run(self._program("wg.exe"), "showconf", interface)
        now = wg.adopted(config, quick.parse(shown.stdout, f"wg showconf {interface}"))
        self._write(interface, now)
        return now

    async def set_peer(self, interface: str, before: QuickConfig, peer: PeerConfig) -> None:
        """See `Backend.set_peer`."""
        await self._sync(interface, with_peer(before, peer))

    async def remove_peer(self, interface: str, before: QuickConfig, peer: PeerConfig) -> None:
        """See `Backend.remove_peer`."""
        await self._sync(interface, without_peer(before, peer.public_key))

    async def trouble(self, interface: str) -> str:
        """See `Backend.trouble`."""
        state = await self._state(interface)
        service = _service(interface)
        return (
            "" if state == "RUNNING" else f"the service {service} is {state}: `sc start {service}`"
        )

    async def dump(self, interface: str) -> str:
        """See `Backend.dump`."""
        return (await self._run.run(self._program("wg.exe"), "show", interface, "dump")).stdout

    async def delete(self, interface: str) -> None:
        """See `Backend.delete`."""
        if await self.exists(interface):
            await self._wireguard("/uninstalltunnelservice", interface)
        self._path(interface).unlink(missing_ok=True)

    async def _sync(self, interface: str, config: QuickConfig) -> None:
        """Let the running service take the peers; routes it sets only when it starts."""
        self._write(interface, config)
        stripped = quick_file.strip(quick_file.write(config))
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / f"{interface}.conf"
            write_whole(path, stripped.encode())
            await self._run.run(self._program("wg.exe"), "syncconf", interface, str(path))

    async def _state(self, interface: str) -> str:
        """Return the service's state, such as RUNNING, "" when there is none."""
        done = await self._run.run("sc", "query", _service(interface), check=False)
        if done.code == _NO_SUCH_SERVICE:
            return ""
        found = _STATE.search(done.stdout)
        if done.code or found is None:
            raise done.failure()
        return found[1]

    async def _wait_until_running(self, interface: str) -> None:
        deadline = asyncio.get_running_loop().time() + _SERVICE_LIMIT_S
        while (state := await self._state(interface)) != "RUNNING":
            if asyncio.get_running_loop().time() > deadline:
                raise CommandError(
                    f"the service {_service(interface)} is {state or 'not there'} after "
                    f"{_SERVICE_LIMIT_S:.0f} s: `wireguard.exe /dumplog` says why"
                )
            await asyncio.sleep(_POLL_S)

    async def _wireguard(self, verb: str, what: str) -> None:
        await self._run.run(self._program("wireguard.exe"), verb, what, limit_s=_SERVICE_LIMIT_S)

    def _program(self, name: str) -> str:
        """Return how to call a program of the official WireGuard: its installer sets no PATH."""
        return name if self._run.has(name) else rf"{_PROGRAMS}\{name}"

    def _path(self, interface: str) -> Path:
        return self._directory / f"{interface}.conf"

    def _write(self, interface: str, config: QuickConfig) -> Path:
        path = self._path(interface)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, quick_file.write(config).encode())
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror}", str(path)) from error
        return path


def _service(interface: str) -> str:
    return f"WireGuardTunnel${interface}"
