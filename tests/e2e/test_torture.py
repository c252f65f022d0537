"""Roles of both ends are killed one after the other, and nothing is lost but time."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from wgmp.netns import Namespaces, wait_for

from .conftest import MakeTunnel
from .torture import reused, role_processes, torture
from .tunnel import exists

KILLS = 15
BACK_LIMIT_S = 3.0


@pytest.mark.root
@pytest.mark.alone
def test_kills_cost_no_session_and_no_counter_is_used_twice(
    namespaces: Namespaces, tmp_path: Path
) -> None:
    found = torture(namespaces, tmp_path, kills=KILLS, interval_s=0.8)
    assert len(found.pauses) == KILLS
    assert found.datagrams > 10_000
    assert found.reused == 0
    assert found.handshakes == 0, f"killed: {found.victims}"
    assert max(found.pauses) < BACK_LIMIT_S, list(zip(found.victims, found.pauses, strict=True))


@pytest.mark.root
def test_a_role_that_has_died_and_is_not_reaped_yet_is_none_to_be_killed(
    tunnel: MakeTunnel,
) -> None:
    gateway = tunnel("wgmpd", "wireguard-go").left
    roles = role_processes(gateway)
    dying, name = roles[0]
    os.kill(gateway.process.pid, signal.SIGSTOP)
    try:
        os.kill(dying, signal.SIGKILL)
        wait_for(lambda: not exists(dying), 5, "it dies")
        assert role_processes(gateway) == roles[1:]
    finally:
        os.kill(gateway.process.pid, signal.SIGCONT)
    wait_for(lambda: name in [each for _, each in role_processes(gateway)], 5, "its successor")


def test_a_counter_used_twice_would_be_seen() -> None:
    indices = np.array([7, 7, 8, 7, 7], np.uint32)
    counters = np.array([1, 2, 1, 2, 1], np.uint64)
    tags = np.array([10, 20, 30, 21, 10], np.uint64)
    assert reused(indices, counters, tags) == 1, "the same bytes twice are a retransmission"
