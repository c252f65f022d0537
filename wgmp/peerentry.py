"""One peer of a device, as configured, and the order that tells the roles of it."""

from __future__ import annotations

from wgmp.addresses import format_endpoint
from wgmp.keys import ZERO_KEY
from wgmp.orders import EndpointOrder, SetPeer, row_of
from wgmp.protocol.allowedips import Prefix
from wgmp.protocol.outcome import Endpoint


class PeerEntry:
    """One peer as configured. Read it anywhere; change it through the device only.

    `peer`: peer id. `preshared_key`: 32 bytes, zeros for none. `keepalive`: seconds, 0 off.
    `endpoint`: as last configured, not where the peer has roamed to; `endpoint_serial`: how often.
    `allowed_ips`: its prefixes in the order they came. A list, for most peers have few, and
    there are thousands of peers.
    """

    __slots__ = (
        *("allowed_ips", "endpoint", "endpoint_serial", "keepalive"),
        *("peer", "preshared_key", "public_key"),
    )

    def __init__(self, peer: int, public_key: bytes) -> None:
        self.peer = peer
        self.public_key = public_key
        self.preshared_key = ZERO_KEY
        self.endpoint: Endpoint | None = None
        self.endpoint_serial = 0
        self.keepalive = 0
        self.allowed_ips: list[Prefix] = []

    def __repr__(self) -> str:
        """Name the peer without its keys."""
        endpoint = "none" if self.endpoint is None else format_endpoint(self.endpoint)
        return f"PeerEntry(row={row_of(self.peer)}, endpoint={endpoint})"

    def endpoint_order(self) -> EndpointOrder | None:
        """Return the endpoint as the roles are told it."""
        if self.endpoint is None:
            return None
        address, port, scope_id = self.endpoint[:3]
        return EndpointOrder(address, port, scope_id, self.endpoint_serial)

    def order(self, with_endpoint: bool) -> SetPeer:
        """Return the order that makes the peer what this says, but for its allowed IPs."""
        endpoint = self.endpoint_order() if with_endpoint else None
        return SetPeer(self.peer, self.public_key, self.preshared_key, self.keepalive, endpoint)
