"""Device: the supervisor's single truth of what is configured.

A change is made by a method here and nowhere else. The methods do not send: they note what
they touched, and `take_orders` writes the difference since the last call as orders, so that a
`wg syncconf` which repeats the present state, `replace_allowed_ips` and all, costs the roles
nothing. The order of orders makes every intermediate state a sane one:

    RemovePeer*  SetPrivateKey  SetPeer*  RemoveAllowedIP|AddAllowedIP*  ForgetSources

(a removed peer's row is free before its next tenant comes, and a prefix moves to a peer only
when the peer is known). The UDP port and the firewall mark change at once, through `Outside`,
because whoever asks wants to hear that the port is taken.

The device does not route; it keeps prefixes by exact match. The longest match is the business
of the roles that see packets (`protocol.allowedips`).
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterator
from typing import Protocol

from wgmp.errors import WgmpError
from wgmp.keys import clamp, public_key_of
from wgmp.orders import (
    ROW_BITS,
    AddAllowedIP,
    ForgetSources,
    Order,
    RemoveAllowedIP,
    RemovePeer,
    SetPrivateKey,
    row_of,
)
from wgmp.peerentry import PeerEntry
from wgmp.protocol.allowedips import Prefix
from wgmp.protocol.outcome import Endpoint

DEFAULT_CAPACITY = 16384


class DeviceFullError(WgmpError):
    """The peer table has no free row. `errno`, ENOSPC, is what the UAPI answers."""

    def __init__(self, message: str) -> None:
        super().__init__(message, errno.ENOSPC)


class Outside(Protocol):
    """What the device needs done at once, outside itself."""

    def open_port(self, port: int) -> int:
        """Move to the UDP port (0: any free one); return the port bound.

        Raises OSError (EADDRINUSE, EACCES, ...) and then leaves the old sockets open.
        """

    def set_fwmark(self, mark: int) -> None:
        """Mark outer datagrams (SO_MARK; 0: none). Raises OSError."""


class Device:
    """The configuration of one interface, and what changed in it since `take_orders`.

    `capacity`: rows of the shared peer table. Every operation costs the same however many
    peers there are, but for those that by nature touch all of them.
    """

    def __init__(self, outside: Outside, capacity: int = DEFAULT_CAPACITY) -> None:
        self.private_key = b""
        self.public_key = b""
        self.listen_port = 0
        self.fwmark = 0
        self.peers: dict[bytes, PeerEntry] = {}
        self.capacity = capacity
        self._outside = outside
        self._owners: dict[Prefix, PeerEntry] = {}
        self._free_rows = deque(range(capacity))
        self._generations = [0] * capacity
        # What take_orders has to say: see there.
        self._key_changed = False
        self._sources_stale = False
        self._removed: list[int] = []
        self._changed: dict[int, PeerEntry] = {}
        self._endpoint_set: set[int] = set()
        self._former_owners: dict[Prefix, int | None] = {}

    def __repr__(self) -> str:
        """Describe the device without its keys."""
        return f"Device(port={self.listen_port}, fwmark={self.fwmark}, peers={len(self.peers)})"

    # A predecessor's state

    @property
    def generations(self) -> list[int]:
        """How many peers each row has had: what makes their ids different."""
        return list(self._generations)

    def restore(self, private_key: bytes, generations: list[int], peers: dict[bytes, int]) -> None:
        """Be an empty device no more, but one with these peers: their ids by public key.

        They have no keys, endpoints and prefixes yet. `generations`: as a device gave them.
        """
        assert not self.peers
        self.set_private_key(private_key)
        self._generations[: len(generations)] = generations
        taken = {row_of(peer) for peer in peers.values()}
        self._free_rows = deque(row for row in self._free_rows if row not in taken)
        for public_key, peer in peers.items():
            entry = self.peers[public_key] = PeerEntry(peer, public_key)
            self._changed[peer] = entry

    # The interface

    def set_private_key(self, private_key: bytes) -> None:
        """Change the identity; `private_key`: 32 bytes (clamped here), b"" or zeros for none.

        A peer that has our new public key is removed: it would be ourselves.
        """
        new = clamp(private_key) if private_key.strip(b"\0") else b""
        if new == self.private_key:
            return
        self.private_key = new
        self.public_key = public_key_of(new) if new else b""
        self._key_changed = True
        ourselves = self.peers.get(self.public_key)
        if ourselves is not None:
            self.remove_peer(ourselves)

    def set_listen_port(self, port: int) -> None:
        """Move to UDP `port`; 0 picks a free one. Raises OSError, and nothing has changed."""
        if port and port == self.listen_port:
            return
        self.listen_port = self._outside.open_port(port)
        self._sources_stale = True

    def set_fwmark(self, mark: int) -> None:
        """Mark outer datagrams with `mark` (u32, 0 for none). Raises OSError, nothing changed."""
        if mark == self.fwmark:
            return
        self._outside.set_fwmark(mark)
        self.fwmark = mark
        self._sources_stale = True

    # Peers

    def add_peer(self, public_key: bytes) -> PeerEntry | None:
        """Return the peer with this public key, made now if there is none.

        None when the key is our own: such a peer is ignored. Raises DeviceFullError.
        """
        entry = self.peers.get(public_key)
        if entry is not None or public_key == self.public_key:
            return entry
        if not self._free_rows:
            raise DeviceFullError(
                f"there is no room for more than {self.capacity} peers: remove some first"
            )
        row = self._free_rows.popleft()
        self._generations[row] += 1
        entry = PeerEntry(self._generations[row] << ROW_BITS | row, public_key)
        self.peers[public_key] = entry
        self._changed[entry.peer] = entry
        return entry

    def remove_peer(self, entry: PeerEntry) -> None:
        """Forget the peer and its allowed IPs. Its row becomes free, its peer id does not."""
        self.replace_allowed_ips(entry)
        del self.peers[entry.public_key]
        self._free_rows.append(row_of(entry.peer))
        self._changed.pop(entry.peer, None)
        self._removed.append(entry.peer)

    def replace_peers(self) -> None:
        """Forget all peers."""
        for entry in list(self.peers.values()):
            self.remove_peer(entry)

    def set_preshared_key(self, entry: PeerEntry, preshared_key: bytes) -> None:
        """Change the peer's preshared key: 32 bytes, zeros for none."""
        if preshared_key != entry.preshared_key:
            entry.preshared_key = preshared_key
            self._changed[entry.peer] = entry

    def set_keepalive(self, entry: PeerEntry, seconds: int) -> None:
        """Change the peer's persistent keepalive: 1..65535 seconds, 0 for off."""
        if seconds != entry.keepalive:
            entry.keepalive = seconds
            self._changed[entry.peer] = entry

    def set_endpoint(self, entry: PeerEntry, endpoint: Endpoint, serial: int | None = None) -> None:
        """Send to the peer at `endpoint`. Said again it still counts: the peer may have roamed.

        `serial`: a predecessor's, when it was said to that one.
        """
        entry.endpoint = endpoint
        entry.endpoint_serial = entry.endpoint_serial + 1 if serial is None else serial
        self._changed[entry.peer] = entry
        self._endpoint_set.add(entry.peer)

    # Allowed IPs

    def add_allowed_ip(self, entry: PeerEntry, prefix: Prefix) -> None:
        """Route the prefix (host bits zero) to the peer, taking it from the one that has it."""
        owner = self._owners.get(prefix)
        if owner is entry:
            return
        self._note_owner(prefix, owner)
        if owner is not None:
            owner.allowed_ips.remove(prefix)
        self._owners[prefix] = entry
        entry.allowed_ips.append(prefix)

    def remove_allowed_ip(self, entry: PeerEntry, prefix: Prefix) -> None:
        """Take the prefix from the peer; nothing happens when the peer does not have it."""
        if self._owners.get(prefix) is entry:
            self._note_owner(prefix, entry)
            entry.allowed_ips.remove(prefix)
            del self._owners[prefix]

    def replace_allowed_ips(self, entry: PeerEntry) -> None:
        """Take all prefixes from the peer."""
        for prefix in entry.allowed_ips:
            self._note_owner(prefix, entry)
            del self._owners[prefix]
        entry.allowed_ips.clear()

    def _note_owner(self, prefix: Prefix, owner: PeerEntry | None) -> None:
        # Only the first change counts: that is whom the roles still hold for the owner.
        self._former_owners.setdefault(prefix, None if owner is None else owner.peer)

    # What the roles are told

    def take_orders(self) -> list[Order]:
        """Return the orders that bring the roles from the last call's state to this one."""
        orders: list[Order] = [RemovePeer(peer) for peer in self._removed]
        if self._key_changed:
            orders.append(SetPrivateKey(self.private_key))
        for peer, entry in self._changed.items():
            orders.append(entry.order(with_endpoint=peer in self._endpoint_set))
        orders.extend(self._prefix_orders())
        if self._sources_stale:
            orders.append(ForgetSources())
        self._key_changed = self._sources_stale = False
        self._removed.clear()
        self._changed.clear()
        self._endpoint_set.clear()
        self._former_owners.clear()
        return orders

    def snapshot(self) -> Iterator[Order]:
        """Yield the whole state, for a role that starts: key, peers, allowed IPs."""
        yield SetPrivateKey(self.private_key)
        for entry in self.peers.values():
            yield entry.order(with_endpoint=True)
        for entry in self.peers.values():
            for network, length in entry.allowed_ips:
                yield AddAllowedIP(network, length, entry.peer)

    def _prefix_orders(self) -> Iterator[Order]:
        removed = set(self._removed)
        for prefix, former in self._former_owners.items():
            owner = self._owners.get(prefix)
            if owner is not None and owner.peer != former:
                yield AddAllowedIP(*prefix, owner.peer)
            elif owner is None and former is not None and former not in removed:
                yield RemoveAllowedIP(*prefix, former)
