"""The gateway's side of its control socket (control.py): answers whoever asks.

Each connection is a task of its own, so that a slow client keeps nobody else waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from wgmp import logs, taphost
from wgmp.control import (
    Refusal,
    Request,
    SetLevel,
    SetWorkers,
    Stats,
    Subscribe,
    Upgrade,
    Upgraded,
    encode,
)
from wgmp.errors import UNDECODABLE, ControlError
from wgmp.hangup import hung_up
from wgmp.observe.collect import collect
from wgmp.socketpath import SocketPath
from wgmp.taphost import Capture

if TYPE_CHECKING:
    from wgmp.supervisor import Supervisor

log = logging.getLogger("wgmp")

_MAX_REQUEST_BYTES = 4096
_CLIENT_TIMEOUT_S = 10.0
_MOST_CONNECTIONS = 64

_decode_request: Callable[[bytes], Request] = msgspec.json.Decoder(Request).decode


class ControlServer:
    """Serves one gateway's control socket on the running event loop."""

    def __init__(self, listener: socket.socket, supervisor: Supervisor) -> None:
        self._listener = listener
        self._supervisor = supervisor
        self._server: asyncio.AbstractServer | None = None
        self._connections = 0
        self._path = SocketPath(listener)
        # Set by whoever knows how the gateway is handed over.
        self.upgrade: Callable[[Sequence[str]], Awaitable[Upgraded]] = _no_upgrade

    async def start(self) -> None:
        """Begin to answer."""
        self._server = await asyncio.start_unix_server(
            self._serve, sock=self._listener, limit=_MAX_REQUEST_BYTES
        )

    @property
    def descriptor(self) -> int:
        """The listening socket, to be handed on."""
        return self._listener.fileno()

    def hold(self) -> None:
        """Take no new request until `start`: whoever asks waits."""
        assert self._server is not None
        self._listener = self._listener.dup()
        self._server.close()

    def stop(self) -> None:
        """Stop answering and remove the path."""
        self._path.remove()
        if self._server is not None:
            self._server.close()
        self._listener.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections > _MOST_CONNECTIONS:
                writer.write(encode(Refusal("too many ask at once: try again later")) + b"\n")
                return
            match await _read_request(reader):
                case Subscribe():
                    await self._tell_events(reader, writer)
                case Capture() as request:
                    await self._capture(request, reader, writer)
                case SetWorkers(count):
                    await self._set_workers(count, writer)
                case Upgrade(program):
                    await self._upgrade(program, writer)
                case request:
                    async with asyncio.timeout(_CLIENT_TIMEOUT_S):
                        writer.write(self._answer(request) + b"\n")
                        await writer.drain()
        except (TimeoutError, ConnectionError):
            writer.transport.abort()  # it does not read its answer, or has gone
        except Exception as error:
            log.exception("this should not happen")
            refusal = Refusal(f"internal error: {type(error).__name__}: the log says where")
            writer.write(encode(refusal) + b"\n")
        finally:
            self._connections -= 1
            writer.close()

    def _answer(self, request: Stats | SetLevel | Refusal) -> bytes:
        match request:
            case Stats():
                with logs.timed("collecting statistics"):
                    return encode(collect(self._supervisor))
            case SetLevel(level):
                self._supervisor.set_log_level(level)
                return b"{}"
            case Refusal():
                return encode(request)

    async def _set_workers(self, count: int, writer: asyncio.StreamWriter) -> None:
        try:
            await self._supervisor.set_workers(count)
        except ControlError as error:
            writer.write(encode(Refusal(str(error))) + b"\n")
        else:
            writer.write(b"{}\n")

    async def _upgrade(self, program: list[str], writer: asyncio.StreamWriter) -> None:
        """Hand over, answer, and be gone: everything is the successor's by then."""
        try:
            upgraded = await self.upgrade(program)
        except ControlError as error:
            writer.write(encode(Refusal(str(error))) + b"\n")
            return
        log.info("process %d, version %s, has taken over", upgraded.pid, upgraded.version)
        with contextlib.suppress(ConnectionError):
            writer.write(encode(upgraded) + b"\n")
            await writer.drain()
        os._exit(0)

    async def _tell_events(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Write events until the client hangs up or the gateway stops.

        Waiting for a slow client is this task's alone; its queue overflows meanwhile.
        """
        hub = self._supervisor.events
        subscription = hub.subscribe()
        gone = asyncio.ensure_future(hung_up(reader))
        gone.add_done_callback(lambda _: subscription.close())
        try:
            writer.write(b"{}\n")
            while events := await subscription.take():
                writer.write(b"".join(encode(event) + b"\n" for event in events))
                await writer.drain()
        except ConnectionError:
            return  # it hung up while we wrote
        finally:
            gone.cancel()
            hub.unsubscribe(subscription)

    async def _capture(
        self, request: Capture, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Hand the tap rings over; turn the taps off when the client hangs up.

        At the gateway's own end it has the last packets still to read.
        """
        try:
            answer, descriptors = taphost.start(self._supervisor, request)
        except ControlError as error:
            writer.write(encode(Refusal(str(error))) + b"\n")
            return
        read_on = False
        try:
            taphost.send_descriptors(writer.get_extra_info("socket").fileno(), descriptors)
            writer.write(encode(answer) + b"\n")
            await writer.drain()
            await hung_up(reader)
        except asyncio.CancelledError:
            read_on = True
            raise
        finally:
            self._supervisor.fabric.taps.stop(read_on)


async def _no_upgrade(program: Sequence[str]) -> Upgraded:
    raise ControlError("this gateway cannot be handed over")


async def _read_request(reader: asyncio.StreamReader) -> Request | Refusal:
    try:
        async with asyncio.timeout(_CLIENT_TIMEOUT_S):
            return _decode_request(await reader.readline())
    except UNDECODABLE as error:
        return Refusal(f"not a request: {error}")
    except (TimeoutError, ValueError):  # ValueError: the line does not end within the limit
        return Refusal(
            f"one request of at most {_MAX_REQUEST_BYTES} bytes, within {_CLIENT_TIMEOUT_S:.0f} s"
        )
