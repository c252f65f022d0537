"""The agent's side of the UAPI, against a real server and against ones that break off."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from wgmp import keys, uapi_server
from wgmp.addresses import parse_endpoint
from wgmp.agent import uapi_client
from wgmp.agent.uapi_client import GatewayRefusedError
from wgmp.device import Device
from wgmp.errors import ControlError
from wgmp.peertable import RowFigures
from wgmp.uapi_server import UapiServer, bind_socket, socket_path

PRIVATE = keys.clamp(bytes([7]) * 32)
ONE, TWO = bytes([1]) * 32, bytes([2]) * 32
IFACE = "wgc"


class Sockets:
    """The outside of a device: one port is taken."""

    def open_port(self, port: int) -> int:
        if port == 5353:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        return port or 40000

    def set_fwmark(self, mark: int) -> None:
        """Take any."""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the sockets of gateways be in the test's own directory."""
    monkeypatch.setattr(uapi_server, "SOCKET_DIRECTORY", tmp_path)
    return tmp_path


def with_gateway(play: Callable[[Device], Awaitable[None]]) -> None:
    """Run a play while a device is served."""
    figures = RowFigures(parse_endpoint("[2001:db8::7]:9"), 1_500_000_000_250_000_000, 11, 22)

    async def run() -> None:
        device = Device(Sockets())
        device.set_private_key(PRIVATE)
        first = device.add_peer(ONE)
        assert first is not None
        server = UapiServer(
            device,
            lambda peer: figures if peer == first.peer else RowFigures(None, 0, 0, 0),
            lambda: None,
        )
        await server.start(bind_socket(socket_path(IFACE)))
        try:
            async with asyncio.timeout(20):
                await play(device)
        finally:
            await server.stop()

    asyncio.run(run())


def with_answers(*answers: bytes) -> Callable[[Callable[[], Awaitable[object]]], object]:
    """Return what asks something that answers with these bytes, piece by piece, and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\n\n")
        for answer in answers:
            writer.write(answer)
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.close()

    async def run(ask: Callable[[], Awaitable[object]]) -> object:
        async with await asyncio.start_unix_server(serve, socket_path(IFACE)):
            return await ask()

    return lambda ask: asyncio.run(run(ask))


def test_what_a_gateway_says_is_read_whole() -> None:
    async def play(device: Device) -> None:
        lines = (
            b"listen_port=51820\nfwmark=7\npublic_key=%s\nallowed_ip=10.0.0.0/8\n"
            b"allowed_ip=fd00::/8\npublic_key=%s\n" % (ONE.hex().encode(), TWO.hex().encode())
        )
        told = bytearray(lines)
        await uapi_client.change(IFACE, told)
        assert not any(told), "what holds keys is wiped"
        view = await uapi_client.get(IFACE)
        assert view.public_key == keys.to_base64(keys.public_key_of(PRIVATE))
        assert (view.listen_port, view.fwmark) == (51820, 7)
        one, two = view.peers[keys.to_base64(ONE)], view.peers[keys.to_base64(TWO)]
        assert one.endpoint == parse_endpoint("[2001:db8::7]:9")
        assert one.handshake_at == 1_500_000_000.25
        assert (one.rx_bytes, one.tx_bytes) == (11, 22)
        assert one.allowed_ips == ["10.0.0.0/8", "fd00::/8"]
        assert (two.endpoint, two.handshake_at, two.allowed_ips) == (None, 0.0, [])

    with_gateway(play)


def test_what_a_gateway_refuses_is_said_with_its_errno() -> None:
    async def play(device: Device) -> None:
        told = bytearray(b"private_key=%s\nlisten_port=5353\n" % PRIVATE.hex().encode())
        with pytest.raises(GatewayRefusedError, match="refuses: Address already in use") as refused:
            await uapi_client.change(IFACE, told)
        assert refused.value.errno == errno.EADDRINUSE
        assert not any(told), "also after a failure"

    with_gateway(play)


def test_an_answer_may_come_in_pieces() -> None:
    ask = with_answers(b"listen_p", b"ort=7\nerrno=0\n", b"\n")
    view = ask(lambda: uapi_client.get(IFACE))
    assert isinstance(view, uapi_client.DeviceView)
    assert (view.listen_port, view.public_key) == (7, "")


def test_a_gateway_that_hangs_up_or_is_not_there_is_told() -> None:
    for answer in (b"", b"errno=0\n"):
        with pytest.raises(ControlError, match="the gateway on wgc hung up"):
            with_answers(answer)(lambda: uapi_client.get(IFACE))
        socket_path(IFACE).unlink(missing_ok=True)
    with pytest.raises(ControlError, match="no gateway runs on wgc: start one with `wgmp superv"):
        asyncio.run(uapi_client.get(IFACE))


def test_a_gateway_that_does_not_answer_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uapi_client, "_LIMIT_S", 0.2)

    async def play(device: Device) -> None:
        with pytest.raises(ControlError, match="the gateway on wgc does not answer: timed out"):
            await uapi_client.get(IFACE)

    async def run() -> None:
        with bind_socket(socket_path(IFACE)):
            await play(Device(Sockets()))

    asyncio.run(run())
