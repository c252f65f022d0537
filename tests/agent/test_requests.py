"""What a program asks of the agent, and what it is told where that cannot be done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.e2e.tunnel import key
from wgmp import __version__
from wgmp.agent.client import Client, RefusedError
from wgmp.errors import ControlError

from .site import PORT, Site

pytestmark = pytest.mark.root

OFF = "enable_wireguard = false"


def ask(site: Site, play: Callable[[Client], Awaitable[None]]) -> None:
    """Run a play with a client of the agent."""

    async def run() -> None:
        async with asyncio.timeout(40), await Client.open(site.socket) as agent:
            await play(agent)

    asyncio.run(run())


async def refusal(asked: Awaitable[Any]) -> tuple[str, str]:
    """Return code and message with which something is refused."""
    with pytest.raises(RefusedError) as refused:
        await asked
    return refused.value.code, str(refused.value)


def test_a_network_that_does_not_run_is_shown_and_refuses_changes(site: Site) -> None:
    async def play(agent: Client) -> None:
        stopped = ("not_running", "home is stopped: connect it first")
        assert await refusal(agent.stats("home")) == stopped
        assert await refusal(agent.add_peer("home", {"public_key": key("genkey")})) == stopped
        assert await refusal(agent.remove_peer("home", "peer")) == stopped
        status = await agent.status("home")
        assert (status.gateway_pid, status.listen_port, status.peers) == (0, 0, [])
        assert status.addresses == ["10.77.0.1/24"]
        assert not status.summary.enabled
        nobody = ("no_such_network", "there is no network nobody; there are: home")
        for asked in (agent.connect, agent.disconnect, agent.status, agent.stats, agent.reload):
            assert await refusal(asked("nobody")) == nobody
        assert (await agent.list()).wgmp_version == __version__

    site.start(site.head(), site.home(OFF))
    ask(site, play)


def test_peers_are_changed_by_their_key_and_refused_with_what_is_wrong(site: Site) -> None:
    async def play(agent: Client) -> None:
        started = await agent.connect("home")
        assert (started.state, started.reason) == ("running", "")
        assert started.changed_at == (await agent.connect("home")).changed_at, "nothing happened"

        stranger = {"public_key": key("pubkey", key("genkey")), "allowed_ips": ["10.9.0.0/16"]}
        await agent.add_peer("home", stranger)
        await agent.add_peer("home", {**stranger, "name": "b", "allowed_ips": ["10.8.0.0/16"]})
        peers = {peer.name: peer for peer in (await agent.status("home")).peers}
        assert peers.keys() == {"peer", "b"}
        assert peers["b"].allowed_ips == ["10.8.0.0/16"]
        assert (peers["b"].endpoint, peers["b"].handshake_age_s) == ("", None)
        assert peers["peer"].endpoint == site.peer.outer

        malformed = {
            "peer: public_key: this is no key": {"public_key": "short"},
            "peer: allowed_ips[1]: ten is not": {**stranger, "allowed_ips": ["::/0", "ten"]},
            "peer: nane: is not known: did you mean name?": {**stranger, "nane": ""},
            "peer: object missing required field `public_key`": {},
        }
        for said, peer in malformed.items():
            code, message = await refusal(agent.add_peer("home", peer))
            assert (code, message[: len(said)]) == ("malformed", said)
        unknown = await refusal(agent.remove_peer("home", "c"))
        assert unknown == ("failed", "home has no peer c")
        unreadable = {**stranger, "preshared_key_path": "/nowhere/psk"}
        code, message = await refusal(agent.add_peer("home", unreadable))
        assert (code, message) == (
            "failed",
            "/nowhere/psk: cannot be read: No such file or directory",
        )
        await agent.remove_peer("home", str(stranger["public_key"]))
        status = await agent.status("home")
        assert [peer.name for peer in status.peers] == ["peer"], (
            "and nothing is left of the failure"
        )
        assert (status.listen_port, status.summary.interface) == (PORT, site.interface)
        assert status.gateway_pid in site.space.processes()
        snapshot = await agent.stats("home")
        assert [peer.public_key for peer in snapshot.peers] == [site.peer.public_key]

    site.start(site.head(), site.home(OFF))
    ask(site, play)


def test_an_agent_that_is_being_stopped_refuses_and_hangs_up_when_all_is_down(site: Site) -> None:
    async def play(agent: Client) -> None:
        async with await Client.open(site.socket) as other:
            events = other.subscribe()
            first = asyncio.create_task(anext(events))
            await asyncio.sleep(0.1)
            stopping = asyncio.create_task(agent.stop_agent())
            assert (await first).text() == "home is stopping"
            assert await refusal(other.list()) == ("failed", "the agent is being stopped")
            await stopping
            assert site.interface not in site.space.links()
            assert [event.text() async for event in events][-1] == "home is stopped"
            with pytest.raises(ControlError, match="the agent hung up"):
                await other.list()

    site.start(site.head(run_hooks="true"), site.home("pre_down = ['sleep 1']"))
    site.wait_for_state("running")
    ask(site, play)
    assert site.process is not None
    assert site.process.wait(10) == 0
    assert not site.socket.exists()


def test_a_reload_of_one_network_leaves_the_others_as_they_are(site: Site) -> None:
    async def play(agent: Client) -> None:
        done = await agent.reload("spare")
        assert (done.removed, done.added, done.changed, done.unchanged) == (["spare"], [], [], [])
        new = await agent.reload("new")
        assert (new.added, new.removed, new.changed) == (["new"], [], [])
        assert site.states() == {"home": "running", "new": "stopped"}
        assert "1300" not in site.space.run("ip", "link", "show", "dev", site.interface).stdout
        assert (await agent.reload()).changed == ["home"]
        assert "mtu 1300" in site.space.run("ip", "link", "show", "dev", site.interface).stdout

    spare = f"[network.spare]\n{OFF}\n"
    site.start(site.head(), site.home(), spare)
    site.wait_for_state("running")
    new = f"[network.new]\n{OFF}\n"
    site.file.write_text(site.head(endpoint_patience_secs="7") + site.home("mtu = 1300") + new)
    ask(site, play)
    warned = "the [agent] settings take effect when the agent is started again"
    assert warned in site.log.read_text()
