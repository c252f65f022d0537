"""A session that has grown old is replaced by the next while traffic flows."""

from __future__ import annotations

import pytest

from .conftest import MakeTunnel
from .short_timers import REKEY_AFTER_S
from .tunnel import transfer

pytestmark = [pytest.mark.root, pytest.mark.alone]

REKEYS = 3


@pytest.mark.parametrize("right", ["wireguard-go", "wgmpd-short"])
def test_traffic_flows_on_while_sessions_are_replaced(tunnel: MakeTunnel, right: str) -> None:
    ends = tunnel("wgmpd-short", right)
    assert ends.left.ping(ends.right.inner4)
    first, before = ends.left.peer().handshake, ends.left.drops()
    seconds = (REKEYS + 0.5) * REKEY_AFTER_S
    transfer(ends.left, ends.right, "--seconds", str(seconds)).finish(60)
    rekeys = ends.left.total("handshakes_completed") - 1
    assert REKEYS <= rekeys <= REKEYS + 1, "one rekey for each time the session grew old"
    assert ends.left.peer().handshake >= first + (REKEYS - 1) * REKEY_AFTER_S
    assert ends.left.drops().get("keypair_expired", 0) == before.get("keypair_expired", 0)
    assert ends.right.ping_all(ends.left.inner4, count=5, size=100)
