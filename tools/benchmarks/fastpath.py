"""The fast path's functions and records as the benchmarks use them: the only place that knows how.

Everything is made of one TCP flow over IPv4, as the kernel would hand it over: a super-packet and
the packets that it stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from wgmp.counters import Counters, create_counters
from wgmp.fastpath import virtio
from wgmp.fastpath.checksum import finish, sum_words
from wgmp.fastpath.interface import FastPath
from wgmp.fastpath.segment import TCP, UDP, Segments, segment
from wgmp.fastpath.virtio import VirtioHeader
from wgmp.offload import Offloads
from wgmp.peertable import PeerTable
from wgmp.protocol.keypair import Keypair
from wgmp.protocol.noise import SessionKeys
from wgmp.protocol.outcome import Endpoint
from wgmp.record import SLOT_BYTES, Kind, Record, pack_endpoint
from wgmp.ring import HEAD_WORD, TAIL_WORD, Doorbell, RingReader, RingWriter, create_ring
from wgmp.role import Devices
from wgmp.shm import Segment
from wgmp.tun import TunQueue

MTU = 1420
# Packets in a super-packet, and datagrams in what it becomes: about 60 kB.
TRAIN = 44

_HEADERS = 40
_FLOW = b"\x0a\0\0\1", b"\x0a\0\0\2"
_PEER = 1
_ENDPOINT = Endpoint(bytes([192, 0, 2, 1]), 51820)


@dataclass(frozen=True)
class Function:
    """A function on TRAIN packets."""

    name: str
    call: Callable[[], object]


def super_packet(size: int, source: bytes, destination: bytes) -> bytes:
    """Return a super-packet behind its virtio header; its TRAIN packets have `size` bytes each."""
    payload = size - _HEADERS
    total = _HEADERS + TRAIN * payload
    ip = bytearray(b"\x45\0" + total.to_bytes(2, "big") + b"\0\1\x40\0\x40\6\0\0")
    ip += source + destination
    ip[10:12] = finish(sum_words(bytes(ip))).to_bytes(2, "big")
    # The checksum is left to the device: its field holds the pseudo-header's sum.
    pseudo = finish(sum_words(source + destination) + TCP + total - 20) ^ 0xFFFF
    ports, sequence = b"\x14\x51\x14\x52", b"\0\0\0\1\0\0\0\1"
    tcp = ports + sequence + b"\x50\x10\xff\xff" + pseudo.to_bytes(2, "big") + bytes(2)
    header = VirtioHeader(virtio.NEEDS_CSUM, virtio.GSO_TCPV4, _HEADERS, payload, 20, 16)
    return header.pack() + bytes(ip) + tcp + bytes(total - _HEADERS)


def flow(size: int, source: bytes, destination: bytes) -> list[bytes]:
    """Return the TRAIN packets that `super_packet` stands for, each complete."""
    whole = super_packet(size, source, destination)
    scratch = np.zeros(1 << 18, np.uint8)
    cut = segment(VirtioHeader.unpack(whole), memoryview(whole)[virtio.SIZE :], scratch)
    assert isinstance(cut, Segments)
    return [row[: cut.length].tobytes() for row in cut.rows]


def fill(record: Record, peer: int, source: bytes, destination: bytes) -> None:
    """Make the record that tun_reader makes of one super-packet."""
    record.begin(Kind.PACKETS, peer)
    record.append(super_packet(MTU, source, destination))


def no_devices() -> Devices:
    """Return devices for a worker alone, which touches no TUN, on a host with every offload."""
    return Devices([TunQueue(-1, virtio_header=True)], [], Offloads(True, True, True, True))


class _Bench:
    """A sealer and an opener of one fast path, each between two rings of its own.

    The record that a ring offers stays in its slot, and is offered again for every call.
    """

    def __init__(self, fastpath: FastPath, coalesce: frozenset[int]) -> None:
        self._counters = Counters(create_counters(1), 0)
        self._drops = PeerTable().peer_drops
        routes = fastpath.allowed_ips()
        routes.insert(bytes(4), 0, _PEER)
        self._packets, self._datagrams = _Ring(), _Ring()
        self._sealed, self._opened = _Ring(), _Ring()
        self._ours = Keypair(SessionKeys(bytes(32), bytes(32), 1, 2, True), 0.0)
        self._theirs = Keypair(SessionKeys(bytes(32), bytes(32), 2, 1, False), 0.0)
        parts = self._counters, self._drops
        self._sealer = fastpath.sealer(self._sealed.writer, *parts)
        find = (self._theirs, _PEER)
        self._opener = fastpath.opener(
            self._opened.writer, routes, *parts, coalesce, lambda index: find
        )

    def sealing(self, packets: Sequence[bytes]) -> Callable[[], None]:
        """Return a call that seals packets behind virtio headers."""
        self._packets.offer(Kind.PACKETS, packets)
        endpoint = pack_endpoint(_ENDPOINT)

        def seal() -> None:
            count, _ = self._sealer.seal(self._packets.reader, self._ours, _PEER, endpoint, MTU)
            assert count == TRAIN, self._counters.drops()
            self._packets.offer_again()
            self._sealed.empty()

        return seal

    def opening(self, packets: Sequence[bytes]) -> Callable[[], None]:
        """Return a call that opens the datagrams of packets."""
        self._datagrams.offer(Kind.DATAGRAMS, [self._ours.seal(each, MTU) for each in packets])

        def open_() -> None:
            self._theirs.state[1] = 0  # nothing received yet: they are always the same datagrams
            ((_, count, _, _, _),), _ = self._opener.open(self._datagrams.reader)
            assert count == TRAIN, self._counters.drops()
            self._datagrams.offer_again()
            self._opened.empty()

        return open_


class _Ring:
    """A ring and both its ends."""

    def __init__(self) -> None:
        segment = create_ring("benchmark", 16, SLOT_BYTES)
        self.writer = RingWriter(segment, Doorbell(Segment("doorbell", 64), 0))
        self.reader = RingReader(segment)
        self._words = segment.words

    def offer(self, kind: Kind, packets: Sequence[bytes]) -> None:
        record = self.writer.reserve()
        assert record is not None
        record.begin(kind, _PEER)
        record.set_endpoint(_ENDPOINT)
        for packet in packets:
            record.append(packet)
        self.writer.publish()

    def offer_again(self) -> None:
        self._words[TAIL_WORD] -= 1

    def empty(self) -> None:
        self._words[TAIL_WORD] = self._words[HEAD_WORD]


def functions(fastpath: FastPath, size: int) -> Iterator[Function]:
    """Yield the functions of a fast path, set up for packets of `size` bytes."""
    packets = flow(size, *_FLOW)
    single = [virtio.PLAIN + packet for packet in packets]
    whole = [super_packet(size, *_FLOW)]
    apart, together = _Bench(fastpath, frozenset()), _Bench(fastpath, frozenset({TCP, UDP}))
    yield Function("seal, packets one by one", apart.sealing(single))
    yield Function("seal, a super-packet", together.sealing(whole))
    yield Function("open, not coalesced", apart.opening(packets))
    yield Function("open, to a super-packet", together.opening(packets))
