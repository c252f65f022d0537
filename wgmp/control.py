"""The control socket of a running gateway: how `wgmp stats` reaches it.

`/run/wgmp/IFACE.sock`, readable by its owner alone. One JSON line asks, JSON lines answer:

| request | answer |
|---|---|
| `{"action": "stats"}` | an `observe.snapshot.Snapshot` |
| `{"action": "subscribe"}` | `{}`, then an event (events.py) per line until either side hangs up |
| `{"action": "log_level", "level": "info"}` | `{}`: all processes log so much from now on |
| `{"action": "workers", "count": 4}` | `{}`, when there are so many workers |
| `{"action": "upgrade", "program": [...]}` | `Upgraded`, when the program has taken over |
| `{"action": "capture", ...}` (taphost.py) | the tap rings, until the client hangs up |
| anything else | `{"error": "..."}` |
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from wgmp import logs, taphost
from wgmp.errors import ConfigError, ControlError
from wgmp.events import AnyEvent
from wgmp.logs import LogLevel
from wgmp.observe.collect import collect
from wgmp.observe.snapshot import Snapshot
from wgmp.taphost import Capture, CaptureStarted

if TYPE_CHECKING:
    from wgmp.supervisor import Supervisor

log = logging.getLogger("wgmp")

DIRECTORY = Path("/run/wgmp")

_MAX_REQUEST_BYTES = 4096
_CLIENT_TIMEOUT_S = 10.0
_MOST_CONNECTIONS = 64
_WORKERS_TIMEOUT_S = 30.0
_UPGRADE_TIMEOUT_S = 90.0
_MAX_DESCRIPTORS = 253  # SCM_MAX_FD, linux/include/net/scm.h


class Stats(msgspec.Struct, forbid_unknown_fields=True, tag_field="action", tag="stats"):
    """Ask for a snapshot."""


class Subscribe(msgspec.Struct, forbid_unknown_fields=True, tag_field="action", tag="subscribe"):
    """Ask for all events from now on."""


class SetLevel(msgspec.Struct, forbid_unknown_fields=True, tag_field="action", tag="log_level"):
    """Ask for more or fewer log lines."""

    level: LogLevel


class SetWorkers(msgspec.Struct, forbid_unknown_fields=True, tag_field="action", tag="workers"):
    """Ask for another number of workers."""

    count: int


class Upgrade(msgspec.Struct, forbid_unknown_fields=True, tag_field="action", tag="upgrade"):
    """Ask to hand over to `program`, a command that runs `wgmp`."""

    program: list[str]


Request = Stats | Subscribe | SetLevel | SetWorkers | Upgrade | Capture


class Upgraded(msgspec.Struct):
    """The new supervisor's process and version, and for how long traffic waited."""

    pid: int
    version: str
    pause_s: float


class Refusal(msgspec.Struct):
    """The answer to what cannot be done, and why."""

    error: str


_decode_request: Callable[[bytes], Request] = msgspec.json.Decoder(Request).decode
_decode_refusal = msgspec.json.Decoder(Refusal).decode
_decode_event: Callable[[bytes], AnyEvent] = msgspec.json.Decoder(AnyEvent).decode
_decode_upgraded = msgspec.json.Decoder(Upgraded).decode
_decode_snapshot = msgspec.json.Decoder(Snapshot).decode
_decode_started = msgspec.json.Decoder(CaptureStarted).decode
_encode = msgspec.json.Encoder().encode


def socket_path(interface: str) -> Path:
    """Return where the gateway of the interface listens."""
    return DIRECTORY / f"{interface}.sock"


class ControlServer:
    """Serves one gateway's control socket on the running event loop."""

    def __init__(self, listener: socket.socket, supervisor: Supervisor) -> None:
        self._listener = listener
        self._supervisor = supervisor
        self._server: asyncio.AbstractServer | None = None
        self._connections = 0
        self._path = Path(listener.getsockname())
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
        self._path.unlink(missing_ok=True)
        if self._server is not None:
            self._server.close()
        self._listener.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections > _MOST_CONNECTIONS:
                writer.write(_encode(Refusal("too many ask at once: try again later")) + b"\n")
                return
            async with asyncio.timeout(_CLIENT_TIMEOUT_S):
                request = _read_request(await reader.readline())
            match request:
                case Subscribe():
                    await self._tell_events(reader, writer)
                case Capture():
                    await self._capture(request, reader, writer)
                case SetWorkers(count):
                    await self._set_workers(count, writer)
                case Upgrade(program):
                    await self._upgrade(program, writer)
                case _:
                    async with asyncio.timeout(_CLIENT_TIMEOUT_S):
                        writer.write(self._answer(request) + b"\n")
                        await writer.drain()
        except (TimeoutError, ConnectionError, ValueError):
            writer.write(_encode(Refusal("one request of at most 4096 bytes, within 10 s")) + b"\n")
        finally:
            self._connections -= 1
            writer.close()

    def _answer(self, request: Stats | SetLevel | Refusal) -> bytes:
        match request:
            case Stats():
                with logs.timed("collecting statistics"):
                    return _encode(collect(self._supervisor))
            case SetLevel(level):
                self._supervisor.set_log_level(level)
                return b"{}"
            case Refusal():
                return _encode(request)

    async def _set_workers(self, count: int, writer: asyncio.StreamWriter) -> None:
        try:
            await self._supervisor.set_workers(count)
        except ControlError as error:
            writer.write(_encode(Refusal(str(error))) + b"\n")
        else:
            writer.write(b"{}\n")

    async def _upgrade(self, program: list[str], writer: asyncio.StreamWriter) -> None:
        """Hand over, answer, and be gone: everything is the successor's by then."""
        try:
            upgraded = await self.upgrade(program)
        except ControlError as error:
            writer.write(_encode(Refusal(str(error))) + b"\n")
            return
        log.info("process %d, version %s, has taken over", upgraded.pid, upgraded.version)
        with contextlib.suppress(ConnectionError):
            writer.write(_encode(upgraded) + b"\n")
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
        hung_up = asyncio.ensure_future(reader.read())
        hung_up.add_done_callback(lambda _: subscription.close())
        try:
            writer.write(b"{}\n")
            while events := await subscription.take():
                writer.write(b"".join(_encode(event) + b"\n" for event in events))
                await writer.drain()
        except ConnectionError:
            return  # it hung up while we wrote
        finally:
            hung_up.cancel()
            hub.unsubscribe(subscription)

    async def _capture(
        self, request: Capture, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Hand the tap rings over; turn the taps off when the client hangs up."""
        try:
            answer, descriptors = taphost.start(self._supervisor, request)
        except ControlError as error:
            writer.write(_encode(Refusal(str(error))) + b"\n")
            return
        try:
            taphost.send_descriptors(writer.get_extra_info("socket").fileno(), descriptors)
            writer.write(_encode(answer) + b"\n")
            await writer.drain()
            await reader.read()
        finally:
            self._supervisor.fabric.taps.stop()


async def _no_upgrade(program: Sequence[str]) -> Upgraded:
    raise ControlError("this gateway cannot be handed over")


def _read_request(line: bytes) -> Request | Refusal:
    try:
        return _decode_request(line)
    except msgspec.DecodeError as error:
        return Refusal(f"not a request: {error}")


def ask_stats(interface: str) -> Snapshot:
    """Ask the interface's gateway for a snapshot; raises ControlError when none answers."""
    with _asking(interface, Stats()) as (_, answer):
        return _decode_snapshot(_line(answer))


def set_log_level(interface: str, level: LogLevel) -> None:
    """Let the interface's gateway log so much from now on; raises ControlError."""
    with _asking(interface, SetLevel(level)) as (_, answer):
        _line(answer)


def set_workers(interface: str, count: int) -> None:
    """Let the interface's gateway have so many workers; return when it has. Raises ControlError."""
    with _asking(interface, SetWorkers(count)) as (client, answer):
        client.settimeout(_WORKERS_TIMEOUT_S)
        _line(answer)


def upgrade(interface: str, program: Sequence[str]) -> Upgraded:
    """Let `program` take the interface's gateway over; return when it has. Raises ControlError."""
    with _asking(interface, Upgrade(list(program))) as (client, answer):
        client.settimeout(_UPGRADE_TIMEOUT_S)
        return _decode_upgraded(_line(answer))


def follow_events(interface: str) -> Iterator[AnyEvent]:
    """Yield the gateway's events as they come, until it stops.

    The subscription stands before the first event is waited for. Raises ControlError.
    """
    with _asking(interface, Subscribe()) as (client, answer):
        _line(answer)
        client.settimeout(None)
        for line in answer:
            yield _decode_event(line)


def begin_capture(
    interface: str, request: Capture
) -> tuple[socket.socket, CaptureStarted, list[int]]:
    """Begin a capture; return the connection, which ends it when closed, the gateway's answer,
    and the descriptors of the tap rings. Raises ControlError."""
    with _asking(interface, request) as (client, answer):
        _, descriptors, _, _ = socket.recv_fds(client, 1, _MAX_DESCRIPTORS)
        if not descriptors:
            raise ControlError(_decode_refusal(b"{" + answer.readline()).error)
        return client.dup(), _decode_started(_line(answer)), descriptors


@contextlib.contextmanager
def _asking(interface: str, request: Request) -> Iterator[tuple[socket.socket, BinaryIO]]:
    """Send a request; give the socket and its answers. Raises ControlError for what goes wrong."""
    path = socket_path(interface)
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(_CLIENT_TIMEOUT_S)
            client.connect(str(path))
            client.sendall(_encode(request) + b"\n")
            with client.makefile("rb") as answer:
                yield client, answer
    except PermissionError:
        raise ControlError(f"{path} is not yours to read: run as root") from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise ControlError(
            f"no gateway runs on {interface}: start one with `wgmp supervise {interface}`"
        ) from None
    except (OSError, msgspec.DecodeError) as error:
        raise ControlError(f"the gateway on {interface} does not answer: {error}") from error


def _line(answer: BinaryIO) -> bytes:
    """Return the next line of an answer; raise ControlError when it is a refusal."""
    line = answer.readline()
    if line.startswith(b'{"error":'):
        raise ControlError(_decode_refusal(line).error)
    return line


def running_interfaces() -> list[str]:
    """Return the interfaces that have a control socket, sorted."""
    return sorted(path.stem for path in DIRECTORY.glob("*.sock"))


def choose_interface(given: str | None) -> str:
    """Return the interface that was given, else the only one that has a gateway.

    Raises ControlError when there is none, ConfigError when there are several.
    """
    if given is not None:
        return given
    interfaces = running_interfaces()
    if not interfaces:
        raise ControlError("no gateway runs: start one with `wgmp supervise IFACE`")
    if len(interfaces) > 1:
        raise ConfigError(f"several gateways run: name one of {', '.join(interfaces)}")
    return interfaces[0]
