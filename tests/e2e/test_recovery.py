"""A role process killed while TCP flows is replaced: transfer and session go on."""

from __future__ import annotations

import os
import signal
import time

import pytest

from wgmp.netns import wait_for
from wgmp.traffic import Transfer

from .conftest import MakeTunnel
from .tunnel import Gateway, transfer

pytestmark = pytest.mark.root

FLOW_S = 4.0
BACK_LIMIT_S = 3.0
# The receiver tells five times a second how far it is.
REPORT_S = 0.3

PIPELINE = ("tun_reader", "udp_reader", "admission", "worker0", "udp_writer", "tun_writer")


@pytest.mark.parametrize(
    ("topology", "name"),
    [*(("pipeline", role) for role in PIPELINE), ("compact", "gateway")],
)
@pytest.mark.parametrize("direction", ["sending", "receiving"])
def test_a_killed_role_is_replaced_and_the_transfer_ends_intact(
    tunnel: MakeTunnel, topology: str, name: str, direction: str
) -> None:
    ends = tunnel("wgmpd", "wireguard-go", topology=topology)
    assert ends.left.ping(ends.right.inner4), "the right end learns where the left one is"
    pair = (ends.left, ends.right) if direction == "sending" else (ends.right, ends.left)
    victim, sessions = ends.left.role_pids()[name], _handshakes(ends.left)
    flow = transfer(*pair, "--seconds", str(FLOW_S))
    wait_for(lambda: flow.received().bytes > 1_000_000, FLOW_S, "the transfer gets going")
    os.kill(victim, signal.SIGKILL)
    outage = _outage(flow)
    flow.finish(60)
    assert _successor(ends.left, name) != victim
    assert _handshakes(ends.left) == sessions, "the successor goes on with the same session"
    assert outage < BACK_LIMIT_S, f"{name}: no traffic for {outage:.1f} s"


def _handshakes(gateway: Gateway) -> int:
    roles = gateway.stats()["roles"]
    return sum(int(role["counters"]["handshakes_completed"]) for role in roles)


def _outage(flow: Transfer) -> float:
    """Return after how many seconds bytes arrive that cannot have been on their way."""
    start = time.monotonic()
    time.sleep(REPORT_S)
    before = flow.received().bytes
    wait_for(lambda: flow.received().bytes > before, 30, "traffic flows again")
    return time.monotonic() - start


def _successor(gateway: Gateway, name: str) -> int:
    return wait_for(lambda: gateway.role_pids().get(name, 0), 5, f"{name} has a successor")
