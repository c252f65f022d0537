"""The Unix socket on which `wg` speaks to a device (uapi.py has the grammar).

A connection carries any number of operations, one after another. An operation is collected
whole, up to its empty line, and then applied at once: a client that hangs up half-way changes
nothing, and one that is silent holds nothing but its socket. What clients can hold together is
bounded, and nobody is refused for the sake of the idle: when a bound is reached, the connection
that has been quiet the longest goes.

    data_received -> buffer -> one whole operation -> Device -> changed() -> reply
                                ^ waits while the client does not read its replies,
                                  and while what changed() returned goes on
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import stat
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from wgmp import logs
from wgmp.device import Device
from wgmp.errors import SocketError
from wgmp.uapi import StatusSource, answer_get, answer_set, reply

SOCKET_DIRECTORY = Path("/var/run/wireguard")  # where `wg` looks (RUNSTATEDIR "/wireguard")

_SET, _GET = b"set=1\n", b"get=1\n"
_OPERATION_BYTES = len(_SET)
_END = b"\n\n"
_SERVED = (0, errno.EAGAIN)  # EAGAIN: somebody listens, and is busy

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may hold. `request_bytes`: one operation; `total_bytes`: all together.

    10,000 peers with 30,000 allowed IPs are about 4 MB.
    """

    request_bytes: int = 32 << 20
    total_bytes: int = 64 << 20
    connections: int = 64


def socket_path(interface: str) -> Path:
    """Return where `wg` expects the socket of the interface."""
    return SOCKET_DIRECTORY / f"{interface}.sock"


def bind_socket(path: Path) -> socket.socket:
    """Return a listening Unix socket at `path`, readable by its owner alone.

    Makes the directory (0755). A socket left by a dead process is replaced. Raises SocketError
    when a living process serves it, when something else has its name, or as the kernel says.
    """
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True)
            path.parent.chmod(0o755)
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX)
        listener.setblocking(False)
        umask = os.umask(0o077)
        try:
            listener.bind(os.fspath(path))
            listener.listen(socket.SOMAXCONN)
        except OSError:
            listener.close()
            raise
        finally:
            os.umask(umask)
    except OSError as error:
        raise SocketError(
            f"cannot make the control socket {path}: {error.strerror or error}", error.errno or 0
        ) from error
    return listener


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketError(f"{path} exists and is no socket: remove it", errno.EEXIST)
    code = _connect(path)
    if code == errno.ECONNREFUSED:
        path.unlink(missing_ok=True)
    elif code in _SERVED:
        raise _in_use(path)
    elif code != errno.ENOENT:
        raise OSError(code, os.strerror(code))


def refuse_another(interface: str) -> None:
    """Raise SocketError when a gateway runs the interface, before anything of it is touched."""
    if is_served(interface):
        raise _in_use(socket_path(interface))


def is_served(interface: str) -> bool:
    """Tell whether a gateway listens for `wg`, in whichever network namespace it is."""
    return _connect(socket_path(interface)) in _SERVED


def _in_use(path: Path) -> SocketError:
    text = f"{path} is in use: another process runs this interface"
    return SocketError(text, errno.EADDRINUSE)


def _connect(path: Path) -> int:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        return probe.connect_ex(os.fspath(path))


class UapiServer:
    """Serves one device on one listening socket, on the running event loop.

    `status`: figures of a peer id. `changed`: called after every set operation, failed ones
    included, and before the reply: what `wg set` has said is on its way when it returns. What has
    to be over by then, too, it returns.
    """

    def __init__(
        self,
        device: Device,
        status: StatusSource,
        changed: Callable[[], Coroutine[None, None, None] | None],
        limits: Limits | None = None,
    ) -> None:
        self.device = device
        self.status = status
        self.changed = changed
        self.limits = limits or Limits()
        self.held_bytes = 0
        # Ordered from the longest quiet to the last heard.
        self._connections: dict[_Connection, None] = {}
        self._server: asyncio.AbstractServer | None = None

    async def start(self, listener: socket.socket) -> None:
        """Serve `listener` (bound and listening), which now belongs to the server."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Connection(self), sock=listener)

    async def stop(self) -> None:
        """Hang up and close the listener. The path is its maker's to remove."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.abort()
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    def heard(self, connection: _Connection) -> None:
        """Note that the connection is new or has spoken, and keep within the limits."""
        self._connections.pop(connection, None)
        self._connections[connection] = None
        if len(self._connections) > self.limits.connections:
            self._hang_up(next(iter(self._connections)))
        while self.held_bytes > self.limits.total_bytes:
            self._hang_up(next(quiet for quiet in self._connections if quiet.held_bytes))

    def gone(self, connection: _Connection) -> None:
        """Forget a connection that is closed."""
        self._connections.pop(connection, None)

    def _hang_up(self, connection: _Connection) -> None:
        _log.warning("UAPI: too much is held by clients: hanging up the longest quiet one")
        self.gone(connection)
        connection.abort()


class _Connection(asyncio.Protocol):
    """One client: its unread operations, and whether it reads its replies."""

    def __init__(self, server: UapiServer) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._searched = 0
        self._paused = False
        self._settling: asyncio.Task[None] | None = None
        self._ended = False

    @property
    def held_bytes(self) -> int:
        return len(self._buffer)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.heard(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._drop(len(self._buffer))
        self._server.gone(self)

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._buffer += data
        self._server.held_bytes += len(data)
        self._answer()
        self._server.heard(self)

    def eof_received(self) -> bool:
        self._ended = True
        return self._settling is not None  # an answer is owed: stay open

    def pause_writing(self) -> None:
        self._paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            self._answer()

    def abort(self) -> None:
        """Close at once; what is unread or unsent is lost."""
        self._drop(len(self._buffer))
        if self._transport is not None:
            self._transport.abort()

    def _answer(self) -> None:
        while not self._paused and self._settling is None and self._buffer:
            operation = bytes(self._buffer[:_OPERATION_BYTES])
            if operation == _SET:
                done = self._answer_set()
            elif operation == _GET:
                done = self._answer_get()
            elif _SET.startswith(operation) or _GET.startswith(operation):
                return
            else:
                done = self._close()  # as wireguard-go: not our protocol, no answer
            if not done:
                return

    def _answer_set(self) -> bool:
        end = self._buffer.find(_END, max(self._searched, _OPERATION_BYTES - 1))
        if end < 0:
            # The first half of the empty line may be here already.
            self._searched = len(self._buffer) - 1
            if len(self._buffer) > self._server.limits.request_bytes:
                return self._close(reply(errno.EMSGSIZE))
            return False
        body = bytes(self._buffer[_OPERATION_BYTES:end])
        self._drop(end + len(_END))
        with logs.timed("a set request"):
            answer = answer_set(self._server.device, body)
            unsettled = self._server.changed()
        if unsettled is None:
            self._write(answer)
        else:
            self._settling = asyncio.create_task(self._settle(unsettled, answer))
        return True

    async def _settle(self, unsettled: Coroutine[None, None, None], answer: bytes) -> None:
        await unsettled
        self._settling = None
        self._write(answer)
        self._answer()
        if self._ended and self._settling is None:
            self._close()

    def _answer_get(self) -> bool:
        if len(self._buffer) == _OPERATION_BYTES:
            return False
        if self._buffer[_OPERATION_BYTES] != ord("\n"):
            return self._close(reply(errno.EINVAL))
        self._drop(_OPERATION_BYTES + 1)
        with logs.timed("a get request"):
            self._write(answer_get(self._server.device, self._server.status))
        return True

    def _close(self, last_words: bytes = b"") -> bool:
        self._drop(len(self._buffer))
        self._write(last_words)
        if self._transport is not None:
            self._transport.close()
        return False

    def _write(self, answer: bytes) -> None:
        if self._transport is not None and answer:
            self._transport.write(answer)

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._searched = 0
        self._server.held_bytes -= count
