"""The errors an operator can meet, in one tree.

Network input never raises past the peer: it is a drop with a reason (`protocol.outcome`).
What is here reaches an operator as one line that says what to do, and as an exit code. Modules
with errors of their own derive them from one of these.
"""

from __future__ import annotations

import os
import traceback

import msgspec

EXIT_CODES = (
    (0, "done"),
    (1, "failed, for the reason in one line on standard error"),
    (2, "a mistake on the command line or in a file, and what to write instead"),
    (130, "ended by Ctrl-C"),
)


# What msgspec raises for bytes that are no message. Where text is not UTF-8, or things are nested
# too deep, Python's own errors come through.
UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class WgmpError(Exception):
    """The root of the tree. `str(error)` is the one line the operator reads.

    `errno`: as the system gave it, 0 where it gave none.
    """

    exit_code = 1

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class ConfigError(WgmpError):
    """A mistake in a configuration file or on the command line.

    `file` and `line` say where, when known; the message says what to write instead.
    """

    exit_code = 2

    def __init__(
        self, message: str, file: str | None = None, line: int | None = None, errno: int = 0
    ) -> None:
        where = "" if file is None else f"{file}:{line}: " if line is not None else f"{file}: "
        super().__init__(where + message, errno)
        self.file = file
        self.line = line


class PrivilegeError(WgmpError):
    """The caller may not do this; the message names the missing privilege."""


class TunDeviceError(WgmpError):
    """The TUN device cannot be opened or configured."""


class SocketError(WgmpError):
    """A UDP or Unix socket cannot be opened."""


class UnsupportedPlatformError(WgmpError):
    """This system, kernel or CPU cannot do it; the message says what can be used instead."""


class RingError(WgmpError):
    """A ring's memory is not what its header promises, or this CPU cannot order its stores."""


class RoleError(WgmpError):
    """A role could not start; the message is the role's own."""


class CommandError(WgmpError):
    """An external command failed; the message holds the command and what it printed."""


class ControlError(WgmpError):
    """The control socket of a running gateway refused, or there is none."""


def unexpected(error: Exception) -> str:
    """Describe an error that is wgmp's own, with where it was raised, in one line."""
    return f"internal error: {with_place(error)}"


def with_place(error: Exception) -> str:
    """Return an error's type and text, and the file and line where it was raised, in one line."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(place.filename)}:{place.lineno}"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} ({where})"
