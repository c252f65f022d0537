"""`wgmp workers`: their number changes under TCP, and peers move with their sessions."""

from __future__ import annotations

import os
import re
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from wgmp.errors import CommandError
from wgmp.netns import wait_for

from .conftest import MakeTunnel
from .torture import flow, longest_gap, role_processes
from .tunnel import WGMP, Gateway, exists

pytestmark = [pytest.mark.root, pytest.mark.alone]

PAUSE_LIMIT_S = 1.5


def _change(gateway: Gateway, count: int) -> None:
    gateway.namespace.run(WGMP, "workers", str(count), gateway.interface)


def _look_for_keys(gateway: Gateway) -> None:
    """Only workers and the supervisor map session memory, and nobody dumps core."""
    for row in gateway.stats()["processes"]:
        process = Path(f"/proc/{row['pid']}")
        may = row["name"] == "supervisor" or any("worker" in role for role in row["roles"])
        assert ("wgmp:sessions" in (process / "maps").read_text()) == may, row["name"]
        assert re.search(r"Max core file size +0 ", (process / "limits").read_text())


@pytest.mark.parametrize("topology", ["pipeline", "compact"])
def test_the_number_of_workers_changes_while_tcp_flows(tunnel: MakeTunnel, topology: str) -> None:
    environment = {"WGMP_WORKERS": "1", "LOG_LEVEL": "error"}
    ends = tunnel("wgmpd", "wgmpd", topology=topology, environment=environment)
    assert ends.left.ping(ends.right.inner4)
    handshakes = ends.left.total("handshakes_completed")
    flows = [flow(ends.left, ends.right, 5201), flow(ends.right, ends.left, 5202)]
    wait_for(lambda: all(each.received().bytes > 1_000_000 for each in flows), 20, "it flows")
    pauses = []
    for count in (4, 2, 1):
        start = time.monotonic()
        _change(ends.left, count)
        time.sleep(1.0)
        stats = ends.left.stats()
        assert stats["workers_count"] == len(stats["workers"]) == count
        arrivals = [[report.at for report in each.arrivals()] for each in flows]
        pauses.append(max(longest_gap(times, start, time.monotonic()) for times in arrivals))
    for each in flows:
        each.conclude(60)
    print(f"{topology}: longest pauses {[round(1000 * pause) for pause in pauses]} ms")
    assert max(pauses) < PAUSE_LIMIT_S
    assert ends.left.total("handshakes_completed") == handshakes
    assert ends.left.total("sealed") > 10_000, "counters go on"
    assert all(row["restarts"] == 0 for row in ends.left.stats()["processes"])
    assert ends.left.log.read_text() == "", "nothing went wrong"
    _look_for_keys(ends.left)
    for refused in (0, 65):
        with pytest.raises(CommandError, match="1 to 64"):
            _change(ends.left, refused)


def test_a_role_that_was_to_be_replaced_is_there_once_after_a_change(tunnel: MakeTunnel) -> None:
    ends = tunnel("wgmpd", "wireguard-go", topology="pipeline")
    for death in range(5):  # after the last the next one waits for 0.8 s
        victim = wait_for(lambda: _pid(ends.left, "tun_reader"), 5, f"death {death}")
        os.kill(victim, signal.SIGKILL)
        wait_for(partial(_gone, victim), 5, "it dies")
    _change(ends.left, 1)
    time.sleep(2.0)
    names = [name for _, name in role_processes(ends.left)]
    assert sorted(set(names)) == sorted(names)
    assert "tun_reader" in names
    assert ends.left.ping(ends.right.inner4)


def _gone(pid: int) -> bool:
    return not exists(pid)


def _pid(gateway: Gateway, name: str) -> int:
    return next((pid for pid, each in role_processes(gateway) if each == name), 0)
