"""Much TCP traffic through the tunnel arrives as it was sent, and both ends count the same."""

from __future__ import annotations

import time

import pytest

from wgmp.netns import wait_for
from wgmp.protocol.messages import Initiation

from .conftest import MakeTunnel
from .tunnel import transfer

pytestmark = [pytest.mark.root, pytest.mark.alone]

SIZE = 200_000_000
LIMIT_S = 90.0


@pytest.mark.parametrize("fastpath", ["auto", "reference"])
@pytest.mark.parametrize("topology", ["pipeline", "compact"])
def test_200_mb_arrive_intact_in_both_directions(
    tunnel: MakeTunnel, topology: str, fastpath: str
) -> None:
    environment = {"WGMP_FASTPATH": fastpath}
    ends = tunnel("wgmpd", "wireguard-go", topology=topology, environment=environment)
    for sender, receiver in ((ends.left, ends.right), (ends.right, ends.left)):
        received = transfer(sender, receiver, "--bytes", str(SIZE)).finish(LIMIT_S)
        assert received.bytes == SIZE
        rate = 8 * received.bytes / received.seconds / 1e9
        print(f"{topology}, {sender.program} to {receiver.program}: {rate:.2f} Gbit/s")


def test_traffic_of_both_families_flows_both_ways_at_once(tunnel: MakeTunnel) -> None:
    ends = tunnel("wgmpd", "wireguard-go", family=6)
    assert ends.left.ping(ends.right.inner4), "the right end learns where the left one is"
    limits = ("--bytes", str(SIZE // 10))
    running = [
        transfer(ends.left, ends.right, *limits, family=4, port=5201),
        transfer(ends.right, ends.left, *limits, family=6, port=5202),
    ]
    for each in running:
        assert each.finish(LIMIT_S).bytes == SIZE // 10


@pytest.mark.parametrize(
    ("left", "right"), [("wgmpd", "wireguard-go"), ("wireguard-go", "wgmpd"), ("wgmpd", "wgmpd")]
)
def test_both_ends_agree_on_what_was_transferred(tunnel: MakeTunnel, left: str, right: str) -> None:
    ends = tunnel(left, right)
    assert ends.left.ping(ends.right.inner4)
    for size in (0, 1, 16, 555, 1392):
        assert ends.left.ping_all(ends.right.inner4, count=5, size=size)

    def agree() -> bool:
        here, there = ends.left.peer(), ends.right.peer()
        # An initiation that the responder dropped is counted by its sender alone.
        return here.received == there.sent and here.sent - there.received in (0, Initiation.SIZE)

    wait_for(agree, 3.0, f"{ends.left.peer()} agrees with {ends.right.peer()}")
    here, there = ends.left.peer(), ends.right.peer()
    assert here.sent > 5 * (1392 + 28), "what was sent is counted, not only handshakes"
    assert abs(here.handshake - there.handshake) <= 1
    assert abs(here.handshake - time.time()) < 30
    assert here.endpoint == ends.right.endpoint(4)
    assert there.endpoint == ends.left.endpoint(4), "learned from the handshake"
