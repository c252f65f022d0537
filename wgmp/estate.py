"""What a supervisor hands to its successor, and in which form: the two may be of two versions.

Descriptors go beside the message, each with its name. The estate itself is in a memory file, for
it may be megabytes, and holds keys.

| descriptor | what |
|---|---|
| estate | the memory file with an `Estate` |
| tun, udp, uapi, control | the TUN, the UDP sockets, the listening sockets |
| the others | shared memory that lasts: peers, peer drops, indices, sessions, counters |

`FORMAT` counts the changes to the estate and to the layout of that memory which another version
would misread. A successor that has another one is refused: it is started anew instead, and its
peers shake hands.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from wgmp import system
from wgmp.device import Device
from wgmp.errors import UNDECODABLE
from wgmp.options import Options
from wgmp.orders import EndpointOrder
from wgmp.protocol.allowedips import Prefix

FORMAT = 2

ESTATE = "estate"


class PeerEstate(msgspec.Struct, frozen=True, array_like=True):
    """One peer: its id and all of its configuration (`device.PeerEntry`)."""

    peer: int
    public_key: bytes
    preshared_key: bytes
    keepalive: int
    endpoint: EndpointOrder | None
    allowed_ips: list[Prefix]

    def __repr__(self) -> str:
        """Name the peer without its keys."""
        return f"PeerEstate(peer={self.peer})"


class Estate(msgspec.Struct, frozen=True):
    """All that is no descriptor.

    `options`: those of the start, with the topology in force. `roles`: whose counters the shared
    memory has, in its order. `generations`: of the peer table's rows. `link`: the interface's index
    and its MTU in bytes, for it may be out of sight; None from a version that did not say.
    """

    options: Options
    roles: list[str]
    private_key: bytes
    generations: list[int]
    peers: list[PeerEstate]
    link: tuple[int, int] | None = None

    def __repr__(self) -> str:
        """Describe it without keys."""
        return f"Estate({self.options.interface}, {len(self.peers)} peers)"


def peers_of(device: Device) -> list[PeerEstate]:
    """Return the peers of a device."""
    return [
        PeerEstate(
            entry.peer,
            entry.public_key,
            entry.preshared_key,
            entry.keepalive,
            entry.endpoint_order(),
            entry.allowed_ips,
        )
        for entry in device.peers.values()
    ]


def restore(estate: Estate, device: Device) -> None:
    """Make an empty device what the estate says; the port and the mark are the sockets'."""
    ids = {peer.public_key: peer.peer for peer in estate.peers}
    device.restore(estate.private_key, estate.generations, ids)
    for peer in estate.peers:
        entry = device.peers[peer.public_key]
        device.set_preshared_key(entry, peer.preshared_key)
        device.set_keepalive(entry, peer.keepalive)
        if peer.endpoint is not None:
            device.set_endpoint(entry, peer.endpoint.endpoint(), peer.endpoint.serial)
        for prefix in peer.allowed_ips:
            device.add_allowed_ip(entry, prefix)


def write(estate: Estate) -> int:
    """Return the descriptor of a memory file that holds the estate."""
    descriptor = system.memory_file("estate")
    with open(os.dup(descriptor), "wb") as file:
        file.write(msgspec.msgpack.encode(estate, enc_hook=str))
    return descriptor


def read(descriptor: int) -> Estate:
    """Return the estate in a memory file, and close it. Raises msgspec.DecodeError."""
    with open(descriptor, "rb") as file:
        file.seek(0)
        return msgspec.msgpack.decode(file.read(), type=Estate, dec_hook=_decode_path)


def _decode_path(kind: type, text: Any) -> Any:
    return Path(text) if issubclass(kind, Path) else text


class Hello(msgspec.Struct, frozen=True, tag=True):
    """Successor: the program has started; this is its format, and its version for people."""

    format: int
    version: str


class Bequest(msgspec.Struct, frozen=True, tag=True):
    """Predecessor: the descriptors that come with this message, by their names."""

    names: list[str]


class Prepared(msgspec.Struct, frozen=True, tag=True):
    """Successor: all processes are there and know the configuration; they wait."""


class Refused(msgspec.Struct, frozen=True, tag=True):
    """Successor: it cannot take over, and why. It ends, and leaves no trace."""

    reason: str


class Go(msgspec.Struct, frozen=True, tag=True):
    """Predecessor: its processes have ended, in order or not; nobody works."""

    orderly: bool


class Serving(msgspec.Struct, frozen=True, tag=True):
    """Successor: its processes work."""


Message = Hello | Bequest | Prepared | Refused | Go | Serving

MAX_MESSAGE_BYTES = 1 << 14
MAX_DESCRIPTORS = 32

encode = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], Message] = msgspec.msgpack.Decoder(Message).decode


def decode(message: bytes) -> Message:
    """Return a message; raises msgspec.DecodeError, also at the end of the stream."""
    return _decode(message)


async def receive(sock: socket.socket) -> Message | None:
    """Return the next message, None when the other end has gone, or talks nonsense."""
    await readable(sock.fileno())
    with contextlib.suppress(ConnectionError, *UNDECODABLE):
        return decode(sock.recv(MAX_MESSAGE_BYTES))
    return None


async def readable(descriptor: int) -> None:
    """Wait until a descriptor can be read; a process's can when it has ended."""
    loop = asyncio.get_running_loop()
    came = asyncio.Event()
    loop.add_reader(descriptor, came.set)
    try:
        await came.wait()
    finally:
        loop.remove_reader(descriptor)


def named(names: Sequence[str], descriptors: Sequence[int]) -> list[tuple[str, int]]:
    """Pair the names of a bequest with what came along. Raises ValueError if they do not fit."""
    return list(zip(names, descriptors, strict=True))
