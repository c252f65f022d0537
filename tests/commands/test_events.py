"""`wgmp events` and what follows a gateway: each event once, in order, as a line."""

from __future__ import annotations

import json
import threading

import pytest

from wgmp.cli import main
from wgmp.events import PeerRoamed, SessionExpired, UnderLoad
from wgmp.netns import wait_for

from .conftest import Served

LIMIT_S = 10.0


def listen(gateway: Served, *options: str) -> tuple[threading.Thread, list[int]]:
    """Begin to listen; give the thread and, once it has ended, its exit code."""
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main(["events", "wg0", *options])))
    thread.start()
    wait_for(lambda: gateway.events._subscriptions, LIMIT_S, "somebody listens")
    return thread, codes


def happen(gateway: Served) -> None:
    """Let three things happen and the gateway stop."""
    for event in (
        UnderLoad(time=1.5, source="admission", on=True),
        PeerRoamed(time=2.0, source="worker0", peer="KEY=", before="a:1", endpoint="b:2"),
    ):
        gateway.events.publish(event)
    gateway.events.publish(SessionExpired(peer="KEY="))
    gateway.events.close()


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_all_that_happens_is_told_until_the_gateway_stops(
    gateway: Served, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    thread, codes = listen(gateway, *options)
    gateway.do(lambda: happen(gateway))
    thread.join(LIMIT_S)
    assert codes == [0]
    lines = capsys.readouterr().out.splitlines()
    if options:
        events = [json.loads(line) for line in lines]
        assert events[0] == {
            "event": "under_load",
            "time": 1.5,
            "source": "admission",
            "on": True,
        }
        assert [event["event"] for event in events[1:]] == ["peer_roamed", "session_expired"]
        assert events[2]["source"] == "supervisor"
        assert events[2]["time"] > 1e9
    else:
        assert [line.partition(": ")[2] for line in lines] == [
            "under load begins: handshakes need a cookie",
            "KEY= moved from a:1 to b:2",
            "the session with KEY= expired",
        ]
        assert all(line[4] == line[7] == "-" and line[19] == "." for line in lines)
        assert [line.split()[2] for line in lines] == ["admission:", "worker0:", "supervisor:"]
