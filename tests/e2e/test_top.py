"""`wgmp top` in a terminal of its own, as a person uses it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import pytest

from wgmp.netns import wait_for

from .conftest import MakeTunnel
from .tunnel import WGMP, Gateway

pytestmark = pytest.mark.root

_LIMIT_S = 15.0


class Terminal:
    """A terminal of 80 columns and 24 lines in which `wgmp top` runs."""

    def __init__(self, gateway: Gateway, *options: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self.theirs = theirs
        command = ["ip", "netns", "exec", gateway.namespace.name, WGMP, "top", *options]
        self.process = subprocess.Popen(
            [*command, gateway.interface],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm-256color"},
        )
        self.output = ""

    def press(self, keys: str) -> None:
        """Type keys; what was on the screen before them is forgotten."""
        self.read()
        self.output = ""
        os.write(self._ours, keys.encode())

    def read(self) -> None:
        """Take in what the program has written."""
        while select.select([self._ours], [], [], 0.02)[0]:
            try:
                self.output += os.read(self._ours, 1 << 16).decode(errors="replace")
            except OSError:
                return

    def shows(self, pattern: str) -> None:
        """Wait until something is on the screen, apart from colours."""

        def there() -> bool:
            self.read()
            return bool(re.search(pattern, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.output)))

        wait_for(there, _LIMIT_S, f"{pattern!r} is shown, not {self.output[-1500:]!r}")

    def close(self) -> None:
        """End the program if it still runs, and the terminal."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self.theirs)


def test_top_lives_in_a_terminal_and_leaves_it_as_it_was(tunnel: MakeTunnel) -> None:
    ends = tunnel("wgmpd", "wireguard-go", topology="pipeline")
    gateway, peer = ends.left, ends.right.public_key
    assert gateway.ping(ends.right.inner4)
    terminal = Terminal(gateway, "--interval", "0.3")
    try:
        terminal.shows(re.escape(gateway.interface))
        terminal.shows(r"worker0 +[\u2588\u2591]{10}")
        terminal.shows(re.escape(peer[:12]))
        terminal.press("d")
        terminal.shows("drops \u25bc")
        terminal.press("/nobody")
        terminal.shows("filter: nobody_")
        terminal.press("\r")
        terminal.shows("0 of 1 peers with 'nobody'")
        terminal.press("\x1b")
        terminal.shows("1 of 1 peers")
        terminal.press(" ")
        terminal.shows("PAUSED")
        terminal.press("q")
        assert terminal.process.wait(_LIMIT_S) == 0
        assert termios.tcgetattr(terminal.theirs) == terminal.before
    finally:
        terminal.close()


def test_top_ends_with_its_gateway_and_once_needs_no_terminal(tunnel: MakeTunnel) -> None:
    ends = tunnel("wgmpd", "wireguard-go", topology="compact")
    gateway = ends.left
    assert gateway.ping(ends.right.inner4)
    run = gateway.namespace.run
    options = ("top", gateway.interface, "--once", "--interval", "0.2", "--sort", "handshake")
    frame = run(WGMP, *options, environment={"COLUMNS": "80"}).stdout
    assert gateway.interface in frame
    assert ends.right.public_key[:12] in frame
    assert max(map(len, frame.splitlines())) <= 80
    assert "\x1b" not in frame
    refused = run(WGMP, "top", gateway.interface, check=False)
    assert refused.returncode == 2
    assert "--once" in refused.stderr
    terminal = Terminal(gateway)
    try:
        terminal.shows(re.escape(gateway.interface))
        gateway.process.send_signal(signal.SIGTERM)
        gateway.process.wait(_LIMIT_S)
        time.sleep(0.1)
        assert terminal.process.wait(_LIMIT_S) == 1
        terminal.shows("no gateway runs|does not answer")
        assert termios.tcgetattr(terminal.theirs) == terminal.before
    finally:
        terminal.close()
