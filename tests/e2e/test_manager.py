"""The network manager with gateways of ours: made, measured, adopted, replaced, removed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from wgmp.errors import ControlError
from wgmp.manage.linux import WgmpBackend
from wgmp.manage.manager import NetworkManager
from wgmp.manage.runner import Commands
from wgmp.netns import UAPI_DIRECTORY, Namespace, Namespaces, wait_for

pytestmark = pytest.mark.root


def manager(space: Namespace, interface: str, host: int, if_exists: str = "fail") -> NetworkManager:
    run = Commands("ip", "netns", "exec", space.name)
    return NetworkManager(
        WgmpBackend(run),
        interface,
        addresses=(f"10.66.0.{host}/16",),
        if_exists=if_exists,
        run=run,
    )


def test_two_managers_make_a_tunnel_measure_it_and_leave_nothing(namespaces: Namespaces) -> None:
    spaces = namespaces.add("left"), namespaces.add("right")
    way = namespaces.connect(*spaces)
    names = [space.interface_name("wm") for space in spaces]
    left, right = (
        manager(space, name, host)
        for host, (space, name) in enumerate(zip(spaces, names, strict=True), 1)
    )

    async def play() -> None:
        assert (await left.get_interface_status()).state == "not_created"
        await asyncio.gather(left.initialize(), right.initialize())
        await right.add_peer(left.public_key, allowed_ips=["10.66.0.1/32"], keepalive_s=0)
        allowed = ["10.66.0.2/32", "198.51.100.0/24"]
        await left.add_peer(right.public_key, allowed_ips=allowed, endpoint=f"{way.right4}:51820")
        milliseconds = None
        for _ in range(10):
            if (milliseconds := await left.measure_latency(right.public_key)) is not None:
                break
        assert milliseconds is not None
        assert 0 < milliseconds < 1000

        status = await left.get_interface_status()
        assert (status.state, status.backend, status.listen_port) == ("active", "wgmp", 51820)
        assert status.public_key == left.public_key
        (peer,) = status.peers
        assert (peer.public_key, peer.keepalive_s) == (right.public_key, 25)
        assert peer.handshake_at > 0
        assert min(peer.received_bytes, peer.sent_bytes) > 0
        routes = spaces[0].run("ip", "route", "show", "dev", names[0]).stdout
        assert "198.51.100.0/24" in routes

        await left.remove_peer(right.public_key)
        with pytest.raises(ControlError, match="has no peer"):
            await left.remove_peer(right.public_key)
        assert (await left.get_interface_status()).peers == ()
        assert await left.measure_latency("10.66.0.2") is None
        assert "198.51.100.0/24" not in spaces[0].run("ip", "route").stdout

        spaces[0].run("ip", "link", "set", names[0], "down")
        status = await left.get_interface_status()
        assert (status.state, status.detail) == (
            "error",
            f"{names[0]} is down: `ip link set {names[0]} up`",
        )
        await asyncio.gather(left.cleanup(), right.cleanup())
        assert (await left.get_interface_status()).state == "not_created"

    asyncio.run(play())
    for space, name in zip(spaces, names, strict=True):
        wait_for(lambda space=space: not space.processes(), 8, "the gateway ends")
        assert name not in space.links()
        assert not (UAPI_DIRECTORY / f"{name}.sock").exists()
        assert list(Path("/run/wgmp").glob(f"{name}*")) == []


def test_an_interface_that_is_there_is_left_adopted_or_replaced(namespaces: Namespaces) -> None:
    space = namespaces.add("host")
    name = space.interface_name("wm")
    first = manager(space, name, 1)

    async def play() -> None:
        await first.initialize()
        peer = NetworkManager(WgmpBackend()).public_key
        await first.add_peer(peer, allowed_ips=["10.66.0.9/32"])
        with pytest.raises(ControlError, match=f"interface {name} exists: adopt or replace it"):
            await manager(space, name, 2).initialize()

        adopted = manager(space, name, 2, "adopt")
        await adopted.initialize()
        assert adopted.public_key == first.public_key
        assert [peer.public_key for peer in (await adopted.get_interface_status()).peers] == [peer]
        shown = space.run("ip", "address", "show", "dev", name).stdout
        assert "10.66.0.1/16" in shown
        assert "10.66.0.2/16" in shown

        replaced = manager(space, name, 3, "replace")
        await replaced.initialize()
        status = await replaced.get_interface_status()
        assert (status.state, status.public_key) == ("active", replaced.public_key)
        assert replaced.public_key != first.public_key
        assert status.peers == ()
        await replaced.cleanup()

    asyncio.run(play())
    wait_for(lambda: not space.processes(), 8, "the gateways end")
    assert name not in space.links()
