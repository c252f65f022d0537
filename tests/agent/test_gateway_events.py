"""What happens in a gateway is passed on, whatever else it says."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from wgmp import control
from wgmp.agent import gateway_events
from wgmp.agent.api import AgentEvent, GatewayEvent
from wgmp.events import UnderLoad

LOAD = b'{"event": "under_load", "time": 2.0, "source": "admission", "on": true}\n'


def heard(directory: Path, *lines: bytes) -> list[AgentEvent]:
    """Return what the agent tells of a gateway that says these lines to whoever subscribes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert json.loads(await reader.readline()) == {"action": "subscribe"}
        writer.write(b"{}\n" + b"".join(lines))
        writer.close()

    async def run() -> list[AgentEvent]:
        told: list[AgentEvent] = []
        async with await asyncio.start_unix_server(serve, directory / "wg0.sock"):
            await asyncio.wait_for(gateway_events.follow("home", "wg0", told.append), 10)
        return told

    return asyncio.run(run())


def test_an_event_is_told_with_its_network_time_and_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "DIRECTORY", tmp_path)
    (event,) = heard(tmp_path, LOAD)
    assert isinstance(event, GatewayEvent)
    assert (event.network, event.time, event.source) == ("home", 2.0, "admission")
    assert isinstance(event.detail, UnderLoad)
    assert event.text() == f"home: {event.detail.text()}"


def test_one_of_a_newer_gateway_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "DIRECTORY", tmp_path)
    new = b'{"event": "moon_rose", "time": 1.0, "source": "sky", "phase": "full"}\n'
    assert len(heard(tmp_path, new, LOAD, new, LOAD)) == 2


def test_what_is_no_event_or_no_gateway_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(control, "DIRECTORY", tmp_path)
    assert len(heard(tmp_path, LOAD, b"what?\n", LOAD)) == 1
    assert "home: its gateway's events are heard no more: " in caplog.text
    (tmp_path / "wg0.sock").unlink(missing_ok=True)
    told: list[AgentEvent] = []
    asyncio.run(gateway_events.follow("home", "wg0", told.append))
    assert told == []
    assert "home: its gateway's events are not heard: " in caplog.text
