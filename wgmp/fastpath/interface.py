"""What a fast path is: the batch functions over records, which both implementations have.

| | role | does, once per packet |
|---|---|---|
| `PacketIntake` | tun_reader | read, find the peer, fill records for its worker |
| `Sealer` | worker | segment, finish checksums, seal into datagrams |
| `DatagramWriter` | udp_writer | send, as trains |
| `DatagramIntake` | udp_reader | receive, find the worker by receiver index, fill records |
| `Opener` | worker | open, replay window, inner source, coalesce |
| `PacketWriter` | tun_writer | write |

Nothing here decides. One call does a burst of records and counts what it did and dropped in the
role's block; what somebody has to think about is returned. Handshakes, timers, configuration and
errors are the roles' and the protocol core's.

As long as nobody has to think, the calls may come one behind the other without Python in between:
that is `Turns`, on the sessions that the worker has leased (`Leases`).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import NamedTuple, Protocol

from wgmp.counters import Block
from wgmp.interest import Interest
from wgmp.peerdrops import PeerDrops
from wgmp.peertable import IndexTable, PeerTable
from wgmp.protocol.keypair import Keypair
from wgmp.protocol.outcome import DropReason
from wgmp.ring import Doorbell, RingReader, RingWriter
from wgmp.tun import TunQueue

Find = Callable[[int], tuple[Keypair, int] | DropReason]
Admit = Callable[[bytes], DropReason | None]
Received = tuple[int, int, int, int, bytes]
Refused = tuple[int, DropReason, int]
Work = tuple[int, int, int, int, bool]


class AllowedIPs(Protocol):
    """Which peer an address belongs to. Addresses are packed: 4 bytes (IPv4) or 16 (IPv6)."""

    def insert(self, network: bytes, length: int, owner: int) -> None:
        """Give a prefix of `length` bits to the peer id `owner`, whoever has it now."""

    def remove(self, network: bytes, length: int, owner: int) -> None:
        """Take a prefix from `owner`; nothing happens when it is not the owner's."""

    def remove_owner(self, owner: int) -> None:
        """Take all prefixes from `owner`."""

    def lookup(self, address: bytes) -> int | None:
        """Return the owner of the longest prefix that holds the address, or None."""


class PacketIntake(Protocol):
    """Reads the TUN into records for the workers. `mtu`: the longest packet let through."""

    mtu: int

    def burst(self) -> tuple[bool, list[bytes]]:
        """Read a burst and publish it.

        Returns whether something may be left to read, and each packet, behind its virtio header,
        that was not handed on: it is none, has no route, or is too long. Raises OSError when the
        interface is gone.
        """

    def put(self, peer: int, packet: bytes) -> None:
        """Hand on a packet that `burst` returned, after all."""


class PacketWriter(Protocol):
    """Writes to the TUN."""

    def burst(self, ring: RingReader) -> None:
        """Write the packets of some of the ring's records. Refused ones are WRITE_FAILED."""


class DatagramIntake(Protocol):
    """Receives from the UDP sockets into records for the workers."""

    @property
    def has_messages(self) -> bool:
        """Whether handshake messages that came meanwhile wait for the next `burst`."""

    def use(self, sockets: list[socket.socket]) -> None:
        """Receive from these sockets from now on; at first there are none."""

    def burst(self, admit: Admit) -> tuple[bool, list[tuple[bytes, bytes]]]:
        """Receive a burst from each socket and publish the transport data in it.

        `admit` is asked for each handshake message of the right length, for the reason to drop it
        or None. Returns whether something may be left to receive, and each admitted message with
        its packed endpoint. Raises OSError when a socket is unusable.
        """


class DatagramWriter(Protocol):
    """Sends. `segments`: trains go in one call; false for good once the kernel says it cannot."""

    @property
    def segments(self) -> bool:
        """Whether trains go in one call."""

    def use(self, sockets: list[socket.socket]) -> None:
        """Go on with other sockets."""

    def forget_paths(self) -> None:
        """Routes changed: what was too narrow for a train may be wide enough now."""

    def burst(self, ring: RingReader) -> int | None:
        """Send some of the ring's records; return the descriptor to wait for if it is full.

        What the network refuses is SEND_FAILED.
        """


class Sealer(Protocol):
    """Seals records of packets into the worker's ring to udp_writer."""

    def seal(
        self, ring: RingReader, keypair: Keypair, peer: int, endpoint: bytes, mtu: int
    ) -> tuple[int, int]:
        """Seal the ring's records from the oldest on, while they are packets of `peer`.

        `endpoint`: packed; `mtu`: bytes that padding does not pass. Returns datagrams sealed, and
        their bytes. Stops before a record that holds as many bytes as the keypair has counters
        left, or more; the caller has seen to it that the first is none.
        """


class Opener(Protocol):
    """Opens records of datagrams into the worker's ring to tun_writer."""

    def open(self, ring: RingReader) -> tuple[list[Received], list[Refused]]:
        """Open the ring's records of datagrams from the oldest on.

        The `find` it was made with names the keypair and peer of a receiver index, or the reason
        to drop its datagrams. Returns, in order, what authenticated and was not seen before, as
        (index, packets, keepalives, outer bytes of both, the last one's packed endpoint); and what
        `find` refused, not counted yet, as (index, reason, datagrams).
        """


class Leases(Protocol):
    """The sessions of one worker that whole turns may go on with, without asking it."""

    def grant(self, keypair: Keypair, peer: int, endpoint: bytes, mtu: int, until: float) -> None:
        """Let them seal on it and send to `endpoint` (packed), and open what comes from there.

        Up to the time `until` nothing may have to be decided, unless it is revoked. It takes the
        place of the peer's last one.
        """

    def revoke(self, peer: int) -> None:
        """Take the peer's lease back, before anything about the peer changes."""

    def clear(self) -> None:
        """Take all leases back."""

    def settle(self) -> list[Work]:
        """Return what happened under leases since the last call, while they are still granted.

        As (peer, packets sent, packets received, keepalives received, whether sending came
        last), for each peer of which anything did. Bytes and packets have been counted.
        """


class WorkerPart(NamedTuple):
    """What of a worker's work needs no decision."""

    sealer: Sealer
    opener: Opener
    leases: Leases


Part = PacketIntake | DatagramIntake | WorkerPart | DatagramWriter | PacketWriter | None


class Turns(Protocol):
    """The turns of one process's loop in which nothing has to be decided."""

    @property
    def sleeps(self) -> int:
        """How often it has slept."""

    def wait(self, busy: bool, until: float, blocked: bool) -> list[tuple[int, int]]:
        """Sleep and turn until there is something for Python; return what descriptors are ready.

        As (descriptor, mask). `until`: boot time in seconds, at which it returns at the latest.
        `busy`: a role has work left, so it does not sleep at first. `blocked`: one waits for a
        descriptor to drain, and all the others with it.
        """


class FastPath(Protocol):
    """An implementation. `NAME`, and whose `AEAD` it has: as options and statistics say."""

    NAME: str
    AEAD: str

    def allowed_ips(self) -> AllowedIPs:
        """Return an empty table."""

    def packet_intake(
        self,
        tun: TunQueue,
        workers: list[RingWriter],
        peers: PeerTable,
        routes: AllowedIPs,
        counters: Block,
    ) -> PacketIntake:
        """Return the tun_reader's part. `routes`: from the same fast path."""

    def packet_writer(self, tun: TunQueue, counters: Block) -> PacketWriter:
        """Return the tun_writer's part."""

    def datagram_intake(
        self, workers: list[RingWriter], peers: PeerTable, indices: IndexTable, counters: Block
    ) -> DatagramIntake:
        """Return the udp_reader's part."""

    def datagram_writer(
        self, sockets: list[socket.socket], segments: bool, counters: Block
    ) -> DatagramWriter:
        """Return the udp_writer's part."""

    def sealer(self, out: RingWriter, counters: Block, drops: PeerDrops) -> Sealer:
        """Return the worker's way out."""

    def opener(
        self,
        out: RingWriter,
        allowed_ips: AllowedIPs,
        counters: Block,
        drops: PeerDrops,
        coalesce: frozenset[int],
        find: Find,
    ) -> Opener:
        """Return the worker's way in. `coalesce`: protocols of which to make super-packets."""

    def leases(self, peers: PeerTable) -> Leases:
        """Return a worker's leases, of which there are none yet."""

    def turns(
        self,
        interest: Interest,
        doorbell: Doorbell,
        parts: list[tuple[Part, list[RingReader]]],
        captured: memoryview | None,
    ) -> Turns:
        """Return the turns of a process. `captured`: a word that is not 0 while somebody captures.

        `parts`: what of each role's work needs no decision, None for nothing, and the rings that
        the role consumes, in the order in which they step.
        """
