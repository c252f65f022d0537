"""Roles of both ends are killed one after the other, and nothing is lost but time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wgmp.netns import Namespaces

from .torture import reused, torture

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


def test_a_counter_used_twice_would_be_seen() -> None:
    indices = np.array([7, 7, 8, 7, 7], np.uint32)
    counters = np.array([1, 2, 1, 2, 1], np.uint64)
    tags = np.array([10, 20, 30, 21, 10], np.uint64)
    assert reused(indices, counters, tags) == 1, "the same bytes twice are a retransmission"
