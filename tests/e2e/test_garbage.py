"""Garbage on the UDP port is dropped and counted by its reason; the tunnel goes on unharmed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from wgmp.netns import wait_for

from .conftest import MakeTunnel
from .tunnel import Gateway

pytestmark = pytest.mark.root

GARBAGE = Path(__file__).with_name("garbage.py")


@pytest.mark.parametrize("topology", ["pipeline", "compact"])
def test_garbage_is_counted_by_reason_and_does_no_harm(tunnel: MakeTunnel, topology: str) -> None:
    ends = tunnel("wgmpd", "wireguard-go", topology=topology)
    gateway, peer = ends.left, ends.right
    assert gateway.ping(peer.inner4)
    before, handshake, processes = gateway.drops(), gateway.peer().handshake, gateway.role_pids()
    pings = peer.namespace.start(
        *("ping", "-n", "-i0.1", gateway.inner4), log=peer.log.with_name("ping")
    )
    target = (gateway.outer4, str(gateway.port), gateway.public_key)
    printed = peer.namespace.run(sys.executable, str(GARBAGE), *target).stdout
    owed: dict[str, int] = json.loads(printed)

    def all_counted() -> bool:
        now = gateway.drops()
        return all(now.get(kind, 0) - before.get(kind, 0) == owed[kind] for kind in owed)

    # Random bytes hit a live index once in a million runs; it would be a bad tag then.
    wait_for(all_counted, 10, f"{owed} are counted, not {gateway.drops()}")
    assert pings.poll() is None
    assert "no answer" not in peer.log.with_name("ping").read_text()
    assert gateway.ping_all(peer.inner4, count=20, size=1000)
    assert gateway.peer().handshake == handshake, "nothing made the gateway shake hands again"
    assert gateway.role_pids() == processes, "no role has died"
    assert gateway.peer().endpoint == peer.endpoint(4), "a replay does not move the endpoint"
    (figures,) = gateway.stats()["peers"]
    assert figures["drops"] == {reason: owed[reason] for reason in ("bad_tag", "replayed")}
    wait_for(lambda: pings.poll() is not None or not pings.terminate(), 5, "the pings end")
    wait_for(lambda: _balances(gateway), 10, f"the books balance: {gateway.stats()['stages']}")


def _balances(gateway: Gateway) -> bool:
    """Every packet that any stage ever took is accounted for."""
    stages = gateway.stats()["stages"]
    assert sum(stage["packets_in"] for stage in stages) > 5_000
    return not any(stage["unexplained"] for stage in stages)
