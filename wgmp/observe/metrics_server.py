"""`/metrics` for Prometheus and `/healthz` for whoever restarts gateways, over HTTP/1.1.

Served by the supervisor's event loop, a piece at a time, so that `wg` waits for no more than a
millisecond's work. There are bounds on everything a client can make the gateway hold: how many
connect, how much they say, how long they take. A connection serves one request.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from wgmp.errors import SocketError
from wgmp.hangup import see_off
from wgmp.hangwatch import HANG_LIMIT_S
from wgmp.observe import collect
from wgmp.observe.exposition import CONTENT_TYPE, write
from wgmp.observe.gateway_metrics import gateway_families
from wgmp.observe.peer_metrics import peer_families

if TYPE_CHECKING:
    from wgmp.supervisor import Supervisor

_MAX_REQUEST_BYTES = 8192
_MAX_CLIENTS = 8
_REQUEST_LIMIT_S = 5.0
_ANSWER_LIMIT_S = 30.0
_LAST_WORDS_S = 1.0
_ONE_REQUEST = (
    f"one request of at most {_MAX_REQUEST_BYTES} bytes, within {_REQUEST_LIMIT_S:.0f} s\n"
)
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens on the address; raise SocketError that names it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        where = f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"
        raise SocketError(
            f"cannot serve metrics on {where}: {error.strerror or error}", error.errno or 0
        ) from error


def metrics(supervisor: Supervisor) -> Iterator[str]:
    """Yield the whole exposition in pieces; an empty one says that work was done."""
    yield from write(gateway_families(supervisor))
    for family in peer_families(supervisor):
        yield from ("",) if family is None else write([family])


def ailments(supervisor: Supervisor) -> list[str]:
    """Return what is wrong with the gateway, a line each; empty when it is healthy."""
    return [
        f"{process.name} is being replaced"
        if not process.pid
        else f"{process.name} has not turned for {process.heartbeat_age_s:.1f} s"
        for process in collect.processes(supervisor)
        if not process.pid or process.heartbeat_age_s > HANG_LIMIT_S
    ]


class MetricsServer:
    """Serves one gateway's metrics on `listener`, which belongs to the server."""

    def __init__(self, listener: socket.socket, supervisor: Supervisor) -> None:
        self._listener = listener
        self._supervisor = supervisor
        self._server: asyncio.AbstractServer | None = None
        self._clients = 0

    @property
    def descriptor(self) -> int:
        """The listening socket, to be handed on."""
        return self._listener.fileno()

    async def start(self) -> None:
        """Begin to answer."""
        self._server = await asyncio.start_server(
            self._serve, sock=self._listener, limit=_MAX_REQUEST_BYTES
        )

    def stop(self) -> None:
        """Stop answering."""
        if self._server is not None:
            self._server.close()
        self._listener.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            if self._clients > _MAX_CLIENTS:
                await _say(writer, 503, "too many clients\n")
                if self._clients <= 2 * _MAX_CLIENTS:
                    await see_off(reader, writer, _LAST_WORDS_S)
                return
            try:
                async with asyncio.timeout(_REQUEST_LIMIT_S):
                    head = await reader.readuntil(b"\r\n\r\n")
            except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                await _say(writer, 400, _ONE_REQUEST)
                await see_off(reader, writer, _LAST_WORDS_S)
                return
            async with asyncio.timeout(_ANSWER_LIMIT_S):
                await self._answer(head, writer)
        except (ConnectionError, TimeoutError):
            writer.transport.abort()
        finally:
            self._clients -= 1
            with contextlib.suppress(ConnectionError):
                writer.close()

    async def _answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        words = head.partition(b"\r\n")[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            await _say(writer, 400, "not HTTP/1.1\n")
            return
        method, target, version = words
        body = method != b"HEAD"
        if method not in (b"GET", b"HEAD"):
            await _say(writer, 405, "GET or HEAD\n")
            return
        match target.partition(b"?")[0]:
            case b"/metrics":
                await self._expose(writer, body, chunked=version != b"HTTP/1.0")
            case b"/healthz":
                wrong = ailments(self._supervisor)
                text = "".join(f"{line}\n" for line in wrong) or "ok\n"
                await _say(writer, 503 if wrong else 200, text, body)
            case _:
                await _say(writer, 404, "/metrics and /healthz are here\n", body)

    async def _expose(self, writer: asyncio.StreamWriter, body: bool, chunked: bool) -> None:
        """Write the exposition while the event loop does other things, too.

        What ends early can be told from what is complete by the last chunk.
        """
        framing = ["Transfer-Encoding: chunked"] if chunked else []
        writer.write(_head(200, CONTENT_TYPE, framing))
        if not body:
            await writer.drain()
            return
        for piece in metrics(self._supervisor):
            await asyncio.sleep(0)
            if not piece:
                continue
            text = piece.encode()
            writer.write(b"%x\r\n%b\r\n" % (len(text), text) if chunked else text)
            await writer.drain()
        if chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()


async def _say(writer: asyncio.StreamWriter, code: int, text: str, body: bool = True) -> None:
    content = text.encode()
    more = [f"Content-Length: {len(content)}"]
    if code == 405:
        more.append("Allow: GET, HEAD")
    writer.write(_head(code, "text/plain; charset=utf-8", more) + (content if body else b""))
    await writer.drain()


def _head(code: int, content_type: str, more: list[str]) -> bytes:
    lines = [
        f"HTTP/1.1 {code} {_REASONS[code]}",
        f"Content-Type: {content_type}",
        "Connection: close",
        "Cache-Control: no-store",
        *more,
    ]
    return "\r\n".join([*lines, "", ""]).encode()
