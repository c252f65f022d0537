"""What asks a running agent: the right thing is asked, and the answer is told in words."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wgmp.agent import api
from wgmp.agent.lifecycle import State
from wgmp.agent.server import ApiServer, RefusedError
from wgmp.cli import main

LIMIT_S = 10.0
CHANGED_AT = 1_700_000_000.0
SINCE = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(CHANGED_AT))

SUMMARY = api.Summary(
    name="home",
    interface="wg0",
    state=State.RUNNING,
    reason="",
    changed_at=CHANGED_AT,
    enabled=True,
)
FAILED = api.Summary(
    name="office",
    interface="wg1",
    state=State.FAILED,
    reason="the port is taken",
    changed_at=CHANGED_AT,
    enabled=False,
)
STATUS = api.NetworkStatus(
    summary=SUMMARY,
    public_key="OURS=",
    listen_port=51820,
    gateway_pid=4711,
    addresses=["10.0.0.1/24", "fd00::1/64"],
    peers=[
        api.PeerStatus(
            name="phone",
            public_key="PHONE=",
            endpoint="192.0.2.1:7",
            allowed_ips=["10.0.0.2/32", "fd00::2/128"],
            handshake_age_s=61.4,
            rx_bytes=1111,
            tx_bytes=2222,
        ),
        api.PeerStatus(
            name="",
            public_key="SILENT=",
            endpoint="",
            allowed_ips=[],
            handshake_age_s=None,
            rx_bytes=0,
            tx_bytes=0,
        ),
    ],
)


class Agent:
    """Answers as an agent does that has a network "home" and one, "office", that failed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[api.Request] = []
        self.networks = [SUMMARY, FAILED]
        self.reloaded = api.Reloaded()

    async def answer(self, request: api.Request) -> Any:
        """Note what is asked, and answer."""
        self.asked.append(request)
        match request:
            case api.Connect() | api.Disconnect():
                return FAILED if request.network == "office" else SUMMARY
            case api.Status(network="home"):
                return STATUS
            case api.List():
                return api.Listing(networks=self.networks)
            case api.Reload():
                return self.reloaded
            case api.Subscribe():
                event = api.NetworkChanged(network="home", interface="wg0", state=State.RUNNING)
                event.time, event.source = CHANGED_AT, "home"
                loop = asyncio.get_running_loop()
                loop.call_later(0.05, self.server.publish, event)
                loop.call_later(0.1, self.server.stop)
                return api.Listing(networks=self.networks)
            case api.Status(network="crowded"):
                raise RefusedError(api.Refusal(code="too_many", message="others need it"))
            case api.Stop():
                asyncio.get_running_loop().call_later(0.05, self.server.stop)
                return {}
        raise RefusedError(api.Refusal(code="no_such_network", message="there is no such network"))

    async def serve(self) -> None:
        """Begin to answer."""
        self.server = ApiServer(self.path, self.answer)
        await self.server.start()


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    """An agent, found by its environment variable."""
    made = Agent(tmp_path / "agent.sock")
    monkeypatch.setenv("WGMP_AGENT_SOCKET", str(made.path))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(made.serve(), loop).result(LIMIT_S)
    yield made

    async def stop() -> None:
        made.server.stop()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    asyncio.run_coroutine_threadsafe(stop(), loop).result(LIMIT_S)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(LIMIT_S)
    loop.close()


def test_connect_and_disconnect_say_how_the_network_is_afterwards(
    agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb, kind in (("connect", api.Connect), ("disconnect", api.Disconnect)):
        assert main([verb, "home"]) == 0
        assert capsys.readouterr().out == f"home: running since {SINCE}, interface wg0\n"
        (asked,) = agent.asked
        assert isinstance(asked, kind)
        agent.asked.clear()


def test_networks_are_listed_with_what_is_wrong_with_them(
    agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["networks"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"home: running since {SINCE}, interface wg0",
        f"office: failed since {SINCE}, interface wg1: the port is taken",
    ]
    assert main(["networks", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["networks"]
    assert [network["name"] for network in listed] == ["home", "office"]
    agent.networks = []
    assert main(["networks"]) == 0
    assert capsys.readouterr().out.startswith("no networks: add [network.NAME]")


def test_a_network_s_status_says_of_each_peer_what_was_received_and_what_was_sent(
    agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "home"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"home: running since {SINCE}, interface wg0",
        "  gateway: process 4711, UDP port 51820",
        "  public key: OURS=",
        "  addresses: 10.0.0.1/24, fd00::1/64",
        "  peer phone",
        "    public key: PHONE=",
        "    endpoint: 192.0.2.1:7, handshake 61 s ago",
        "    allowed IPs: 10.0.0.2/32, fd00::2/128",
        "    received 1111 bytes, sent 2222 bytes",
        "  peer SILENT=",
        "    endpoint: not known, no handshake yet",
        "    allowed IPs: none",
        "    received 0 bytes, sent 0 bytes",
    ]
    assert main(["status", "home", "--json"]) == 0
    peer, _ = json.loads(capsys.readouterr().out)["peers"]
    assert (peer["name"], peer["rx_bytes"], peer["tx_bytes"]) == ("phone", 1111, 2222)


def test_a_name_that_is_no_network_is_taken_for_an_interface(
    agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "nosuch0"]) == 1
    assert "no gateway runs on nosuch0" in capsys.readouterr().err
    assert isinstance(agent.asked[0], api.Status)


def test_a_refusal_of_another_kind_is_told_and_no_interface_is_looked_for(
    agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "crowded"]) == 1
    assert capsys.readouterr() == ("", "wgmp: others need it\n")


def test_events_are_told_until_the_agent_ends(
    agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["agent", "events"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"{SINCE}.000 home: home is running"


def test_a_reload_says_what_it_did_and_fails_when_part_of_it_did(
    agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.reloaded = api.Reloaded(added=["a", "b"], removed=["c"], changed=["d"], unchanged=["e"])
    assert main(["reload"]) == 0
    assert capsys.readouterr() == ("added: a, b\nremoved: c\nchanged: d\nunchanged: e\n", "")
    agent.reloaded = api.Reloaded(changed=["d"], failed={"x": "no key", "y": "no address"})
    assert main(["reload", "x"]) == 1
    assert capsys.readouterr() == ("changed: d\n", "wgmp: x: no key\nwgmp: y: no address\n")
    assert [asked.network for asked in agent.asked if isinstance(asked, api.Reload)] == [None, "x"]


def test_a_refusal_is_one_line_and_an_exit_code(
    agent: Agent, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["agent", "stop", "--socket", str(agent.path)]) == 0
    assert isinstance(agent.asked[-1], api.Stop)
    other = str(tmp_path / "other.sock")
    assert main(["connect", "home", "--socket", other]) == 1
    assert capsys.readouterr().err.startswith(f"wgmp: no agent runs on {other}: start one with ")


def test_a_settings_file_is_checked_without_an_agent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("[network.home]\ninterface = 7\n")
    assert main(["agent", "check", "--config", str(file)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("wgmp: ")
    assert str(file) in told
    assert told.count("\n") == 1
