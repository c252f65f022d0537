"""`wgmp top` in a terminal of its own, as a person uses it."""

from __future__ import annotations

import re
import signal

import pytest

from tests.terminal import MakeTerminal, Terminal

from .conftest import MakeTunnel
from .tunnel import WGMP, Gateway

pytestmark = pytest.mark.root


def top(terminal: MakeTerminal, gateway: Gateway, *options: str) -> Terminal:
    """A terminal that shows the gateway."""
    inside = ("ip", "netns", "exec", gateway.namespace.name)
    return terminal(*inside, WGMP, "top", *options, gateway.interface)


def test_top_lives_in_a_terminal_and_leaves_it_as_it_was(
    tunnel: MakeTunnel, terminal: MakeTerminal
) -> None:
    ends = tunnel("wgmpd", "wireguard-go", topology="pipeline")
    gateway, peer = ends.left, ends.right.public_key
    assert gateway.ping(ends.right.inner4)
    shown = top(terminal, gateway, "--interval", "0.3")
    shown.shows(re.escape(gateway.interface))
    shown.shows(r"worker0 +[\u2588\u2591]{10}")
    shown.shows(re.escape(peer[:12]))
    shown.press("d")
    shown.shows("drops \u25bc")
    shown.press("/nobody")
    shown.shows("filter: nobody_")
    shown.press("\r")
    shown.shows("0 of 1 peers with 'nobody'")
    shown.press("\x1b")
    shown.shows("1 of 1 peers")
    shown.press(" ")
    shown.shows("PAUSED")
    shown.press("q")
    assert shown.ended() == 0
    assert shown.is_as_it_was()


def test_top_ends_with_its_gateway_and_once_needs_no_terminal(
    tunnel: MakeTunnel, terminal: MakeTerminal
) -> None:
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
    shown = top(terminal, gateway)
    shown.shows(re.escape(gateway.interface))
    gateway.process.send_signal(signal.SIGTERM)
    assert shown.ended() == 1
    shown.shows("no gateway runs|does not answer")
    assert shown.is_as_it_was()
