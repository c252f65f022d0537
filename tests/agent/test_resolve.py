"""Names become endpoints when they resolve; until then their networks run without them."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.nameserver import NameServer
from wgmp.addresses import format_endpoint
from wgmp.agent import resolve
from wgmp.agent.settings import PeerSettings
from wgmp.agent.values import HostPort, PublicKey
from wgmp.netns import wait_for

from .site import PEER_PORT, Site

LIMIT_S = 15
ONE, TWO = PublicKey("A" * 43 + "="), PublicKey("B" * 42 + "A=")


def addresses(*endpoints: str) -> list[str]:
    """Return what endpoints resolve to."""
    return list(map(format_endpoint, asyncio.run(resolve.addresses(endpoints))))


def test_each_address_comes_once_and_in_order() -> None:
    found = addresses("[2001:db8::1]:7", "192.0.2.1:1", "192.0.2.1:2", "[2001:db8::1]:7")
    assert found == ["[2001:db8::1]:7", "192.0.2.1:1", "192.0.2.1:2"]


def test_a_name_has_all_its_addresses_and_one_that_cannot_be_has_none() -> None:
    local = addresses("localhost:7")
    assert local
    assert {*local} <= {"127.0.0.1:7", "[::1]:7"}
    assert addresses("no..name:7", "192.0.2.1:1", "a" * 64 + ".example:7") == ["192.0.2.1:1"]


def test_the_first_endpoint_that_resolves_is_a_peers_first() -> None:
    peers = (
        PeerSettings(public_key=ONE, endpoints=(HostPort("no..name:1"), HostPort("192.0.2.1:2"))),
        PeerSettings(public_key=TWO, endpoints=(HostPort("no..name:1"),)),
        PeerSettings(public_key=PublicKey("C" * 42 + "A=")),
    )
    found = asyncio.run(resolve.first_endpoints(peers))
    assert {key: format_endpoint(endpoint) for key, endpoint in found.items()} == {
        ONE: "192.0.2.1:2"
    }


@pytest.fixture
def hosts(site: Site) -> Iterator[Path]:
    """Give a test the site's own /etc/hosts (ip-netns(8)), which knows localhost alone."""
    directory = Path("/etc/netns") / site.space.name
    directory.mkdir(parents=True)
    (directory / "hosts").write_text("127.0.0.1 localhost\n")
    (directory / "nsswitch.conf").write_text("hosts: files\n")
    yield directory / "hosts"
    shutil.rmtree(directory)
    with contextlib.suppress(OSError):  # others have theirs
        directory.parent.rmdir()


@pytest.mark.root
def test_a_name_that_resolves_later_is_used_from_then_on(site: Site, hosts: Path) -> None:
    name = f"peer.example:{PEER_PORT}"
    endpoint = (f'endpoint = "{name}"', "persistent_keepalive_secs = 1")
    site.start(site.head(endpoint_patience_secs="1"), site.home(peer_lines=endpoint))
    site.peer.accept(site.public_key(), "10.77.0.1/32")
    site.wait_for_state("running")
    log = site.log.read_text
    assert f"home: {name} does not resolve now; peer is asked for again" in log()
    assert "endpoint: not known, no handshake yet" in site.wgmp("status", "home").stdout
    silent = "home: peer is silent, and its endpoint does not resolve"
    wait_for(lambda: silent in log(), LIMIT_S, "the name is looked up in vain")
    with hosts.open("a") as file:
        file.write(f"{site.link.right4} peer.example\n")
    tried = f"home: peer is silent: trying it at {site.peer.outer}"
    wait_for(lambda: tried in log(), LIMIT_S, "the name is looked up again")
    assert site.pings(site.peer.inner)


@pytest.mark.root
def test_an_agent_that_is_stopped_does_not_wait_for_the_resolver(
    site: Site, tmp_path: Path
) -> None:
    server = NameServer(site.space, tmp_path)
    try:
        site.start(
            site.head(), site.home(peer_lines=(f'endpoint = "vpn.example.org:{PEER_PORT}"',))
        )
        server.wait_until_asked()
        assert site.states() == {"home": "starting"}
        assert site.process is not None
        site.process.terminate()
        assert site.process.wait(LIMIT_S) == 0
        assert len(site.space.processes()) == 1, "the name server alone"
    finally:
        server.close()
