"""A gateway behind a NAT that forgets: a persistent keepalive keeps it within reach."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wgmp.netns import Namespaces

from .rawpeer import KEEPALIVE_SIZE
from .site import Site, build, text
from .wire import Wire

pytestmark = [
    pytest.mark.root,
    pytest.mark.alone,
    pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft (Debian: nftables)"),
]

FORGETS_AFTER_S = 2
MASQUERADE = """
table ip nat {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        ip daddr %s masquerade random
    }
}
"""


@pytest.fixture
def natted(namespaces: Namespaces, tmp_path: Path) -> Iterator[tuple[Site, Wire]]:
    """Give a gateway, and a socket on the other side of a NAT that the gateway is behind."""
    site = build(namespaces, tmp_path)
    nat, outside = site.world, namespaces.add("outside")
    link = namespaces.connect(nat, outside, network=3)
    nat.run("nft", "-f", "-", stdin=MASQUERADE % link.right4)
    for setting, value in (
        ("net/ipv4/ip_forward", 1),
        ("net/netfilter/nf_conntrack_udp_timeout", FORGETS_AFTER_S),
        ("net/netfilter/nf_conntrack_udp_timeout_stream", FORGETS_AFTER_S),
    ):
        nat.run("sh", "-c", f"echo {value} > /proc/sys/{setting}")
    site.gateway.namespace.run("ip", "route", "add", "default", "via", site.outer4)
    # The port that the NAT gives the gateway is not known before it speaks.
    wire = Wire(outside, link.right4, (link.left4, 0))
    yield site, wire
    wire.close()


def test_a_persistent_keepalive_keeps_the_gateway_within_reach(natted: tuple[Site, Wire]) -> None:
    site, wire = natted
    known = site.peer("endpoint", wire.name, "persistent-keepalive", "1", wire=wire)
    initiation, wire.gateway = wire.receive_from()
    response, session = known.raw.answer(initiation)
    wire.send(response)
    silent_until = time.monotonic() + 2 * FORGETS_AFTER_S
    while time.monotonic() < silent_until:
        datagram, source = wire.receive_from()
        assert (len(datagram), session.unseal(datagram)) == (KEEPALIVE_SIZE, b"")
        assert source == wire.gateway, "one mapping all the time"
    assert known.answered(session), "we can call the gateway"
    site.gateway.set("peer", text(known.raw.public), "persistent-keepalive", "0")
    time.sleep(1.5 * FORGETS_AFTER_S)
    assert not known.answered(session), "and it is the keepalive that makes it so"
    # The gateway speaks, from another port of the NAT, and all is well again.
    site.call(known)
    datagram, source = wire.receive_from()
    assert session.unseal(datagram)
    assert source != wire.gateway
    wire.gateway = source
    assert known.answered(session)
