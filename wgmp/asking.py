"""What a client of a gateway or the agent says when there is nobody to ask."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from pathlib import Path

from wgmp.errors import UNDECODABLE, ControlError


class NobodyError(ControlError):
    """Nobody listens at the socket: there is none, or it was left by one that was killed."""


@contextlib.contextmanager
def asking(path: Path, server: str, place: str, start: str) -> Iterator[None]:
    """Raise ControlError for what goes wrong in the block, which asks at the socket `path`.

    `server`: who listens there, such as "agent"; `place`: where it runs, in words; `start`: the
    command that starts it.
    """
    try:
        yield
    except PermissionError:
        raise ControlError(f"{path} is not yours to use: run as root") from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise NobodyError(f"no {server} runs on {place}: start one with `{start}`") from None
    except (OSError, *UNDECODABLE) as error:
        reason = str(error) or "timed out"
        raise ControlError(f"the {server} on {place} does not answer: {reason}") from error


def asking_gateway(path: Path, interface: str) -> contextlib.AbstractContextManager[None]:
    """Do so for one of the sockets of the interface's gateway."""
    return asking(path, "gateway", interface, f"wgmp supervise {interface}")


def is_left_over(path: Path) -> bool:
    """Return whether the Unix socket at `path` was left by one that was killed."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path)) == errno.ECONNREFUSED
