"""A tour of the agent, as an operator takes it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket

import pytest

from tests.e2e.tunnel import WGMP, exists, key
from wgmp.agent.client import Client, RefusedError
from wgmp.netns import wait_for

from .site import Site

pytestmark = pytest.mark.root

BROKEN = '\n[network.broken]\naddresses = ["10.99.0.1/24"]\nprivate_key_path = "/nonexistent/key"\n'


def test_networks_live_and_fail_each_for_itself(site: Site) -> None:
    site.start(site.head(), site.home(), BROKEN)
    site.peer.accept(site.public_key(), "10.77.0.1/32")
    site.wait_for_state("running")
    assert site.pings("10.77.0.2")
    site.wait_for_state("failed", "broken")
    listed = site.wgmp("networks").stdout
    assert "broken: failed since" in listed
    assert "/nonexistent/key: cannot be read: No such file or directory" in listed
    refused = site.wgmp("connect", "broken", check=False)
    assert (refused.returncode, refused.stderr) == (
        1,
        "wgmp: /nonexistent/key: cannot be read: No such file or directory\n",
    )
    assert site.pings("10.77.0.2"), "the other network did not notice"

    events = site.directory / "events.log"
    site.space.start(WGMP, "agent", "events", "--socket", str(site.socket), log=events)

    def heard() -> bool:
        site.wgmp("connect", "broken", check=False)
        return "agent: broken is failed: /nonexistent/key: cannot be read" in events.read_text()

    wait_for(heard, 10, "the events are heard")
    for _ in range(2):  # saying it again changes nothing
        assert "home: stopped" in site.wgmp("disconnect", "home").stdout
    assert "agent: home is stopped" in events.read_text()
    assert "home: handshake completed with" not in events.read_text()
    assert not site.pings("10.77.0.2", wait_s=1)
    assert site.interface not in site.space.links()
    for _ in range(2):
        assert "home: running" in site.wgmp("connect", "home").stdout
    assert site.pings("10.77.0.2")
    wait_for(
        lambda: "home: handshake completed with" in events.read_text(), 5, "the gateway's, too"
    )

    site.wgmp("agent", "stop")
    assert site.process is not None
    assert site.process.wait(10) == 0
    after = site.traces()
    assert after["processes"] == 0
    assert after["files"] == []
    assert site.interface not in after["links"]


def test_a_peer_is_added_and_removed_while_traffic_flows(site: Site) -> None:
    site.start(site.head(), site.home())
    site.peer.accept(site.public_key(), "10.77.0.1/32")
    site.wait_for_state("running")
    assert site.pings("10.77.0.2")
    handshake = site.space.run("wg", "show", site.interface, "latest-handshakes").stdout

    async def change() -> None:
        async with await Client.open(site.socket) as agent:
            peer = {"name": "net", "public_key": "A" * 43 + "=", "allowed_ips": ["198.51.100.0/24"]}
            await agent.add_peer("home", peer)
            routes = site.space.run("ip", "route", "show", "dev", site.interface).stdout
            assert "198.51.100.0/24" in routes
            names = [peer.name for peer in (await agent.status("home")).peers]
            assert sorted(names) == ["net", "peer"]
            with pytest.raises(RefusedError, match="another peer of home is called net"):
                await agent.add_peer("home", {**peer, "public_key": "B" * 42 + "A="})
            async with await Client.open(site.socket) as other:  # both at once, and neither is lost
                numbers = range(2, 6)
                many = [
                    {"public_key": key("pubkey", key("genkey")), "name": f"{n}"} for n in numbers
                ]
                await asyncio.gather(
                    *(c.add_peer("home", p) for c, p in zip((agent, other) * 2, many, strict=True))
                )
                names = [peer.name for peer in (await agent.status("home")).peers]
                assert sorted(names) == ["2", "3", "4", "5", "net", "peer"]
                for number in numbers:
                    await agent.remove_peer("home", f"{number}")
            await agent.remove_peer("home", "net")
            routes = site.space.run("ip", "route", "show", "dev", site.interface).stdout
            assert "198.51.100.0/24" not in routes
            assert [peer.name for peer in (await agent.status("home")).peers] == ["peer"]

    asyncio.run(change())
    assert site.pings("10.77.0.2")
    after = site.space.run("wg", "show", site.interface, "latest-handshakes").stdout
    assert after == handshake, "the session goes on"


def test_a_killed_agent_leaves_nothing_and_its_successor_has_the_tunnels_back(site: Site) -> None:
    site.start(site.head(), site.home(peer_lines=('allowed_ips = ["0.0.0.0/0"]',)))
    site.peer.accept(site.public_key(), "10.77.0.1/32")
    site.wait_for_state("running")
    assert site.pings("10.77.0.2")
    up = site.traces()
    assert site.process is not None
    children = [pid for pid in site.space.processes() if pid != site.process.pid]
    os.kill(site.process.pid, signal.SIGKILL)
    site.process.wait(5)
    wait_for(lambda: not any(map(exists, children)), 10, "the gateways end with the agent")

    site.start()
    site.wait_for_state("running")
    assert site.pings("10.77.0.2")
    again = site.traces()
    assert again == up, "as before: no rule, route, firewall table or file is there twice"
    site.wgmp("agent", "stop")
    site.process.wait(10)
    gone = site.traces()
    assert gone["firewall"] == []
    assert not [rule for rule in gone["rules"] if "51820" in rule]
    assert gone["files"] == []
    assert gone["processes"] == 0


def test_a_service_manager_hears_of_the_agent_and_of_nobody_else(site: Site) -> None:
    path = site.directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        site.start(site.head(), site.home(), NOTIFY_SOCKET=str(path))
        site.wait_for_state("running")
        site.wgmp("agent", "stop")
        assert site.process is not None
        assert site.process.wait(10) == 0
        manager.setblocking(False)
        said = [manager.recv(4096), manager.recv(4096)]
        assert said == [b"READY=1\nSTATUS=1 networks", b"STOPPING=1"]
        with pytest.raises(BlockingIOError):
            manager.recv(4096)
