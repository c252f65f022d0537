"""`wgmp top` on a gateway that stands still: one frame, and a terminal that lives."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator

import pytest

from wgmp import control
from wgmp.cli import main
from wgmp.counters import Counter
from wgmp.keys import to_base64
from wgmp.netns import wait_for
from wgmp.observe.names import Names

from .conftest import Served

LIMIT_S = 10.0

_TOP = """
import pathlib, sys
from wgmp import cli, control
control.DIRECTORY = pathlib.Path(sys.argv[1])
sys.exit(cli.main(["top", "wg0", "--interval", "0.1"]))
"""


class Looks(Names):
    """Counts how often the gateway is looked at; each time, 4 records of 100 packets have come."""

    def __init__(self, gateway: Served) -> None:
        super().__init__([])
        self.count = 0
        self._reader = gateway.counters["udp_reader"]

    def current(self) -> dict[str, str]:
        """Be looked at."""
        self.count += 1
        self._reader.add(Counter.RECORDS_OUT, 4)
        self._reader.add(Counter.PACKETS_OUT, 100)
        return {}


class Terminal:
    """A terminal of 80 columns in which `wgmp top` runs, in a process of its own."""

    def __init__(self) -> None:
        self.pid, self._ours = pty.fork()
        if not self.pid:
            command = [sys.executable, "-c", _TOP, str(control.DIRECTORY)]
            # Without sizes: a library that reads lines has this process's set.
            sizes = {"COLUMNS", "LINES"}
            environment = {name: os.environ[name] for name in os.environ.keys() - sizes}
            os.execve(sys.executable, command, environment | {"TERM": "xterm-256color"})
        self.output = ""
        self.code: int | None = None
        self.resize(80)

    def resize(self, columns: int) -> None:
        """Have so many columns, and 24 lines."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def press(self, keys: str) -> None:
        """Type keys; what was on the screen before them is forgotten."""
        self._read()
        self.output = ""
        os.write(self._ours, keys.encode())

    def _read(self) -> None:
        while select.select([self._ours], [], [], 0.01)[0]:
            try:
                self.output += os.read(self._ours, 1 << 16).decode(errors="replace")
            except OSError:  # it has ended
                return

    def shows(self, pattern: str) -> None:
        """Wait until something is on the screen, apart from colours."""

        def there() -> bool:
            self._read()
            return bool(re.search(pattern, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.output)))

        wait_for(there, LIMIT_S, f"{pattern!r} is shown, not {self.output[-1500:]!r}")

    def ended(self) -> int:
        """Wait for its end; return its exit code."""

        def gone() -> bool:
            self._read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            return bool(pid)

        wait_for(gone, LIMIT_S, "it ends")
        assert self.code is not None
        return self.code

    def echoes(self) -> bool:
        """Whether the terminal shows what is typed, as it does before and after."""
        return bool(termios.tcgetattr(self._ours)[3] & termios.ECHO)

    def close(self) -> None:
        """End it if it still runs."""
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._ours)


@pytest.fixture
def terminal(gateway: Served) -> Iterator[Terminal]:
    """A terminal that shows the gateway."""
    gateway.names = Looks(gateway)
    gateway.peer(1, "10.0.0.2/32")
    made = Terminal()
    yield made
    made.close()


def looks(gateway: Served) -> int:
    """How often the gateway was looked at."""
    assert isinstance(gateway.names, Looks)
    return gateway.names.count


def test_figures_move_until_they_are_paused_and_after_that_again(
    gateway: Served, terminal: Terminal
) -> None:
    terminal.shows("25 a record")
    terminal.press(" ")
    terminal.shows("PAUSED")
    before = looks(gateway)
    time.sleep(0.5)
    assert looks(gateway) == before
    terminal.press(" ")
    wait_for(lambda: looks(gateway) > before + 2, LIMIT_S, "it goes on")
    terminal.shows("25 a record")
    assert not terminal.echoes()
    terminal.press("q")
    assert terminal.ended() == 0
    assert terminal.echoes()


def test_a_terminal_that_gets_wider_shows_more(terminal: Terminal) -> None:
    terminal.shows("endpoint")
    assert "received" not in terminal.output
    terminal.resize(160)
    terminal.output = ""
    terminal.shows("received")
    terminal.press("\x1b[B\x1b[5~/10.0.0.2\r")
    terminal.shows("1 of 1 peers with '10.0.0.2'")


@pytest.mark.parametrize(("key", "code"), [("\x03", 130), ("\x04", 0)])
def test_ctrl_c_and_ctrl_d_end_it_and_the_terminal_is_as_it_was(
    terminal: Terminal, key: str, code: int
) -> None:
    terminal.shows("endpoint")
    terminal.press(key)
    assert terminal.ended() == code
    assert terminal.echoes()


def test_once_is_one_frame_of_the_time_asked_for_with_every_peer(
    gateway: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    gateway.names = Looks(gateway)
    keys = [to_base64(gateway.peer(number).public_key) for number in range(1, 60)]
    row = gateway.row(gateway.device.peers[bytes([7]) * 32])
    row.add_received(5 << 20)
    assert main(["top", "--once", "--interval", "0.1"]) == 0
    frame = capsys.readouterr().out
    assert "25 a record" in frame
    assert all(key[:20] in frame for key in keys)
    assert frame.rstrip().endswith("59 of 59 peers")
    assert main(["top", "--once", "--interval", "0.1", "--filter", keys[3], "--sort", "sent"]) == 0
    frame = capsys.readouterr().out
    assert keys[3][:20] in frame
    assert f"1 of 59 peers with '{keys[3]}'" in frame
    assert "sent \u25bc" in frame
    assert looks(gateway) == 4


def test_without_a_terminal_it_says_what_to_use(
    gateway: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top", "wg0"]) == 2
    assert capsys.readouterr().err == "wgmp: there is no terminal for a live view: use --once\n"
