"""The native fast path: a Rust extension, `_native`, and what makes Python's objects known to it.

Importing this raises ImportError where the extension was not built, or was built from other
sources than these: each of its numbers for what lies where is compared with Python's.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial

import wgmp.fastpath.native._native as _native
from wgmp.counters import Block
from wgmp.fastpath.interface import (
    Admit,
    AllowedIPs,
    Find,
    Part,
    Received,
    Refused,
    Work,
    WorkerPart,
)
from wgmp.fastpath.native.agreement import disagreements
from wgmp.fastpath.segment import TCP, UDP
from wgmp.interest import Interest
from wgmp.peerdrops import PeerDrops
from wgmp.peertable import IndexTable, PeerTable
from wgmp.protocol.keypair import Keypair
from wgmp.protocol.outcome import DropReason
from wgmp.ring import Doorbell, RingReader, RingWriter
from wgmp.shm import use_fence
from wgmp.tun import TunQueue

# The library of version 1, by its soname.
IPSEC_MB = "libIPSec_MB.so.1"

if _wrong := disagreements(_native.layout_table()):
    raise ImportError(f"the native fast path was built from other sources: {', '.join(_wrong)}")

use_fence(_native.full_fence)


def _writer(ring: RingWriter) -> _native.RingWriter:
    bell = ring.doorbell
    return _native.RingWriter(ring.segment.bytes, bell.segment.bytes, bell.word, bell.descriptor)


def _reader(ring: RingReader) -> _native.RingReader:
    """Return the extension's end of the ring, made at its first use."""
    if not isinstance(ring.fast, _native.RingReader):
        ring.fast = _native.RingReader(ring.segment.bytes)
    return ring.fast


def _session(aead: _native.Aead, keypair: Keypair, peer: int) -> _native.Session:
    """Return the extension's form of the keypair, made at its first use."""
    if not isinstance(keypair.fast, _native.Session):
        keys = keypair.keys
        keypair.fast = _native.Session(
            aead, keys.sending, keys.receiving, keypair.remote_index, peer, keypair.state
        )
    return keypair.fast


def packet_intake(
    tun: TunQueue,
    workers: list[RingWriter],
    peers: PeerTable,
    routes: AllowedIPs,
    counters: Block,
) -> _native.PacketIntake:
    """Return the tun_reader's part."""
    assert isinstance(routes, _native.AllowedIPs)
    rings = [_writer(ring) for ring in workers]
    return _native.PacketIntake(
        tun.descriptor, tun.virtio_header, rings, peers.bytes, routes, counters.words
    )


class PacketWriter:
    """The tun_writer's part."""

    def __init__(self, tun: TunQueue, counters: Block) -> None:
        self.native = _native.PacketWriter(tun.descriptor, tun.virtio_header, counters.words)

    def burst(self, ring: RingReader) -> None:
        """Write the packets of some of the ring's records."""
        self.native.burst(_reader(ring))


class DatagramIntake:
    """The udp_reader's part."""

    def __init__(
        self, workers: list[RingWriter], peers: PeerTable, indices: IndexTable, counters: Block
    ) -> None:
        rings = [_writer(ring) for ring in workers]
        self._counters = counters
        self.native = _native.DatagramIntake(rings, peers.bytes, indices.bytes, counters.words)

    @property
    def has_messages(self) -> bool:
        """Whether handshake messages that came meanwhile wait for the next `burst`."""
        return self.native.has_messages

    def use(self, sockets: list[socket.socket]) -> None:
        """Receive from these sockets from now on."""
        self.native.use_sockets([sock.fileno() for sock in sockets])

    def burst(self, admit: Admit) -> tuple[bool, list[tuple[bytes, bytes]]]:
        """Receive a burst from each socket into records."""
        more, messages = self.native.burst()
        if messages:
            messages = [each for each in messages if self._admits(admit, each[0])]
        return more, messages

    def _admits(self, admit: Admit, message: bytes) -> bool:
        reason = admit(message)
        if reason is not None:
            self._counters.drop(reason)
        return reason is None


class DatagramWriter:
    """The udp_writer's part."""

    def __init__(self, sockets: list[socket.socket], segments: bool, counters: Block) -> None:
        self.native = _native.DatagramWriter(*_by_family(sockets), segments, counters.words)

    @property
    def segments(self) -> bool:
        """Whether trains go in one call."""
        return self.native.segments

    def use(self, sockets: list[socket.socket]) -> None:
        """Go on with other sockets."""
        self.native.use_sockets(*_by_family(sockets))

    def forget_paths(self) -> None:
        """Routes changed: what was too narrow for a train may be wide enough now."""
        self.native.forget_paths()

    def burst(self, ring: RingReader) -> int | None:
        """Send some of the ring's records; return the descriptor to wait for if it is full."""
        return self.native.burst(_reader(ring))


def _by_family(sockets: list[socket.socket]) -> tuple[int, int]:
    """Return the descriptors for IPv4 and IPv6, -1 for none."""
    descriptors = {sock.family: sock.fileno() for sock in sockets}
    return descriptors.get(socket.AF_INET, -1), descriptors.get(socket.AF_INET6, -1)


class Sealer:
    """The worker's way out."""

    def __init__(
        self, aead: _native.Aead, out: RingWriter, counters: Block, drops: PeerDrops
    ) -> None:
        self._aead = aead
        self.native = _native.Sealer(_writer(out), counters.words, drops.bytes)

    def seal(
        self, ring: RingReader, keypair: Keypair, peer: int, endpoint: bytes, mtu: int
    ) -> tuple[int, int]:
        """Seal the ring's records from the oldest on, while they are packets of `peer`."""
        session = _session(self._aead, keypair, peer)
        return self.native.seal(_reader(ring), session, endpoint, mtu)


class Opener:
    """The worker's way in."""

    def __init__(
        self,
        aead: _native.Aead,
        out: RingWriter,
        allowed_ips: AllowedIPs,
        counters: Block,
        drops: PeerDrops,
        coalesce: frozenset[int],
        find: Find,
    ) -> None:
        assert isinstance(allowed_ips, _native.AllowedIPs)
        self.native = _native.Opener(
            _writer(out), allowed_ips, counters.words, drops.bytes, TCP in coalesce, UDP in coalesce
        )
        self._aead = aead
        self._find = find

    def open(self, ring: RingReader) -> tuple[list[Received], list[Refused]]:
        """Open the ring's records of datagrams from the oldest on."""
        received, refused = self.native.open(_reader(ring), self._session)
        return received, [(index, DropReason(reason), count) for index, reason, count in refused]

    def _session(self, index: int) -> _native.Session | DropReason:
        found = self._find(index)
        return found if isinstance(found, DropReason) else _session(self._aead, *found)


class Leases:
    """The worker's leases."""

    def __init__(self, aead: _native.Aead, peers: PeerTable) -> None:
        self._aead = aead
        self.native = _native.Leases(peers.bytes)
        self.revoke: Callable[[int], None] = self.native.revoke
        self.clear: Callable[[], None] = self.native.clear
        self.settle: Callable[[], list[Work]] = self.native.settle

    def grant(self, keypair: Keypair, peer: int, endpoint: bytes, mtu: int, until: float) -> None:
        """Let whole turns go on with the keypair."""
        session = _session(self._aead, keypair, peer)
        self.native.grant(session, keypair.local_index, endpoint, mtu, until)


def turns(
    interest: Interest,
    doorbell: Doorbell,
    parts: list[tuple[Part, list[RingReader]]],
    captured: memoryview | None,
) -> _native.Turns:
    """Return the turns of a process."""
    bell = doorbell.segment.bytes, doorbell.word, doorbell.descriptor
    made = _native.Turns(interest.descriptor, *bell, captured)
    for part, inputs in parts:
        rings = [_reader(ring) for ring in inputs]
        match part:
            case _native.PacketIntake():
                made.add_packet_intake(part)
            case DatagramIntake(native=intake):
                made.add_datagram_intake(intake)
            case WorkerPart(Sealer() as sealer, Opener() as opener, Leases() as leases):
                made.add_worker(rings, sealer.native, opener.native, leases.native)
            case DatagramWriter(native=writer):
                made.add_datagram_writer(rings, writer)
            case PacketWriter(native=writer):
                made.add_packet_writer(rings, writer)
            case _:
                made.add_none(rings)
    return made


class Native:
    """The fast path itself. `ipsec_mb`: the library whose AEAD it has instead of ring's.

    Raises ImportError: why that one cannot be used here.
    """

    NAME = "native"
    allowed_ips = _native.AllowedIPs
    packet_intake = staticmethod(packet_intake)
    packet_writer = PacketWriter
    datagram_intake = DatagramIntake
    datagram_writer = DatagramWriter
    turns = staticmethod(turns)

    def __init__(self, ipsec_mb: str | None = None) -> None:
        aead = _native.Aead.ring() if ipsec_mb is None else _native.Aead.ipsec_mb(ipsec_mb)
        self.aead, self.AEAD = aead, aead.name
        self.sealer = partial(Sealer, aead)
        self.opener = partial(Opener, aead)
        self.leases = partial(Leases, aead)
