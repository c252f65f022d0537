"""A role that is there but does nothing is replaced; one that is aborted says where it was."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from wgmp import control
from wgmp.netns import wait_for

from .conftest import MakeTunnel
from .tunnel import Gateway, outage, transfer

pytestmark = [pytest.mark.root, pytest.mark.alone]

# After 2 s it is taken for one that hangs; the rest is what a busy machine may add.
REPLACED_WITHIN_S = 4.0
LIMIT_S = 20.0


def worker0(gateway: Gateway) -> int:
    """Return its process id, 0 while there is none. Without a process that asks, to ask often."""
    processes = control.ask_stats(gateway.interface).processes
    return next(row.pid for row in processes if row.name == "worker0")


def test_a_stopped_worker_is_replaced_and_the_transfer_goes_on(tunnel: MakeTunnel) -> None:
    ends = tunnel("wgmpd", "wireguard-go", topology="pipeline")
    assert ends.left.ping(ends.right.inner4)
    victim = ends.left.role_pids()["worker0"]
    flow = transfer(ends.left, ends.right)
    wait_for(lambda: flow.received().bytes > 1_000_000, LIMIT_S, "the transfer gets going")
    os.kill(victim, signal.SIGSTOP)
    stopped = time.monotonic()
    wait_for(lambda: worker0(ends.left) not in (victim, 0), LIMIT_S, "a successor")
    assert time.monotonic() - stopped < REPLACED_WITHIN_S
    outage(flow)
    flow.conclude(60)
    rows = {row["name"]: row for row in ends.left.stats()["processes"]}
    assert (rows["worker0"]["hangs"], rows["worker0"]["restarts"]) == (1, 1)
    assert all(row["hangs"] == 0 for name, row in rows.items() if name != "worker0")
    assert "worker0 did not turn its loop for" in ends.left.log.read_text()

    os.kill(rows["udp_reader"]["pid"], signal.SIGABRT)
    wait_for(lambda: "udp_reader was here" in ends.left.log.read_text(), LIMIT_S, "its stack")
    stack = ends.left.log.read_text().partition("udp_reader was here")[2]
    assert "process.py" in stack
    assert ends.right.ping(ends.left.inner4)


def test_a_role_that_stands_still_for_a_moment_costs_no_packet(tunnel: MakeTunnel) -> None:
    ends = tunnel("wgmpd", "wireguard-go", topology="pipeline")
    assert ends.left.ping(ends.right.inner4)
    for name in ("tun_reader", "worker0", "udp_writer", "udp_reader", "tun_writer"):
        pid = ends.left.role_pids()[name]
        standing = threading.Timer(0.15, os.kill, (pid, signal.SIGSTOP))
        going = threading.Timer(0.4, os.kill, (pid, signal.SIGCONT))
        standing.start()
        going.start()
        answered = ends.left.ping_all(ends.right.inner4, count=20, size=1000)
        going.join()
        assert answered, (name, ends.left.drops())
