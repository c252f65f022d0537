"""A peer that does not answer is tried at its next endpoint; one that does is left alone."""

from __future__ import annotations

import pytest

from wgmp.netns import wait_for

from .site import Site

pytestmark = [pytest.mark.root, pytest.mark.alone]

PATIENCE_S = 1
LIMIT_S = 15


def test_endpoints_are_tried_until_the_peer_answers(site: Site) -> None:
    nobody = f'"{site.link.right4}:9"'
    endpoints = f'endpoints = [{nobody}, "no-such-host.invalid:5", "{site.peer.outer}"]'
    site.start(
        site.head(endpoint_patience_secs=str(PATIENCE_S)),
        site.home(peer_lines=(endpoints, "persistent_keepalive_secs = 1")),
    )
    site.peer.accept(site.public_key(), "10.77.0.1/32")
    site.wait_for_state("running")

    def endpoint() -> str:
        return site.space.run("wg", "show", site.interface, "endpoints").stdout.split()[1]

    assert endpoint() == f"{site.link.right4}:9"
    wait_for(lambda: endpoint() == site.peer.outer, LIMIT_S, "the other endpoint is tried")
    assert site.pings("10.77.0.2")

    # it roams, and is alive there: nobody takes it back
    site.far.run("wg", "set", site.peer.interface, "listen-port", "40404")
    site.far.run("ping", "-c1", "-W5", "10.77.0.1")
    roamed = f"{site.link.right4}:40404"
    assert endpoint() == roamed
    for _ in range(4 * PATIENCE_S):
        assert site.pings("10.77.0.2")
        site.space.run("sleep", "1")
        assert endpoint() == roamed
