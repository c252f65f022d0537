"""The control socket: whoever misuses it is told, and disturbs nobody."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from wgmp.agent import api
from wgmp.agent.client import Client, RefusedError
from wgmp.agent.lifecycle import State
from wgmp.agent.server import CLIENTS_MAX, UNREAD_BYTES_MAX, ApiServer
from wgmp.errors import ControlError, SocketError

Play = Callable[[ApiServer, Path], Awaitable[None]]


def serve(directory: Path, play: Play) -> None:
    """Run a play against a server that knows one request: list."""

    async def answer(request: api.Request) -> Any:
        if isinstance(request, api.Status):
            await asyncio.sleep(3600)  # somebody who takes his time
        if isinstance(request, api.Connect):
            raise ControlError("it does not work")
        return api.Listing(networks=[])

    async def run() -> None:
        server = ApiServer(directory / "run" / "control.sock", answer)
        await server.start()
        try:
            async with asyncio.timeout(30):
                await play(server, directory / "run" / "control.sock")
        finally:
            server.stop()

    asyncio.run(run())


async def say(path: Path, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect and send bytes."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(data)
    return reader, writer


async def said(reader: asyncio.StreamReader) -> dict[str, Any]:
    """Return the next line as an object."""
    line: dict[str, Any] = json.loads(await reader.readline())
    return line


async def works(path: Path) -> bool:
    """Tell whether a decent client is served."""
    async with await Client.open(path) as client:
        return (await client.list()).networks == []


@pytest.mark.parametrize(
    ("line", "number", "message"),
    [
        (b"hello\n", None, "JSON is malformed"),
        (b"\n", None, "truncated"),
        (b"\xff\xfe\n", None, "not a request"),
        (b'{"action": "\xff"}\n', None, "not a request"),
        (b'{"id": "\xff", "action": "explode"}\n', None, "not a request"),
        (b"[]\n", None, "Expected `object`, got `array`"),
        (b'{"id": 7}\n', 7, "missing required field `action`"),
        (b'{"id": "x", "action": "explode"}\n', "x", "Invalid value 'explode'"),
        (b'{"id": 7, "action": "connect"}\n', 7, "missing required field `network`"),
        (b'{"id": 7, "action": "list", "netwrk": ""}\n', 7, "unknown field `netwrk`"),
        (b'{"id": 7, "action": "list", "version": 2}\n', 7, "Invalid enum value 2"),
        (b'{"id": 7, "action": "list"} {}\n', 7, "trailing characters"),
        (b"[" * 60000 + b"\n", None, "not a request"),
        (b'{"action": "add_peer", "peer": {"a": ' + b"[" * 60000 + b"\n", None, "not a request"),
    ],
)
def test_what_is_no_request_is_told_and_the_next_one_is_answered(
    tmp_path: Path, line: bytes, number: Any, message: str
) -> None:
    async def play(server: ApiServer, path: Path) -> None:
        reader, writer = await say(path, line + b'{"id": 8, "action": "list"}\n')
        refused = await said(reader)
        assert (refused["id"], refused["error"]["code"]) in (
            (number, "malformed"),
            (None, "malformed"),
        )
        assert message in refused["error"]["message"]
        assert (await said(reader))["id"] == 8
        writer.close()

    serve(tmp_path, play)


def test_a_line_too_long_is_told_and_hung_up_on(tmp_path: Path) -> None:
    async def play(server: ApiServer, path: Path) -> None:
        reader, writer = await say(path, b'{"id": 1, "x": "' + b"a" * (2 * api.LINE_BYTES_MAX))
        assert (await said(reader))["error"]["code"] == "too_long"
        assert await reader.read() == b""
        writer.close()
        assert await works(path)

    serve(tmp_path, play)


def test_a_client_that_waits_and_one_that_stops_midway_hold_up_nobody(tmp_path: Path) -> None:
    async def play(server: ApiServer, path: Path) -> None:
        _, waiting = await say(path, b'{"id": 1, "action": "status", "network": "x"}\n')
        _, midway = await say(path, b'{"id": 1, "act')
        assert await works(path)
        waiting.close()
        midway.close()

    serve(tmp_path, play)


def test_a_subscriber_that_does_not_read_is_told_and_hung_up_on(tmp_path: Path) -> None:
    async def play(server: ApiServer, path: Path) -> None:
        lazy, writer = await say(path, b'{"id": 1, "action": "subscribe"}\n')
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with await Client.open(path) as client:
            events = client.subscribe()
            first = asyncio.create_task(anext(events))
            await asyncio.sleep(0.1)
            for number in range(3 * UNREAD_BYTES_MAX // 10_000):
                server.publish(changed(f"{number}" + "x" * 10_000))
                await asyncio.sleep(0)
            assert (await first).network.startswith("0x")
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        last = b""
        while line := await lazy.readline():
            last = line
        assert json.loads(last)["error"]["code"] == "too_slow"
        writer.close()
        assert await works(path)

    serve(tmp_path, play)


def changed(name: str) -> api.NetworkChanged:
    """Return an event about a network."""
    return api.NetworkChanged(network=name, interface="wg0", state=State.RUNNING)


def test_when_all_connections_are_taken_the_longest_quiet_one_goes(tmp_path: Path) -> None:
    async def play(server: ApiServer, path: Path) -> None:
        crowd = [await say(path, b"") for _ in range(CLIENTS_MAX)]
        await asyncio.sleep(0.1)
        crowd[0][1].write(b'{"id": 1, "action": "list"}\n')
        assert (await said(crowd[0][0]))["id"] == 1
        assert await works(path)
        assert (await said(crowd[1][0]))["error"]["code"] == "too_many"
        crowd[0][1].write(b'{"id": 2, "action": "list"}\n')
        assert (await said(crowd[0][0]))["id"] == 2
        for _, writer in crowd:
            writer.close()

    serve(tmp_path, play)


def test_when_all_connections_wait_the_new_one_is_refused(tmp_path: Path) -> None:
    async def play(server: ApiServer, path: Path) -> None:
        asks = b'{"id": 1, "action": "status", "network": "x"}\n'
        crowd = [await say(path, asks) for _ in range(CLIENTS_MAX)]
        await asyncio.sleep(0.2)
        reader, writer = await say(path, b'{"id": 1, "action": "list"}\n')
        assert (await said(reader))["error"]["code"] == "too_many"
        for _, each in [*crowd, (reader, writer)]:
            each.close()

    serve(tmp_path, play)


def test_a_client_too_many_is_told_so_whenever_it_asks(tmp_path: Path) -> None:
    async def play(server: ApiServer, path: Path) -> None:
        asks = b'{"id": 1, "action": "status", "network": "x"}\n'
        crowd = [await say(path, asks) for _ in range(CLIENTS_MAX)]
        await asyncio.sleep(0.2)
        for pause_s in (0.0, 0.2):
            async with await Client.open(path) as late:
                await asyncio.sleep(pause_s)
                with pytest.raises(RefusedError, match="64 clients are served already") as caught:
                    await late.list()
                assert caught.value.code == "too_many"
        more = [await say(path, b"") for _ in range(2 * CLIENTS_MAX)]
        told = [await reader.readline() for reader, _ in more]
        assert sum(map(bool, told)) == CLIENTS_MAX, "nobody can hold more than that open"
        for _, writer in [*crowd, *more]:
            writer.close()

    serve(tmp_path, play)


def test_events_come_to_whoever_subscribed_and_to_nobody_else(tmp_path: Path) -> None:
    async def play(server: ApiServer, path: Path) -> None:
        async with await Client.open(path) as one, await Client.open(path) as other:
            seen = asyncio.create_task(anext(one.subscribe()))
            await other.list()
            await asyncio.sleep(0.1)
            server.publish(changed("home"))
            event = await seen
            assert (event.network, event.state, event.text()) == (
                "home",
                "running",
                "home is running",
            )
            assert (await other.list()).networks == []

    serve(tmp_path, play)


def test_the_client_raises_what_the_agent_says(tmp_path: Path) -> None:
    async def play(server: ApiServer, path: Path) -> None:
        async with await Client.open(path) as client:
            with pytest.raises(RefusedError, match="it does not work") as caught:
                await client.connect("home")
            assert caught.value.code == "failed"
            answers = await asyncio.gather(*(client.list() for _ in range(20)))
            assert len(answers) == 20
            asked = asyncio.create_task(client.status("home"))
            await asyncio.sleep(0.1)
            server.stop()
            with pytest.raises(ControlError, match="hung up"):
                await asked
            with pytest.raises(ControlError, match="hung up"):
                await client.list()

    serve(tmp_path, play)


def test_the_socket_is_its_owners_alone_and_there_is_one_agent(tmp_path: Path) -> None:
    async def play(server: ApiServer, path: Path) -> None:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        with pytest.raises(SocketError, match="in use"):
            ApiServer(path, lambda request: asyncio.sleep(0))
        assert await works(path)

    serve(tmp_path, play)
    assert not (tmp_path / "run" / "control.sock").exists()


def test_without_an_agent_the_client_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "none.sock"
    with pytest.raises(ControlError, match=r"no agent runs on .*none\.sock: start one with `wgmp"):
        asyncio.run(Client.open(path))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))
    with pytest.raises(ControlError, match="no agent runs"):
        asyncio.run(Client.open(path))
