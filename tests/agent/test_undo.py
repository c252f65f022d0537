"""Whatever a start has done is undone, backwards: after a stop, a failure, and half-way."""

from __future__ import annotations

import asyncio

import pytest

from wgmp.agent.client import Client
from wgmp.errors import ControlError

from .site import Peer, Site

pytestmark = pytest.mark.root


def test_hooks_run_in_order_and_a_failing_one_undoes_the_whole_start(site: Site) -> None:
    told = site.directory / "hooks"
    hooks = [
        f"{name} = ['echo {name} %i >> {told}']" for name in ("pre_up", "pre_down", "post_down")
    ]
    up = f"post_up = ['echo post_up %i >> {told}']"
    off = "enable_wireguard = false"
    site.start(site.head(run_hooks="true"), site.home(*hooks, up, off))
    before = site.traces()
    site.wgmp("connect", "home")
    site.wgmp("disconnect", "home")
    order = [f"{name} {site.interface}" for name in ("pre_up", "post_up", "pre_down", "post_down")]
    assert told.read_text().splitlines() == order
    assert site.traces() == before

    told.unlink()
    site.file.write_text(
        site.head(run_hooks="true") + site.home(*hooks, "post_up = ['exit 3']", off)
    )
    site.wgmp("reload")
    refused = site.wgmp("connect", "home", check=False)
    assert refused.returncode == 1
    assert "exit 3" in refused.stderr
    assert site.states() == {"home": "failed"}
    assert told.read_text().splitlines() == [order[0], *order[2:]]
    assert site.traces() == before


def test_an_agent_killed_at_the_last_hook_leaves_word_of_it(site: Site) -> None:
    seen = site.directory / "seen"
    ledger = site.socket.with_name("networks.json")
    hook = f"post_down = ['! ip link show %i && cat {ledger} > {seen}']"
    site.start(site.head(run_hooks="true"), site.home(hook, "enable_wireguard = false"))
    site.wgmp("connect", "home")
    site.wgmp("disconnect", "home")
    assert "home" in seen.read_text()
    seen.unlink()
    site.file.write_text(site.head(run_hooks="true") + site.home(hook, "post_up = ['exit 3']"))
    site.wgmp("reload", check=False)
    assert "home" in seen.read_text(), "the interface is gone by then, after a failure, too"
    assert not ledger.exists()


def test_a_start_can_be_broken_off(site: Site) -> None:
    slow = ("pre_up = ['sleep 0.3']", "post_up = ['sleep 30']", "enable_wireguard = false")
    site.start(site.head(run_hooks="true"), site.home(*slow))
    before = site.traces()

    async def break_off(after_s: float) -> None:
        async with await Client.open(site.socket) as one, await Client.open(site.socket) as other:
            connecting = asyncio.create_task(one.connect("home"))
            await asyncio.sleep(after_s)
            assert (await other.list()).networks[0].state == "starting"
            assert (await other.disconnect("home")).state == "stopped"
            with pytest.raises(ControlError, match="home was disconnected while it started"):
                await connecting

    for after_s in (0.1, 0.5, 1.5):  # in a hook, in the start of the gateway, and in the last step
        asyncio.run(break_off(after_s))
        assert site.traces() == before


def test_an_interface_of_somebody_elses_is_left_alone(site: Site) -> None:
    veth = ("type", "veth", "peer", "name", "other-end")
    site.space.run("ip", "link", "add", site.interface, *veth)
    site.start(site.head(), site.home())
    site.wait_for_state("failed")
    assert f"interface {site.interface} exists: something else" in site.wgmp("networks").stdout
    site.wgmp("disconnect", "home")
    assert site.interface in site.space.links()


def test_a_gateway_of_another_namespace_is_left_alone(site: Site) -> None:
    other = Peer(site.far, site.interface, "10.66.0.1", "", port=51999)
    other.start(site.directory / "other.log")
    show = ("wg", "show", site.interface, "dump")
    before = site.far.run(*show).stdout
    site.start(site.head(), site.home())
    site.wait_for_state("failed")
    assert "belongs to another gateway: choose another interface" in site.wgmp("networks").stdout
    site.wgmp("agent", "stop")
    assert site.far.run(*show).stdout == before


def test_a_busy_port_is_the_reason_and_can_be_had_again(site: Site) -> None:
    keeper = "import socket,time; s=socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 51820)); "
    holder = site.space.start("python3", "-c", keeper + "time.sleep(60)", log=site.directory / "l")
    site.space.run("sh", "-c", "until ss -lun | grep -q :51820; do sleep 0.1; done", timeout_s=10)
    site.start(site.head(), site.home())
    site.wait_for_state("failed")
    reason = "UDP port 51820: Address already in use: choose another listen_port"
    assert reason in site.wgmp("networks").stdout
    assert site.interface not in site.space.links()
    holder.kill()
    holder.wait()
    site.wgmp("reload")
    assert site.states() == {"home": "running"}
