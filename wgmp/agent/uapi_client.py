"""The agent's side of the UAPI socket: what a gateway is told, and what it says of its peers."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass, field

from wgmp.addresses import parse_endpoint
from wgmp.agent.secret import wipe
from wgmp.asking import asking_gateway
from wgmp.errors import ControlError
from wgmp.keys import from_hex, public_key_of, to_base64
from wgmp.protocol.outcome import Endpoint
from wgmp.uapi_server import socket_path

_LIMIT_S = 10.0
_END = b"\n\n"


class GatewayRefusedError(ControlError):
    """A gateway refused what it was told. `errno`: as it answered."""

    def __init__(self, interface: str, code: int) -> None:
        super().__init__(f"the gateway on {interface} refuses: {os.strerror(code)}")
        self.errno = code


@dataclass
class PeerView:
    """What a gateway says of a peer. `handshake_at`: seconds since 1970, 0.0 for never."""

    endpoint: Endpoint | None = None
    handshake_at: float = 0.0
    rx_bytes: int = 0
    tx_bytes: int = 0
    allowed_ips: list[str] = field(default_factory=list)


@dataclass
class DeviceView:
    """What a gateway says of itself. `public_key`: as base64, "" without a key; `peers`: by
    public key as base64."""

    public_key: str = ""
    listen_port: int = 0
    fwmark: int = 0
    peers: dict[str, PeerView] = field(default_factory=dict)


async def get(interface: str) -> DeviceView:
    """Ask the interface's gateway; raises ControlError when it does not answer."""
    answer = await _exchange(interface, b"get=1\n\n")
    try:
        return _view(answer)
    finally:
        wipe(answer)


async def change(interface: str, lines: bytearray) -> None:
    """Have the gateway apply device and peer lines, each with its line end.

    The lines are wiped. Raises GatewayRefusedError when the gateway refuses, and ControlError
    when it does not answer.
    """
    lines[:0] = b"set=1\n"
    lines += b"\n"
    try:
        answer = await _exchange(interface, lines)
    finally:
        wipe(lines)
    code = int(answer.removeprefix(b"errno=").strip() or b"0")
    if code:
        raise GatewayRefusedError(interface, -code)


async def _exchange(interface: str, request: bytes | bytearray) -> bytearray:
    loop = asyncio.get_running_loop()
    answer = bytearray()
    chunk = bytearray(1 << 16)
    path = socket_path(interface)
    try:
        with asking_gateway(path, interface), socket.socket(socket.AF_UNIX) as sock:
            async with asyncio.timeout(_LIMIT_S):
                sock.setblocking(False)
                await loop.sock_connect(sock, os.fspath(path))
                await loop.sock_sendall(sock, request)
                while not answer.endswith(_END):
                    count = await loop.sock_recv_into(sock, chunk)
                    if not count:
                        raise ControlError(f"the gateway on {interface} hung up")
                    answer += memoryview(chunk)[:count]
    finally:
        wipe(chunk)
    return answer


def _view(answer: bytearray) -> DeviceView:
    device = DeviceView()
    peer = PeerView()
    for line in answer.splitlines():
        key, _, value = line.partition(b"=")
        match key:
            case b"private_key":
                device.public_key = to_base64(public_key_of(from_hex(bytes(value))))
            case b"listen_port":
                device.listen_port = int(value)
            case b"fwmark":
                device.fwmark = int(value)
            case b"public_key":
                peer = device.peers[to_base64(from_hex(bytes(value)))] = PeerView()
            case b"endpoint":
                peer.endpoint = parse_endpoint(value.decode("ascii"))
            case b"last_handshake_time_sec":
                peer.handshake_at += int(value)
            case b"last_handshake_time_nsec":
                peer.handshake_at += int(value) / 1e9
            case b"rx_bytes":
                peer.rx_bytes = int(value)
            case b"tx_bytes":
                peer.tx_bytes = int(value)
            case b"allowed_ip":
                peer.allowed_ips.append(value.decode("ascii"))
    return device
