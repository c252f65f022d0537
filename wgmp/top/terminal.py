"""The live part of `wgmp top`: keys from a terminal, a frame a second onto it."""

from __future__ import annotations

import contextlib
import os
import re
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator

from rich.console import Console
from rich.live import Live

from wgmp import control
from wgmp.observe.processes import Meter
from wgmp.observe.snapshot import Snapshot
from wgmp.top.screen import Frame
from wgmp.top.view import View

_KEYS = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1b[C": "right",
    "\x1b[D": "left",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    "\x1b[H": "home",
    "\x1b": "escape",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\x08": "backspace",
}
# A control sequence (ECMA-48, 5.4), a function key (ESC O and a letter), or a character. A terminal
# sends the bytes of one key at once; a single escape is the key of that name.
_KEY = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.)?|.", re.DOTALL)
_KEY_BYTES = 64


class Source:
    """Snapshots of one gateway, with its processes measured."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._meter = Meter(memory=False)

    def take(self) -> Snapshot:
        """Return a snapshot of this moment; raises ControlError when the gateway is gone."""
        snapshot = control.ask_stats(self._interface)
        self._meter.measure(snapshot.processes)
        return snapshot


def once(interface: str, view: View, interval_s: float) -> None:
    """Print one frame, of `interval_s` seconds, with every peer."""
    console = Console(highlight=False)
    source = Source(interface)
    before = source.take()
    time.sleep(interval_s)
    frame = Frame(before, source.take(), view, console.width, ascii=_is_ascii(console))
    console.print(frame.render())


def run(interface: str, view: View, interval_s: float) -> None:
    """Show frames until the user has enough. Raises ControlError when the gateway is gone."""
    console = Console(highlight=False)
    source = Source(interface)
    before = after = source.take()
    due = time.monotonic() + min(interval_s, 0.5)  # the first rates come soon
    with _keys(), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            width, height = console.size
            frame = Frame(before, after, view, width, height, _is_ascii(console))
            live.update(frame.render(), refresh=True)
            for key in _pressed(max(0.0, due - time.monotonic())):
                if not view.press(key):
                    return
            if time.monotonic() >= due:
                due = time.monotonic() + interval_s
                if not view.paused:
                    before, after = after, source.take()


def _is_ascii(console: Console) -> bool:
    return not console.encoding.lower().startswith("utf")


@contextlib.contextmanager
def _keys() -> Iterator[None]:
    """Let keys come one by one, and unseen; put the terminal back on every way out."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _pressed(wait_s: float) -> Iterator[str]:
    """Yield the keys pressed within `wait_s` seconds, from the first one on without waiting."""
    descriptor = sys.stdin.fileno()
    if not select.select([descriptor], [], [], wait_s)[0]:
        return
    text = os.read(descriptor, _KEY_BYTES).decode(errors="ignore")
    if not text:
        yield "q"  # the terminal is gone
    yield from keys_in(text)


def keys_in(text: str) -> list[str]:
    """Return the keys in what a terminal sent; those that are not known as they came."""
    return [_KEYS.get(key, key) for key in _KEY.findall(text)]
