"""The gateway's control socket: whoever misuses it is told, and disturbs nobody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from wgmp import control
from wgmp.control_server import ControlServer
from wgmp.errors import ControlError
from wgmp.uapi_server import bind_socket

Play = Callable[[Path], Awaitable[None]]

TOO_LONG = "one request of at most 4096 bytes, within 10 s"


def serve(directory: Path, play: Play) -> None:
    """Run a play against a server whose gateway is not asked: nothing here is a request."""

    async def run() -> None:
        path = directory / "control.sock"
        server = ControlServer(bind_socket(path), None)  # type: ignore[arg-type]
        await server.start()
        try:
            async with asyncio.timeout(30):
                await play(path)
        finally:
            server.stop()

    asyncio.run(run())


async def ask(path: Path, request: bytes) -> dict[str, Any]:
    """Send bytes; return the line that is answered."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(request)
    line: dict[str, Any] = json.loads(await reader.readline())
    writer.close()
    return line


@pytest.mark.parametrize(
    ("request_line", "reason"),
    [
        (b"\n", "truncated"),
        (b"hello\n", "JSON is malformed"),
        (b"\xff\xfe\n", "not a request"),
        (b'{"action": "\xff"}\n', "not a request"),
        (b'{"action": "explode"}\n', "Invalid value 'explode'"),
        (b'{"action": "stats", "interface": "wg0"}\n', "unknown field `interface`"),
        (b'{"action": "workers", "count": "4"}\n', "Expected `int`, got `str`"),
        (b'{"action": ' + b"[" * 4000 + b"\n", "not a request"),
        (b'{"action": "upgrade", "program": []}\n', "Expected `array` of length >= 1"),
        (b'{"action": "upgrade", "program": ["wgmp"]}\n', "cannot be handed over"),
        (b'{"action": "stats"' + b" " * 5000 + b"}\n", TOO_LONG),
        (b'{"action": "stats"' + b" " * 5000, TOO_LONG),
    ],
)
def test_what_is_no_request_is_refused_and_says_why(
    tmp_path: Path, request_line: bytes, reason: str
) -> None:
    async def play(path: Path) -> None:
        assert reason in (await ask(path, request_line))["error"]

    serve(tmp_path, play)


def test_clients_that_say_nothing_keep_nobody_else_waiting_until_there_are_too_many(
    tmp_path: Path,
) -> None:
    async def play(path: Path) -> None:
        silent = [await asyncio.open_unix_connection(path) for _ in range(63)]
        assert "not a request" in (await ask(path, b"hello\n"))["error"]
        silent.append(await asyncio.open_unix_connection(path))
        refused = await ask(path, b"hello\n")
        assert refused == {"error": "too many ask at once: try again later"}
        for _, writer in silent:
            writer.close()
            await writer.wait_closed()
        while "not a request" not in (await ask(path, b"hello\n"))["error"]:
            await asyncio.sleep(0.01)  # the server has yet to hear of it

    serve(tmp_path, play)


def test_a_request_that_fails_unexpectedly_is_answered_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def play(path: Path) -> None:
        # There is no gateway behind this socket, which is as unexpected as anything.
        answer = await ask(path, b'{"action": "stats"}\n')
        assert answer == {"error": "internal error: AttributeError: the log says where"}
        assert "this should not happen" in caplog.text

    serve(tmp_path, play)


def test_who_asks_too_much_is_told_so_and_not_that_nobody_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "socket_path", lambda interface: tmp_path / "control.sock")

    async def play(path: Path) -> None:
        # More than the socket takes: the client still speaks when it is hung up on.
        with pytest.raises(ControlError, match=f"^{TOO_LONG}$"):
            await asyncio.to_thread(control.upgrade, "wg0", ["wgmp", "x" * 4_000_000])

    serve(tmp_path, play)
