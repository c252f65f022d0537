"""What a back end of the network manager does, and how `wg` tells of an interface."""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from wgmp.config import PeerConfig, QuickConfig
from wgmp.errors import CommandError

# How long a gateway of ours may take, on a machine that has much else to do.
START_LIMIT_S = 30.0
STOP_LIMIT_S = 10.0
POLL_S = 0.05


class PeerStatus(msgspec.Struct, frozen=True):
    """A peer as `wg` shows it. `handshake_at`: seconds since 1970, 0 for never."""

    public_key: str
    endpoint: str
    allowed_ips: tuple[str, ...]
    handshake_at: int
    received_bytes: int
    sent_bytes: int
    keepalive_s: int


class InterfaceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An interface now. `detail`: what is wrong, with "error"."""

    state: Literal["not_created", "active", "error"]
    interface: str
    backend: str
    public_key: str = ""
    listen_port: int = 0
    peers: tuple[PeerStatus, ...] = ()
    detail: str = ""


class Backend(Protocol):
    """One way to have a WireGuard interface. All raise CommandError when a command fails."""

    name: str

    async def exists(self, interface: str) -> bool:
        """Tell whether there is an interface of this name, whoever made it."""

    async def create(self, interface: str, config: QuickConfig) -> None:
        """Make the interface what `config` says, and up. On failure nothing is left of it."""

    async def adopt(self, interface: str, config: QuickConfig) -> QuickConfig:
        """Take an interface that is there; return what it is now.

        Its key, port and peers stay; what `config` has besides is added.
        """

    async def set_peer(self, interface: str, before: QuickConfig, peer: PeerConfig) -> None:
        """Add a peer to what the interface was `before`, or change the one of that key."""

    async def remove_peer(self, interface: str, before: QuickConfig, peer: PeerConfig) -> None:
        """Remove a peer from what the interface was `before`."""

    async def trouble(self, interface: str) -> str:
        """Return why the interface carries no traffic, "" when it could."""

    async def dump(self, interface: str) -> str:
        """Return what `wg show INTERFACE dump` prints."""

    async def delete(self, interface: str) -> None:
        """Remove the interface and all that was made for it."""


def with_peer(config: QuickConfig, peer: PeerConfig) -> QuickConfig:
    """Return the configuration with the peer: new, or in place of the one of its key."""
    others = tuple(each for each in config.peers if each.public_key != peer.public_key)
    return msgspec.structs.replace(config, peers=(*others, peer))


def without_peer(config: QuickConfig, public_key: bytes) -> QuickConfig:
    """Return the configuration without the peer of this key."""
    peers = tuple(each for each in config.peers if each.public_key != public_key)
    return msgspec.structs.replace(config, peers=peers)


def read_dump(interface: str, backend: str, dump: str) -> InterfaceStatus:
    """Return the status in what `wg show INTERFACE dump` printed. Raises CommandError."""
    try:
        device, *peers = (line.split("\t") for line in dump.splitlines())
        _, public_key, port, _ = device
        return InterfaceStatus(
            state="active",
            interface=interface,
            backend=backend,
            public_key="" if public_key == "(none)" else public_key,
            listen_port=int(port),
            peers=tuple(_read_peer(fields) for fields in peers),
        )
    except ValueError:
        raise CommandError(f"`wg show {interface} dump` printed what it never did before") from None


def _read_peer(fields: list[str]) -> PeerStatus:
    public_key, _, endpoint, allowed_ips, handshake, received, sent, keepalive = fields
    return PeerStatus(
        public_key=public_key,
        endpoint="" if endpoint == "(none)" else endpoint,
        allowed_ips=() if allowed_ips == "(none)" else tuple(allowed_ips.split(",")),
        handshake_at=int(handshake),
        received_bytes=int(received),
        sent_bytes=int(sent),
        keepalive_s=0 if keepalive == "off" else int(keepalive),
    )
