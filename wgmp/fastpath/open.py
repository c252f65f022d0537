"""Opening: records of transport datagrams become records of packets for the TUN.

The reference fast path's way in. A train is decrypted in one loop over its datagrams; what is
authentic and new goes to the sink (sink.py), which checks it and makes super-packets. What comes
out is, datagram by datagram, what `Keypair.open` says.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby, repeat
from operator import attrgetter
from typing import Final

from cryptography.exceptions import InvalidTag

from wgmp.counters import Block, Counter
from wgmp.fastpath.interface import AllowedIPs, Find, Received, Refused
from wgmp.fastpath.sink import PacketSink
from wgmp.fastpath.transport import (
    HEADER_BYTES,
    HEADER_LAYOUT,
    NONCE_LAYOUT,
    OVERHEAD,
    SCRATCH_BYTES,
    scratch,
    scratch_view,
)
from wgmp.orders import row_of
from wgmp.peerdrops import PeerDrops
from wgmp.protocol.constants import REJECT_AFTER_MESSAGES
from wgmp.protocol.keypair import Keypair
from wgmp.protocol.outcome import DropReason
from wgmp.record import Kind, Record
from wgmp.ring import RingReader
from wgmp.stream import Label, RecordStream

_INDEX: Final = attrgetter("index")

# Records taken in one call, so that others get their turn.
_BURST: Final = 8


@dataclass(slots=True)
class Results:
    """What became of so many `records`. See `interface.Opener.open`."""

    records: int = 0
    received: list[Received] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


class Opener:
    """Opens into the stream `out`, at most `burst` records a call. See `interface.Opener`."""

    def __init__(
        self,
        out: RecordStream,
        allowed_ips: AllowedIPs,
        counters: Block,
        drops: PeerDrops,
        coalesce: frozenset[int],
        find: Find,
        burst: int = _BURST,
    ) -> None:
        self._out = out
        self._burst = burst
        self.counters = counters
        self._drops = drops
        self._sink = PacketSink(scratch, out, allowed_ips.lookup, coalesce)
        self._find = find
        self._label = Label(Kind.PACKETS)

    def open(self, ring: RingReader) -> tuple[list[Received], list[Refused]]:
        """Open the ring's records of datagrams from the oldest on."""
        results = self.burst(ring, self._find, lambda record: True)
        return results.received, results.refused

    def burst(self, ring: RingReader, find: Find, takes: Callable[[Record], bool]) -> Results:
        """Do what `open` does, with another `find`, and up to a record that `takes` refuses."""
        results = Results()
        for _ in range(self._burst):
            record = ring.peek()
            if record is None or record.kind != Kind.DATAGRAMS or not takes(record):
                break
            results.records += 1
            self.counters.record_in(record.count, record.used)
            if record.endpoint() is None or record.shortest() < OVERHEAD:
                self.counters.drop(DropReason.RING_CORRUPT, record.count)
            else:
                self._open_record(record, find, results)
            ring.release()
        return results

    def _open_record(self, record: Record, find: Find, results: Results) -> None:
        for index, cars in _sessions(trains(record)):
            found = find(index)
            if isinstance(found, DropReason):
                results.refused.append((index, found, sum(train.count for train in cars)))
                continue
            opened = self._open_session(*found, cars, record)
            if opened.data + opened.keepalives:
                counts = opened.data, opened.keepalives, opened.received_bytes
                results.received.append((index, *counts, record.packed_endpoint()))

    def _open_session(
        self, keypair: Keypair, peer: int, cars: list[Train], record: Record
    ) -> Opened:
        if peer != self._label.peer:
            self._label = Label(Kind.PACKETS, peer)
        self._out.start(self._label)
        opened = open_trains(keypair, record, cars, self._sink, peer)
        self._out.flush()
        if opened.joined:
            self.counters.add(Counter.JOINED, opened.joined)
        for reason, count in opened.drops.items():
            self.counters.drop(reason, count)
            self._drops.add(row_of(peer), reason, count)
        return opened


class Train:
    """`count` datagrams of one length and one receiver index, one behind the other in a record."""

    __slots__ = ("count", "counters", "index", "length", "start")

    def __init__(self, index: int, start: int, length: int, counters: Sequence[int]) -> None:
        self.index = index
        self.start = start
        self.length = length
        self.counters = counters
        self.count = len(counters)


def trains(record: Record) -> list[Train]:
    """Return a record's datagrams as trains, in order. Their types and lengths were checked."""
    if record.count == 1:
        _, index, counter = HEADER_LAYOUT.unpack_from(record.payload)
        return [Train(index, 0, record.used, (counter,))]
    found = []
    start = 0
    for length, count in record.length_runs():
        places = range(start, start + length * count, length)
        headers = map(HEADER_LAYOUT.unpack_from, repeat(record.payload), places)
        _, indices, counters = zip(*headers, strict=True)
        first = 0
        for index, same in groupby(indices):
            last = first + len(list(same))
            found.append(Train(index, places[first], length, counters[first:last]))
            first = last
        start += length * count
    return found


def _sessions(cars: list[Train]) -> Iterable[tuple[int, list[Train]]]:
    """Return trains that follow one another and have one receiver index, with that."""
    if len(cars) == 1:
        return [(cars[0].index, cars)]
    return [(index, list(group)) for index, group in groupby(cars, _INDEX)]


class Opened:
    """What `open_trains` found: authenticated, unseen datagrams by sort, and the drops.

    `received_bytes`: outer bytes of every authenticated, unseen datagram. `joined`: packets that
    super-packets were made of, less the super-packets.
    """

    __slots__ = ("data", "drops", "joined", "keepalives", "received_bytes")

    def __init__(self) -> None:
        self.data = self.keepalives = self.received_bytes = self.joined = 0
        self.drops: dict[DropReason, int] = defaultdict(int)


def open_trains(
    keypair: Keypair, record: Record, cars: Sequence[Train], sink: PacketSink, peer: int
) -> Opened:
    """Open trains of one keypair, the `peer`'s, from `record` into packets for the TUN.

    `sink`: takes them, when they are in `scratch`. Never raises on what the datagrams contain; what
    fails its tag never leaves the scratch memory, and is wiped there.
    """
    result = Opened()
    sink.begin(peer, record.ecn, result.drops)
    offset = 0
    for train in cars:
        plain = train.length - OVERHEAD
        if offset + plain * train.count > SCRATCH_BYTES:
            sink.flush()
            offset = 0
        seen = _open_train(keypair, record, train, offset, result)
        new = seen.count(True)
        result.received_bytes += train.length * new
        if not plain:
            result.keepalives += new
            continue
        result.data += new
        if new == train.count:
            sink.add(offset, new, plain)
            offset += plain * new
            continue
        for is_new, same in groupby(seen):
            count = len(list(same))
            if is_new:
                sink.add(offset, count, plain)
            offset += plain * count
    sink.flush()
    result.joined = sink.joined
    return result


def _open_train(
    keypair: Keypair, record: Record, train: Train, offset: int, result: Opened
) -> list[bool]:
    """Decrypt a train into scratch rows; return which datagrams are authentic and new."""
    accept, counters = keypair.replay.accept, train.counters
    if train.count == 1:
        authentic = [_open_datagram(keypair, record, train, offset)]
    else:
        authentic = _open_datagrams(keypair, record, train, offset)
    seen = [good and accept(counter) for good, counter in zip(authentic, counters, strict=True)]
    if not all(seen):
        _count_drops(authentic, counters, seen, result)
    return seen


def _open_datagram(keypair: Keypair, record: Record, train: Train, offset: int) -> bool:
    """Decrypt the only datagram of a train; return whether it is authentic."""
    start, end = train.start, train.start + train.length
    nonce = NONCE_LAYOUT.pack(0, train.counters[0])
    plain = scratch_view[offset : offset + train.length - OVERHEAD]
    sealed = record.payload[start + HEADER_BYTES : end]
    return _authenticates(keypair.opener.decrypt_into, nonce, sealed, plain)


def _open_datagrams(keypair: Keypair, record: Record, train: Train, offset: int) -> list[bool]:
    """Decrypt a train's datagrams; return which of them are authentic."""
    start, length, count = train.start, train.length, train.count
    payload, plain = record.payload, length - OVERHEAD
    sealed = [
        payload[at + HEADER_BYTES : at + length]
        for at in range(start, start + length * count, length)
    ]
    plains = [
        scratch_view[at : at + plain]
        for at in (range(offset, offset + plain * count, plain) if plain else repeat(offset, count))
    ]
    nonces = list(map(NONCE_LAYOUT.pack, repeat(0), train.counters))
    decrypt_into = keypair.opener.decrypt_into
    try:
        # A loop that is C's.
        deque(map(decrypt_into, nonces, sealed, repeat(None), plains), 0)
    except InvalidTag:
        each = zip(nonces, sealed, plains, strict=True)
        return [_authenticates(decrypt_into, *datagram) for datagram in each]
    return [True] * count


def _count_drops(
    authentic: Sequence[bool], counters: Sequence[int], seen: Sequence[bool], result: Opened
) -> None:
    for good, counter, new in zip(authentic, counters, seen, strict=True):
        if not good:
            result.drops[DropReason.BAD_TAG] += 1
        elif counter >= REJECT_AFTER_MESSAGES:
            result.drops[DropReason.COUNTER_EXHAUSTED] += 1
        elif not new:
            result.drops[DropReason.REPLAYED] += 1


def _authenticates(
    decrypt_into: Callable[..., int], nonce: bytes, body: memoryview, plain: memoryview
) -> bool:
    try:
        decrypt_into(nonce, body, None, plain)
    except InvalidTag:
        plain[:] = bytes(len(plain))
        return False
    return True
