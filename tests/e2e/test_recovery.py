"""A role process killed while TCP flows is replaced: transfer and session go on."""

from __future__ import annotations

import os
import signal
import time

import pytest

from wgmp.netns import wait_for

from .conftest import MakeTunnel
from .tunnel import Gateway, outage, transfer

pytestmark = [pytest.mark.root, pytest.mark.alone]

LIMIT_S = 60.0
BACK_LIMIT_S = 3.0

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
    victim, sessions = ends.left.role_pids()[name], ends.left.total("handshakes_completed")
    flow = transfer(*pair)
    wait_for(lambda: flow.received().bytes > 1_000_000, LIMIT_S, "the transfer gets going")
    os.kill(victim, signal.SIGKILL)
    lost_s = outage(flow)
    flow.conclude(LIMIT_S)
    assert _successor(ends.left, name) != victim
    assert ends.left.total("handshakes_completed") == sessions, "its session goes on"
    assert lost_s < BACK_LIMIT_S, f"{name}: no traffic for {lost_s:.1f} s"


def _successor(gateway: Gateway, name: str) -> int:
    return wait_for(lambda: gateway.role_pids().get(name, 0), 5, f"{name} has a successor")


def test_one_process_killed_again_and_again_takes_nothing_with_it(tunnel: MakeTunnel) -> None:
    ends = tunnel("wgmpd", "wireguard-go", topology="compact")
    assert ends.left.ping(ends.right.inner4)
    sessions = ends.left.total("handshakes_completed")
    for _ in range(15):
        os.kill(_successor(ends.left, "gateway"), signal.SIGKILL)
        assert ends.left.ping(ends.right.inner4)
        time.sleep(0.4)  # somebody who kills what has hardly begun is believed less
    assert ends.left.total("handshakes_completed") == sessions
    assert sum(process["restarts"] for process in ends.left.stats()["processes"]) == 15
