"""The control socket of a running gateway: how `wgmp stats` reaches it.

`/run/wgmp/IFACE.sock`, readable by its owner alone. One JSON line asks, one JSON line answers:
`{"action": "stats"}` gives a `stats.Snapshot`; anything else gives `{"error": "..."}`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from wgmp.errors import ControlError
from wgmp.stats import Snapshot

DIRECTORY = Path("/run/wgmp")

_MAX_REQUEST_BYTES = 4096
_CLIENT_TIMEOUT_S = 10.0


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """What a client may ask."""

    action: Literal["stats"]


class Refusal(msgspec.Struct):
    """The answer to what cannot be done, and why."""

    error: str


_decode_request = msgspec.json.Decoder(Request).decode
_decode_snapshot = msgspec.json.Decoder(Snapshot).decode
_encode = msgspec.json.Encoder().encode


def socket_path(interface: str) -> Path:
    """Return where the gateway of the interface listens."""
    return DIRECTORY / f"{interface}.sock"


class ControlServer:
    """Serves one gateway's control socket on the running event loop."""

    def __init__(self, listener: socket.socket, collect: Callable[[], Snapshot]) -> None:
        self._listener = listener
        self._collect = collect
        self._server: asyncio.AbstractServer | None = None
        self._path = Path(listener.getsockname())

    async def start(self) -> None:
        """Begin to answer."""
        self._server = await asyncio.start_unix_server(
            self._serve, sock=self._listener, limit=_MAX_REQUEST_BYTES
        )

    def stop(self) -> None:
        """Stop answering and remove the path."""
        self._path.unlink(missing_ok=True)
        if self._server is not None:
            self._server.close()
        self._listener.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_CLIENT_TIMEOUT_S):
                line = await reader.readline()
                writer.write(self._answer(line) + b"\n")
                await writer.drain()
        except (TimeoutError, ConnectionError, ValueError):
            writer.write(_encode(Refusal("one request of at most 4096 bytes, within 10 s")) + b"\n")
        finally:
            writer.close()

    def _answer(self, line: bytes) -> bytes:
        try:
            _decode_request(line)
        except msgspec.DecodeError as error:
            return _encode(Refusal(f"not a request: {error}"))
        return _encode(self._collect())


def ask_stats(interface: str) -> Snapshot:
    """Ask the interface's gateway for a snapshot; raises ControlError when none answers."""
    path = socket_path(interface)
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(_CLIENT_TIMEOUT_S)
            client.connect(str(path))
            client.sendall(_encode(Request("stats")) + b"\n")
            with client.makefile("rb") as answer:
                return _decode_snapshot(answer.readline())
    except PermissionError:
        raise ControlError(f"{path} is not yours to read: run as root") from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise ControlError(
            f"no gateway runs on {interface}: start one with `wgmp supervise {interface}`"
        ) from None
    except (OSError, msgspec.DecodeError) as error:
        raise ControlError(f"the gateway on {interface} does not answer: {error}") from error


def running_interfaces() -> list[str]:
    """Return the interfaces that have a control socket, sorted."""
    return sorted(path.stem for path in DIRECTORY.glob("*.sock"))
