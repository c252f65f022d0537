"""The reference fast path's leases: the sessions that whole turns may go on with, and until when.

The worker grants one for a peer that it has just served, when nothing about the peer's current
session has to be decided for a while (worker/transport.py), and takes it back before anything about
the peer changes. What happened under it is noted for the peer's timers.
"""

from __future__ import annotations

from wgmp.fastpath.interface import Received, Work
from wgmp.fastpath.transport import OVERHEAD, receiver_indices
from wgmp.peertable import PeerTable
from wgmp.protocol.constants import REKEY_AFTER_MESSAGES
from wgmp.protocol.keypair import Keypair
from wgmp.record import Record


class Lease:
    """Whoever holds one may seal for the peer and send to `endpoint`, and open what comes from it.

    `endpoint`: packed; `mtu`: bytes that padding does not pass; the rest is what was done under it.
    """

    __slots__ = (
        "endpoint",
        "keepalives",
        "keypair",
        "mtu",
        "packets",
        "peer",
        "row",
        "sending_last",
        "sent",
        "until",
    )

    def __init__(
        self,
        keypair: Keypair,
        peer: int,
        endpoint: bytes,
        mtu: int,
        until: float,
        peers: PeerTable,
    ) -> None:
        self.keypair = keypair
        self.peer = peer
        self.endpoint = endpoint
        self.mtu = mtu
        self.until = until
        self.row = peers.row(peer)
        self.begin()

    def begin(self) -> None:
        """Nothing has been done yet, or it has been told."""
        self.sent = self.packets = self.keepalives = 0
        self.sending_last = False


class Leases:
    """All that one worker has granted. See `interface.Leases`."""

    def __init__(self, peers: PeerTable) -> None:
        self._peers = peers
        self._by_peer: dict[int, Lease] = {}
        self._by_index: dict[int, Lease] = {}
        self._worked: dict[int, Lease] = {}

    def grant(self, keypair: Keypair, peer: int, endpoint: bytes, mtu: int, until: float) -> None:
        """Let whole turns go on with the keypair."""
        self.revoke(peer)
        lease = Lease(keypair, peer, endpoint, mtu, until, self._peers)
        self._by_peer[peer] = self._by_index[keypair.local_index] = lease

    def revoke(self, peer: int) -> None:
        """Take the peer's lease back, if it has one."""
        lease = self._by_peer.pop(peer, None)
        if lease is not None:
            del self._by_index[lease.keypair.local_index]
            self._worked.pop(peer, None)

    def clear(self) -> None:
        """Take all of them back."""
        self._by_peer.clear()
        self._by_index.clear()
        self._worked.clear()

    def settle(self) -> list[Work]:
        """Return what happened since the last call, for each peer of which anything did."""
        worked = []
        for lease in self._worked.values():
            worked.append(
                (lease.peer, lease.sent, lease.packets, lease.keepalives, lease.sending_last)
            )
            lease.begin()
        self._worked.clear()
        return worked

    # --- for whoever holds them ---

    def of_peer(self, peer: int, now: float) -> Lease | None:
        """Return the lease of a peer that has one to seal on."""
        lease = self._by_peer.get(peer)
        if lease is None or now >= lease.until:
            return None
        return lease if lease.keypair.send_counter <= REKEY_AFTER_MESSAGES else None

    def cover(self, record: Record, now: float) -> bool:
        """Return whether all datagrams of a record are of leased sessions, from where those are."""
        if record.shortest() < OVERHEAD:
            return False
        endpoint = record.packed_endpoint()
        for index in receiver_indices(record):
            lease = self._by_index.get(index)
            if lease is None or now >= lease.until or lease.endpoint != endpoint:
                return False
        return True

    def session(self, index: int) -> tuple[Keypair, int]:
        """Return the keypair and the peer of a receiver index that is leased."""
        lease = self._by_index[index]
        return lease.keypair, lease.peer

    def note_sent(self, lease: Lease, packets: int, length: int) -> None:
        """Note what was sealed: packets, and the bytes of their datagrams."""
        if packets:
            lease.row.add_sent(length)
            lease.sent += packets
            lease.sending_last = True
            self._worked[lease.peer] = lease

    def note_received(self, received: Received) -> None:
        """Note what a session received."""
        index, packets, keepalives, length, _ = received
        lease = self._by_index[index]
        lease.row.add_received(length)
        lease.packets += packets
        lease.keepalives += keepalives
        lease.sending_last = False
        self._worked[lease.peer] = lease
