"""A network's gateway: a `wgmp supervise` of its own, so that its failures are its own.

It dies with the agent: the kernel sends it SIGTERM when the agent ends, however that ends
(setpriv --pdeathsig), and it then stops in order. What it prints becomes the agent's log.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import sys

from wgmp import control, uapi_server
from wgmp.agent import uapi_client
from wgmp.errors import CommandError, ControlError, RoleError
from wgmp.manage.backend import POLL_S, START_LIMIT_S, STOP_LIMIT_S
from wgmp.syscalls import signal_name

log = logging.getLogger("wgmp")

_LINE_BYTES_MAX = 1 << 16

_NOT_FOR_GATEWAYS = {
    "JOURNAL_STREAM",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "WGMP_CONFIG",
    "WGMP_METRICS",
    "WG_TUN_FD",
    "WG_UAPI_FD",
}


class GatewayProcess:
    """A running gateway. Made by `start`; `stop` it, or `wait` for its end."""

    def __init__(self, name: str, interface: str, process: asyncio.subprocess.Process) -> None:
        self.interface = interface
        self.pid = process.pid
        self._name = name
        self._process = process
        self._last_line = ""
        self._reader = asyncio.create_task(self._relay())

    @classmethod
    async def start(cls, name: str, interface: str, metrics: str | None = None) -> GatewayProcess:
        """Start the gateway of network `name`; return when it serves UAPI.

        `metrics`: where it is to serve them, None for nowhere. Raises RoleError with its last
        words when it cannot, CommandError without setpriv and when another gateway has its socket.
        """
        await _refuse_if_served(interface)
        command = [sys.executable, "-m", "wgmp", "supervise", interface, "--foreground"]
        if metrics is not None:
            command += ["--metrics", metrics]
        try:
            process = await asyncio.create_subprocess_exec(
                "setpriv",
                "--pdeathsig",
                "TERM",
                "--",
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                limit=_LINE_BYTES_MAX,
                env=_environment(),
                start_new_session=True,
            )
        except FileNotFoundError:
            raise CommandError("there is no `setpriv` command: install util-linux") from None
        gateway = cls(name, interface, process)
        try:
            await gateway._wait_until_ready()
        except BaseException:
            await gateway.stop()
            raise
        return gateway

    async def wait(self) -> str:
        """Wait for its end; return how it ended, in words. "" when it stopped in order."""
        code = await self._process.wait()
        await asyncio.shield(self._reader)
        if code < 0:
            return f"the gateway was killed by {signal_name(-code)}"
        return self._last_line or f"the gateway ended with exit code {code}" if code else ""

    async def stop(self) -> None:
        """End the gateway and with it the interface; kill it when it does not heed."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                async with asyncio.timeout(STOP_LIMIT_S):
                    await self._process.wait()
            except TimeoutError:
                log.warning("%s: the gateway does not stop: killing it", self._name)
                self._process.kill()
        await self.wait()
        remove_sockets(self.interface)

    async def _wait_until_ready(self) -> None:
        ended = asyncio.create_task(self.wait())
        ready = asyncio.create_task(self._answers())
        first = asyncio.FIRST_COMPLETED
        try:
            await asyncio.wait([ended, ready], timeout=START_LIMIT_S, return_when=first)
            if ended.done():
                raise RoleError(ended.result() or "the gateway ended before it was ready")
            if not ready.done():
                raise RoleError(f"the gateway is not ready after {START_LIMIT_S:.0f} s")
        finally:
            ended.cancel()
            ready.cancel()

    async def _answers(self) -> None:
        while True:
            try:
                await uapi_client.get(self.interface)
            except ControlError:
                await asyncio.sleep(POLL_S)
            else:
                return

    async def _relay(self) -> None:
        """Pass on what it prints, with the network's name unless a program is to read it."""
        assert self._process.stderr is not None
        while True:
            try:
                line = await self._process.stderr.readline()
            except ValueError:
                continue  # longer than the limit; the rest follows
            if not line:
                return
            text = line.decode(errors="replace").rstrip()
            if text:
                self._last_line = text.removeprefix("wgmp: ")
                print(text if text.startswith("{") else f"{self._name}: {text}", file=sys.stderr)


def _environment() -> dict[str, str]:
    """Return ours without what is the agent's alone, and what only one gateway can have.

    Those are its service manager, and files; and an address to serve metrics on, for which each
    network has a setting.
    """
    return {name: value for name, value in os.environ.items() if name not in _NOT_FOR_GATEWAYS}


def remove_sockets(interface: str) -> None:
    """Remove the sockets of a gateway that is gone; one that was killed leaves them."""
    for path in (uapi_server.socket_path(interface), control.socket_path(interface)):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            if probe.connect_ex(os.fspath(path)) == errno.ECONNREFUSED:
                path.unlink(missing_ok=True)


async def _refuse_if_served(interface: str) -> None:
    """Gateways of all network namespaces have their sockets in one place; keep off another's."""
    try:
        await uapi_client.get(interface)
    except ControlError:
        return
    path = uapi_server.socket_path(interface)
    raise CommandError(f"{path} belongs to another gateway: choose another interface")
