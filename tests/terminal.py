"""A terminal of 80 columns and 24 lines with a program in it, as a person uses it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
from collections.abc import Callable
from typing import Any

from wgmp.errors import CommandError
from wgmp.netns import wait_for

_LIMIT_S = 15.0
_QUIET_S = 0.01
# A library that reads lines has this process's size of a terminal set.
_SIZES = {"COLUMNS", "LINES"}

MakeTerminal = Callable[..., "Terminal"]


class Terminal:
    """Runs `command` in a process and a session of its own. `output`: what it has written."""

    def __init__(self, *command: str) -> None:
        environment = {name: os.environ[name] for name in os.environ.keys() - _SIZES}
        environment["TERM"] = "xterm-256color"
        self.pid, self._ours = pty.fork()
        if not self.pid:
            _resize(0, 80)
            os.execvpe(command[0], command, environment)
        self._before = self._settings()
        self.output = ""
        self._code: int | None = None

    def resize(self, columns: int) -> None:
        """Have so many columns, and 24 lines."""
        _resize(self._ours, columns)

    def press(self, keys: str) -> None:
        """Type keys; what was on the screen before them is forgotten."""
        self._read()
        self.output = ""
        os.write(self._ours, keys.encode())

    def shows(self, pattern: str) -> None:
        """Wait until something is on the screen, apart from colours."""

        def there() -> bool:
            self._read()
            return bool(re.search(pattern, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.output)))

        try:
            wait_for(there, _LIMIT_S, f"{pattern!r} is shown")
        except CommandError as error:
            raise AssertionError(f"{error}, but {self.output[-1500:]!r}") from None

    def ended(self) -> int:
        """Wait for its end; return its exit code."""

        def gone() -> bool:
            self._read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
            return bool(pid)

        wait_for(gone, _LIMIT_S, "it ends")
        self._read()
        assert self._code is not None
        return self._code

    def is_as_it_was(self) -> bool:
        """Whether the terminal is set as it was before the program, which shows what is typed."""
        return self._settings() == self._before

    def close(self) -> None:
        """End it if it still runs."""
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._ours)

    def _settings(self) -> list[Any]:
        return termios.tcgetattr(self._ours)

    def _read(self) -> None:
        while select.select([self._ours], [], [], _QUIET_S)[0]:
            try:
                self.output += os.read(self._ours, 1 << 16).decode(errors="replace")
            except OSError:  # it has ended
                return


def _resize(descriptor: int, columns: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
