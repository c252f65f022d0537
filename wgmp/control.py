"""The control socket of a running gateway: what is said on it, and how `wgmp stats` asks.

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

The gateway's side is `control_server.py`.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec

from wgmp import system
from wgmp.asking import asking_gateway, is_left_over
from wgmp.errors import ConfigError, ControlError
from wgmp.events import AnyEvent
from wgmp.logs import LogLevel
from wgmp.observe.snapshot import Snapshot
from wgmp.taphost import Capture, CaptureStarted

DIRECTORY = system.RUN_DIRECTORY

_CLIENT_TIMEOUT_S = 10.0
_WORKERS_TIMEOUT_S = 30.0
_UPGRADE_TIMEOUT_S = 90.0
_HUNG_UP = "it hung up"
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

    program: Annotated[list[str], msgspec.Meta(min_length=1)]


Request = Stats | Subscribe | SetLevel | SetWorkers | Upgrade | Capture


class Upgraded(msgspec.Struct):
    """The new supervisor's process and version, and for how long traffic waited."""

    pid: int
    version: str
    pause_s: float


class Refusal(msgspec.Struct):
    """The answer to what cannot be done, and why."""

    error: str


_decode_refusal = msgspec.json.Decoder(Refusal).decode
_decode_event: Callable[[bytes], AnyEvent] = msgspec.json.Decoder(AnyEvent).decode
_decode_upgraded = msgspec.json.Decoder(Upgraded).decode
_decode_snapshot = msgspec.json.Decoder(Snapshot).decode
_decode_started = msgspec.json.Decoder(CaptureStarted).decode
_encoder = msgspec.json.Encoder()


def encode(message: msgspec.Struct) -> bytes:
    """Return a message as a line of JSON, without its end."""
    return _encoder.encode(message)


def socket_path(interface: str) -> Path:
    """Return where the gateway of the interface listens."""
    return DIRECTORY / f"{interface}.sock"


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
        first, descriptors, _, _ = socket.recv_fds(client, 1, _MAX_DESCRIPTORS)
        if not first:
            raise ConnectionError(_HUNG_UP)
        if not descriptors:
            raise ControlError(_decode_refusal(first + answer.readline()).error)
        return client.dup(), _decode_started(_line(answer)), descriptors


@contextlib.contextmanager
def _asking(interface: str, request: Request) -> Iterator[tuple[socket.socket, BinaryIO]]:
    """Send a request; give the socket and its answers. Raises ControlError for what goes wrong."""
    path = socket_path(interface)
    with asking_gateway(path, interface), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_CLIENT_TIMEOUT_S)
        client.connect(str(path))
        # Who is refused before all was asked finds out why below.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(encode(request) + b"\n")
        with client.makefile("rb") as answer:
            yield client, answer


def _line(answer: BinaryIO) -> bytes:
    """Return the next line of an answer; raise ControlError for a refusal, or ConnectionError."""
    line = answer.readline()
    if not line.endswith(b"\n"):
        raise ConnectionError(_HUNG_UP)
    if line.startswith(b'{"error":'):
        raise ControlError(_decode_refusal(line).error)
    return line


def running_interfaces() -> list[str]:
    """Return the interfaces that have a gateway, sorted."""
    return sorted(path.stem for path in DIRECTORY.glob("*.sock") if not is_left_over(path))


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
