"""`wgmp top` on a gateway that stands still: one frame, and a terminal that lives."""

from __future__ import annotations

import sys
import time

import pytest

from tests.terminal import MakeTerminal, Terminal
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


@pytest.fixture
def top(gateway: Served, terminal: MakeTerminal) -> Terminal:
    """A terminal that shows the gateway."""
    gateway.names = Looks(gateway)
    gateway.peer(1, "10.0.0.2/32")
    return terminal(sys.executable, "-c", _TOP, str(control.DIRECTORY))


def looks(gateway: Served) -> int:
    """How often the gateway was looked at."""
    assert isinstance(gateway.names, Looks)
    return gateway.names.count


def test_figures_move_until_they_are_paused_and_after_that_again(
    gateway: Served, top: Terminal
) -> None:
    top.shows("25 a record")
    top.press(" ")
    top.shows("PAUSED")
    before = looks(gateway)
    time.sleep(0.5)
    assert looks(gateway) == before
    top.press(" ")
    wait_for(lambda: looks(gateway) > before + 2, LIMIT_S, "it goes on")
    top.shows("25 a record")
    assert not top.is_as_it_was()
    top.press("q")
    assert top.ended() == 0
    assert top.is_as_it_was()


def test_a_terminal_that_gets_wider_shows_more(top: Terminal) -> None:
    top.shows("endpoint")
    assert "received" not in top.output
    top.resize(160)
    top.output = ""
    top.shows("received")
    top.press("\x1b[B\x1b[5~/10.0.0.2\r")
    top.shows("1 of 1 peers with '10.0.0.2'")


@pytest.mark.parametrize(("key", "code"), [("\x03", 130), ("\x04", 0)])
def test_ctrl_c_and_ctrl_d_end_it_and_the_terminal_is_as_it_was(
    top: Terminal, key: str, code: int
) -> None:
    top.shows("endpoint")
    top.press(key)
    assert top.ended() == code
    assert top.is_as_it_was()


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
