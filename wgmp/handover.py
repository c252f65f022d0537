"""Handing a running gateway to a newly installed program: the side of the one that leaves.

| | this supervisor | the new program (succession.py) |
|---|---|---|
| 1 | starts it, with one end of a socket pair | loads Python and all modules; Hello |
| 2 | holds UAPI, sends the estate and all descriptors | forks its processes, which wait; Prepared |
| 3 | its processes read nothing more, work off their rings, end; Go | waits |
| 4 | | its processes begin, on the sessions there are; Serving |
| 5 | tells systemd who is the service now, and is gone | tells systemd that it is up |

Traffic waits from 3 to 4, in the TUN's queue and in the socket buffers. Whatever goes wrong until
then ends the new program and nothing else; after 3 the old processes are forked again. Nothing
is ever done by both.

A gateway that is told to stop (SIGTERM, mostly) before 3 stays, and stops. What comes after that is
passed on: the new one stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from wgmp.errors import ControlError, unexpected
from wgmp.estate import (
    ESTATE,
    FORMAT,
    Bequest,
    Estate,
    Go,
    Hello,
    Message,
    Prepared,
    Refused,
    Serving,
    encode,
    readable,
    receive,
    write,
)

log = logging.getLogger("wgmp")

DESCRIPTOR_VARIABLE = "WGMP_HANDOVER"

# Loading Python and the modules, on a busy machine; then thousands of peers.
_START_LIMIT_S = 20.0
_PREPARE_LIMIT_S = 20.0
_BEGIN_LIMIT_S = 3.0
# Within that the event loop hears of a signal that has come.
_LAST_LOOK_S = 0.01

_ENDED = "it ended; the log may say why"

_Awaited = TypeVar("_Awaited", bound=Message)


class Leaving(Protocol):
    """What is asked of the supervisor that leaves."""

    interface: str

    @property
    def ending(self) -> bool:
        """Whether the gateway has been told to stop."""

    async def hold(self) -> None:
        """Take no change of the configuration from now on; whoever asks waits."""

    async def resume(self) -> None:
        """Take changes again; processes that were ended are forked again."""

    def bequeath(self) -> tuple[Estate, list[tuple[str, int]]]:
        """Return all that goes to the successor: the descriptors, each with its name, are lent."""

    async def leave(self) -> bool:
        """End all processes; return whether they ended in order. Raises ControlError."""

    def followed_by(self, pid: int) -> None:
        """Tell whoever manages the service that process `pid` is it now, which waits for that."""


class _FailedError(Exception):
    """The successor did not do what it has to; `str` says what."""


async def hand_over(gateway: Leaving, program: Sequence[str]) -> tuple[int, str, float]:
    """Let `program` (a command that runs `wgmp`) take the gateway over.

    Returns its process id, its version, and for how many seconds traffic waited. Raises
    ControlError when it does not come up; the gateway goes on then.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with ours:
        with theirs:
            successor = _start(program, gateway.interface, theirs)
        held, roles = False, list[int]()
        try:
            hello = await _hear(ours, Hello, _START_LIMIT_S)
            if hello.format != FORMAT:
                raise _FailedError(
                    f"version {hello.version} has another format: stop this gateway, start that one"
                )
            _see_that_it_goes_on(gateway)
            held = True
            await gateway.hold()
            _send_estate(ours, *gateway.bequeath())
            await _hear(ours, Prepared, _PREPARE_LIMIT_S)
            _see_that_it_goes_on(gateway)
            roles.extend(_children(successor.pid))
            started = asyncio.get_running_loop().time()
            orderly = await gateway.leave()
            _see_that_it_goes_on(gateway)
            ours.send(encode(Go(orderly)))
            await _hear(ours, Serving, _BEGIN_LIMIT_S)
        except Exception as error:
            successor.kill()
            successor.wait()
            await _all_gone(roles)
            if held:
                await gateway.resume()
            raise ControlError(f"the new program did not take over: {_reason(error)}") from error
        pause_s = asyncio.get_running_loop().time() - started
        gateway.followed_by(successor.pid)
        await asyncio.sleep(_LAST_LOOK_S)
        if gateway.ending:
            os.kill(successor.pid, signal.SIGTERM)
        for descriptor in roles:
            os.close(descriptor)
        return successor.pid, hello.version, pause_s


def _see_that_it_goes_on(gateway: Leaving) -> None:
    if gateway.ending:
        raise _FailedError("the gateway was told to stop")


def _reason(error: Exception) -> str:
    match error:
        case ConnectionError():
            return _ENDED
        case _FailedError() | ControlError() | OSError():
            return str(error)
        case _:
            log.exception("this should not happen")
            return unexpected(error)


def _start(
    program: Sequence[str], interface: str, theirs: socket.socket
) -> subprocess.Popen[bytes]:
    command = [*program, "supervise", interface, "--foreground"]
    environment = {**os.environ, DESCRIPTOR_VARIABLE: str(theirs.fileno())}
    environment.pop("WATCHDOG_PID", None)  # it will be another
    try:
        return subprocess.Popen(command, pass_fds=(theirs.fileno(),), env=environment)
    except (OSError, ValueError) as error:  # ValueError: there is a NUL in it
        reason = error.strerror if isinstance(error, OSError) else error
        raise ControlError(f"{program[0]} cannot be run: {reason}") from error


def _children(pid: int) -> Iterator[int]:
    """Yield a descriptor (pidfd) of each child of a process. Raises OSError."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            yield os.pidfd_open(int(child))


async def _all_gone(processes: list[int]) -> None:
    """Wait until processes whose parent has ended have ended too, which may take a moment.

    A session must never have two workers. The descriptors are closed.
    """
    for descriptor in processes:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        await readable(descriptor)
        os.close(descriptor)


def _send_estate(ours: socket.socket, estate: Estate, named: list[tuple[str, int]]) -> None:
    names = [ESTATE, *(name for name, _ in named)]
    file = write(estate)
    try:
        descriptors = [file, *(descriptor for _, descriptor in named)]
        socket.send_fds(ours, [encode(Bequest(names))], descriptors)
    finally:
        os.close(file)


async def _hear(ours: socket.socket, awaited: type[_Awaited], limit_s: float) -> _Awaited:
    """Return the successor's next message, which must be of this kind."""
    try:
        async with asyncio.timeout(limit_s):
            message = await receive(ours)
    except TimeoutError:
        raise _FailedError(f"it said nothing for {limit_s:.0f} s") from None
    match message:
        case awaited():
            return message
        case Refused(reason):
            raise _FailedError(reason)
        case None:
            raise _FailedError(_ENDED)
        case _:
            raise _FailedError(f"it answered {type(message).__name__}")
