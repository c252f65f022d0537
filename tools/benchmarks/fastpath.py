"""The fast path's functions and records as the benchmarks use them: the only place that knows how.

Everything is made of one TCP flow over IPv4, as the kernel would hand it over: a super-packet and
the packets that it stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from wgmp.counters import Counters, create_counters
from wgmp.fastpath import virtio
from wgmp.fastpath.checksum import finish, sum_words
from wgmp.fastpath.open import open_trains, trains
from wgmp.fastpath.segment import TCP, UDP, Segments, segment
from wgmp.fastpath.virtio import VirtioHeader
from wgmp.offload import Offloads
from wgmp.protocol.constants import TAG_SIZE
from wgmp.protocol.keypair import Keypair, padded_length
from wgmp.protocol.messages import TransportHeader
from wgmp.protocol.noise import SessionKeys
from wgmp.protocol.replay import ReplayWindow
from wgmp.record import SLOT_BYTES, Kind, Record
from wgmp.ring import Doorbell, RingReader, RingWriter, create_ring
from wgmp.role import Devices
from wgmp.shm import Segment
from wgmp.stream import Label, RecordStream
from wgmp.tun import TunQueue

MTU = 1420
# Packets in a super-packet, and datagrams in what it becomes: about 60 kB.
TRAIN = 44

_HEADERS = 40
_FLOW = b"\x0a\0\0\1", b"\x0a\0\0\2"


@dataclass(frozen=True)
class Function:
    """A function on TRAIN packets; `bare`: the AEAD alone on as many."""

    name: str
    call: Callable[[], object]
    bare: Callable[[], object]


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
    return Devices(TunQueue(-1, virtio_header=True), [], Offloads(True, True, True, True))


class _Outlet:
    """A ring that is emptied after every call."""

    def __init__(self, kind: Kind) -> None:
        memory = create_ring("benchmark", 16, SLOT_BYTES)
        writer = RingWriter(memory, Doorbell(Segment("doorbell", 64), 0))
        self._reader = RingReader(memory)
        self.stream = RecordStream(writer, Counters(create_counters(1), 0))
        self.stream.start(Label(kind))

    def empty(self) -> None:
        self.stream.flush()
        while self._reader.waiting():
            self._reader.release()


def functions(size: int) -> Iterator[Function]:
    """Yield the functions, set up for packets of `size` bytes."""
    ours = Keypair(SessionKeys(bytes(32), bytes(32), 1, 2, True), 0.0)
    theirs = Keypair(SessionKeys(bytes(32), bytes(32), 2, 1, False), 0.0)
    packets = flow(size, *_FLOW)
    datagrams = [ours.seal(packet, MTU) for packet in packets]
    bare_seal = _bare_seal(ours, packets)
    bare_open = _bare_open(theirs, datagrams)
    single = [memoryview(virtio.PLAIN + packet) for packet in packets]
    whole = [memoryview(super_packet(size, *_FLOW))]
    yield Function("seal, packets one by one", _seal(ours, single), bare_seal)
    yield Function("seal, a super-packet", _seal(ours, whole), bare_seal)
    yield Function("open, not coalesced", _open(theirs, datagrams, frozenset()), bare_open)
    coalesce = frozenset({TCP, UDP})
    yield Function("open, to a super-packet", _open(theirs, datagrams, coalesce), bare_open)


def _seal(keypair: Keypair, packets: Sequence[memoryview]) -> Callable[[], None]:
    outlet = _Outlet(Kind.DATAGRAMS)

    def seal() -> None:
        sealed = seal(keypair, packets, outlet.stream, MTU)
        assert not sealed.drops, sealed
        outlet.empty()

    return seal


def _open(
    keypair: Keypair, datagrams: Sequence[bytes], coalesce: frozenset[int]
) -> Callable[[], None]:
    outlet = _Outlet(Kind.PACKETS)
    record = Record(memoryview(bytearray(SLOT_BYTES)))
    record.begin(Kind.DATAGRAMS)
    for datagram in datagrams:
        record.append(datagram)

    def open_() -> None:
        keypair.replay = ReplayWindow()  # they are always the same datagrams
        opened = open_trains(
            keypair,
            record,
            list(trains(record)),
            outlet.stream,
            lambda source: True,
            congestion=0,
            coalesce=coalesce,
        )
        assert opened.data == len(datagrams), opened
        outlet.empty()

    return open_


def _bare_seal(keypair: Keypair, packets: Sequence[bytes]) -> Callable[[], object]:
    plains = [packet.ljust(padded_length(len(packet), MTU), b"\0") for packet in packets]
    nonces = [_nonce(number) for number in range(len(plains))]
    rooms = [memoryview(bytearray(len(plain) + TAG_SIZE)) for plain in plains]
    return lambda: list(map(keypair.sealer.encrypt_into, nonces, plains, repeat(None), rooms))


def _bare_open(keypair: Keypair, datagrams: Sequence[bytes]) -> Callable[[], object]:
    nonces = [_nonce(number) for number in range(len(datagrams))]
    bodies = [datagram[TransportHeader.SIZE :] for datagram in datagrams]
    rooms = [memoryview(bytearray(len(body) - TAG_SIZE)) for body in bodies]
    return lambda: list(map(keypair.opener.decrypt_into, nonces, bodies, repeat(None), rooms))


def _nonce(counter: int) -> bytes:
    return bytes(4) + counter.to_bytes(8, "little")
