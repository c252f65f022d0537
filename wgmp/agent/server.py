"""The control socket: connections, lines, answers and events. What is asked is for `answer`.

Nobody holds up anybody: every connection is a task of its own, what it may hold is bounded, and
one that breaks a bound is told why and hung up on.

| bound | who goes |
|---|---|
| CLIENTS_MAX connections | the longest quiet that waits for nothing, or else the new one |
| CLIENTS_MAX more that are being told so | the new one, untold |
| LINE_BYTES_MAX in a line | whoever sent it |
| UNREAD_BYTES_MAX of answers and events | whoever does not read |
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from wgmp.agent.api import LINE_BYTES_MAX, Answer, Refusal, Request, Subscribe
from wgmp.errors import UNDECODABLE, WgmpError
from wgmp.hangup import see_off
from wgmp.uapi_server import bind_socket

log = logging.getLogger("wgmp")

CLIENTS_MAX = 64
UNREAD_BYTES_MAX = 1 << 20
_LAST_WORDS_S = 5.0

_decode = msgspec.json.Decoder(Request).decode
_encode = msgspec.json.Encoder(enc_hook=str).encode


class RefusedError(WgmpError):
    """A request that cannot be done, with what the client is told."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class ApiServer:
    """Serves the control socket at `path`. Raises SocketError, also when another agent does.

    `answer`: does what is asked and returns the result; raises RefusedError or WgmpError.
    """

    def __init__(self, path: Path, answer: Callable[[Request], Awaitable[Any]]) -> None:
        self._path = path
        self._answer = answer
        self._listener: socket.socket | None = bind_socket(path)
        path.chmod(0o600)
        self._server: asyncio.AbstractServer | None = None
        # From the longest quiet to the last heard.
        self._clients: dict[_Client, None] = {}
        self._turned_away = 0

    async def start(self) -> None:
        """Begin to answer."""
        self._server = await asyncio.start_unix_server(
            self._serve, sock=self._listener, limit=LINE_BYTES_MAX
        )

    def stop(self) -> None:
        """Hang up on everybody and remove the socket."""
        self._path.unlink(missing_ok=True)
        if self._server is not None:
            self._server.close()
        elif self._listener is not None:
            self._listener.close()
        for client in list(self._clients):
            client.close()

    def publish(self, event: msgspec.Struct) -> None:
        """Send an event to all who subscribed."""
        line = _encode(event) + b"\n"
        for client in list(self._clients):
            if client.subscribed:
                client.write(line)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _Client(writer)
        try:
            if not self._make_room():
                await self._turn_away(client, reader)
                return
            self._clients[client] = None
            await self._converse(client, reader)
        except ConnectionError:
            pass  # it has gone
        finally:
            self._clients.pop(client, None)
            client.close()

    def _make_room(self) -> bool:
        if len(self._clients) < CLIENTS_MAX:
            return True
        for client in self._clients:
            if client.idle:
                client.refuse(
                    Refusal(code="too_many", message="others need the connection: connect again")
                )
                del self._clients[client]
                return True
        return False

    async def _turn_away(self, client: _Client, reader: asyncio.StreamReader) -> None:
        if self._turned_away == CLIENTS_MAX:
            return
        self._turned_away += 1
        try:
            message = f"{CLIENTS_MAX} clients are served already: connect again later"
            await client.decline(Refusal(code="too_many", message=message), reader)
        finally:
            self._turned_away -= 1

    async def _converse(self, client: _Client, reader: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await reader.readline()
            except ValueError:
                message = f"a request has at most {LINE_BYTES_MAX} bytes and a line of its own"
                client.refuse(Refusal(code="too_long", message=message))
                return
            if not line.endswith(b"\n") or client.closing:
                return
            client.idle = False
            await self._take(client, line)
            client.idle = not client.subscribed
            if self._clients.pop(client, client) is None:
                self._clients[client] = None  # the last heard

    async def _take(self, client: _Client, line: bytes) -> None:
        """Answer one line."""
        try:
            request = _decode(line)
        except UNDECODABLE as error:
            refusal = Refusal(code="malformed", message=f"not a request: {error}")
            client.write(_encode(Answer(id=_id_in(line), error=refusal)) + b"\n")
            return
        try:
            result = await self._answer(request)
            answer = Answer(id=request.id, result=msgspec.Raw(_encode(result)))
        except RefusedError as error:
            answer = Answer(id=request.id, error=error.refusal)
        except WgmpError as error:
            answer = Answer(id=request.id, error=Refusal(code="failed", message=str(error)))
        except Exception as error:
            log.exception("this should not happen")
            refusal = Refusal(code="failed", message=f"internal error: {type(error).__name__}")
            answer = Answer(id=request.id, error=refusal)
        client.write(_encode(answer) + b"\n")
        client.subscribed |= isinstance(request, Subscribe) and answer.error is None


class _Client:
    """One connection. `idle`: waits for no answer and no events."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.idle = True
        self.subscribed = False
        self.closing = False

    def write(self, line: bytes) -> None:
        """Send a line, or hang up if too much lies unread."""
        if self.closing:
            return
        if self._writer.transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            self.refuse(Refusal(code="too_slow", message="too much lies unread"))
        else:
            self._writer.write(line)

    def refuse(self, refusal: Refusal) -> None:
        """Say why, and hang up."""
        if not self.closing:
            self._writer.write(_encode(Answer(id=None, error=refusal)) + b"\n")
            self.close()

    async def decline(self, refusal: Refusal, reader: asyncio.StreamReader) -> None:
        """Say why to one that may not have spoken yet."""
        self.write(_encode(Answer(id=None, error=refusal)) + b"\n")
        await see_off(reader, self._writer, _LAST_WORDS_S)

    def close(self) -> None:
        """Hang up, once what was said is read, or soon anyhow."""
        if not self.closing:
            self.closing = True
            self._writer.close()
            loop = asyncio.get_running_loop()
            loop.call_later(_LAST_WORDS_S, self._writer.transport.abort)


class _Id(msgspec.Struct):
    """What can be made out of a line that is no request."""

    id: int | str | None = None


def _id_in(line: bytes) -> int | str | None:
    with contextlib.suppress(*UNDECODABLE):
        return msgspec.json.decode(line, type=_Id).id
    return None
