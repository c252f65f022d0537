"""Garbage on the UDP port is dropped and counted by its reason; the tunnel goes on unharmed."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from wgmp.netns import wait_for

from .conftest import MakeTunnel
from .tunnel import Gateway

pytestmark = pytest.mark.root

GARBAGE = Path(__file__).with_name("garbage.py")

# The reasons that may stand for each kind of garbage.
REASONS = {
    "shape": {"bad_length", "bad_type", "truncated"},
    "bad_mac1": {"bad_mac1"},
    "unknown_index": {"unknown_index"},
    "handshake": {"bad_ephemeral", "bad_static", "unknown_index", "cookie_required"},
    "replayed": {"replayed"},
    "bad_tag": {"bad_tag"},
}


@pytest.mark.parametrize("topology", ["pipeline", "compact"])
def test_garbage_is_counted_by_reason_and_does_no_harm(tunnel: MakeTunnel, topology: str) -> None:
    ends = tunnel("wgmpd", "wireguard-go", topology=topology)
    gateway, peer = ends.left, ends.right
    assert gateway.ping(peer.inner4)
    before, handshake, processes = gateway.drops(), _handshake(gateway), gateway.role_pids()
    pings = peer.namespace.start(
        *("ping", "-n", "-i0.1", gateway.inner4), log=peer.log.with_name("ping")
    )
    target = (gateway.outer4, str(gateway.port), gateway.public_key)
    printed = peer.namespace.run(sys.executable, str(GARBAGE), *target).stdout
    owed: dict[str, int] = json.loads(printed)

    def counted() -> Counter[str]:
        grown = Counter(gateway.drops())
        grown.subtract(before)
        return Counter(
            {kind: sum(grown[reason] for reason in names) for kind, names in REASONS.items()}
        )

    # An index that random bytes hit by chance would make one of these a bad tag.
    assert wait_for(lambda: counted() if counted() == owed else None, 10, f"{owed} are counted")
    assert pings.poll() is None
    assert "no answer" not in peer.log.with_name("ping").read_text()
    assert gateway.ping_all(peer.inner4, count=20, size=1000)
    assert _handshake(gateway) == handshake, "nothing made the gateway shake hands again"
    assert gateway.role_pids() == processes, "no role has died"
    (known,) = gateway.peers().values()
    assert known.endpoint == peer.endpoint(4), "a replay does not move the endpoint"


def _handshake(gateway: Gateway) -> int:
    (peer,) = gateway.peers().values()
    return peer.handshake
