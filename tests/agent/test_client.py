"""The client of the control API against agents of other versions, and ones that break off."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from wgmp.agent.api import NetworkChanged
from wgmp.agent.client import Client, RefusedError
from wgmp.errors import ControlError

Answer = Callable[[dict[str, Any]], bytes | None]
LISTING = {"networks": [], "api_version": 1, "wgmp_version": "9.9"}
SUMMARY = {
    "name": "home",
    "interface": "wg0",
    "state": "running",
    "reason": "",
    "changed_at": 1.5,
    "enabled": True,
}


def line(**message: Any) -> bytes:
    """Return one line of the API."""
    return json.dumps(message).encode() + b"\n"


def converse(path: Path, answer: Answer, play: Callable[[Client], Awaitable[None]]) -> None:
    """Run a play with a client of an agent that says `answer`'s lines; None hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while asked := await reader.readline():
            said = answer(json.loads(asked))
            if said is None:
                break
            writer.write(said)
        writer.close()

    async def run() -> None:
        server = await asyncio.start_unix_server(serve, path)
        async with server, asyncio.timeout(20), await Client.open(path) as client:
            await play(client)

    asyncio.run(run())


def test_answers_find_who_asked_in_any_order(tmp_path: Path) -> None:
    waiting: list[dict[str, Any]] = []

    def answer(request: dict[str, Any]) -> bytes:
        waiting.append(request)
        if len(waiting) < 3:
            return b""
        return b"".join(
            line(id=each["id"], result={**SUMMARY, "name": each["network"]})
            for each in reversed(waiting)
        )

    async def play(client: Client) -> None:
        asked = [client.connect(name) for name in ("a", "b", "c")]
        assert [each.name for each in await asyncio.gather(*asked)] == ["a", "b", "c"]
        assert [request["action"] for request in waiting] == ["connect"] * 3

    converse(tmp_path / "s", answer, play)


def test_what_a_newer_agent_says_besides_is_passed_over(tmp_path: Path) -> None:
    changed = {"network": "home", "interface": "wg0", "state": "running", "reason": ""}

    def answer(request: dict[str, Any]) -> bytes:
        return (
            line(id=request["id"], result={**LISTING, "mood": "good"}, took_s=0.1)
            + line(event="moon_rose", time=1.0, source="agent", phase="full")
            + line(event="network_changed", time=1.0, source="agent", **changed, colour="green")
        )

    async def play(client: Client) -> None:
        event = await anext(client.subscribe())
        assert isinstance(event, NetworkChanged)
        assert event.text() == "home is running"

    converse(tmp_path / "s", answer, play)


def test_an_answer_that_is_none_is_told_and_the_next_one_is_heard(tmp_path: Path) -> None:
    results = iter([{"networks": 3}, LISTING])

    def answer(request: dict[str, Any]) -> bytes:
        return line(id=request["id"], result=next(results))

    async def play(client: Client) -> None:
        with pytest.raises(ControlError, match=r"the agent's answer is not understood: Expected"):
            await client.list()
        assert (await client.list()).wgmp_version == "9.9"

    converse(tmp_path / "s", answer, play)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (None, "the agent hung up"),
        (b"what?\n", "the agent's connection broke: "),
        (b'{"id": 1, "result"\xff}\n', "the agent's connection broke: "),
    ],
)
def test_who_waits_when_the_connection_breaks_is_told_and_so_is_who_asks_later(
    tmp_path: Path, said: bytes | None, told: str
) -> None:
    async def play(client: Client) -> None:
        for asked in (client.list(), client.list(), anext(client.subscribe())):
            with pytest.raises(ControlError, match=told):
                await asked

    converse(tmp_path / "s", lambda request: said, play)


def test_an_agent_that_refuses_the_connection_says_why(tmp_path: Path) -> None:
    refusal = {"code": "too_many", "message": "64 clients are served"}
    lines = iter([line(id=None, error=refusal), None])

    async def play(client: Client) -> None:
        for refused in await asyncio.gather(client.list(), client.list(), return_exceptions=True):
            assert isinstance(refused, RefusedError)
            assert (refused.code, str(refused)) == ("too_many", "64 clients are served")
        with pytest.raises(RefusedError, match="64 clients are served"):
            await client.list()

    converse(tmp_path / "s", lambda request: next(lines), play)


def test_a_question_that_is_given_up_disturbs_no_other(tmp_path: Path) -> None:
    late: list[int] = []

    def answer(request: dict[str, Any]) -> bytes:
        late.append(request["id"])
        return b"".join(line(id=each, result=LISTING) for each in late) if len(late) > 1 else b""

    async def play(client: Client) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.list(), 0.1)
        assert (await client.list()).wgmp_version == "9.9"

    converse(tmp_path / "s", answer, play)
