"""Opening: records of transport datagrams become records of packets for the TUN.

The reference fast path's way in. A train is decrypted in one loop over its datagrams; what is
authentic and new goes to the sink (sink.py), which checks it and makes super-packets. What comes
out is, datagram by datagram, what `Keypair.open` says.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise, repeat
from typing import Final

import numpy as np
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
    nonces,
    scratch,
    scratch_view,
)
from wgmp.orders import row_of
from wgmp.peerdrops import PeerDrops
from wgmp.protocol.constants import REJECT_AFTER_MESSAGES
from wgmp.protocol.keypair import Keypair
from wgmp.protocol.outcome import DropReason
from wgmp.record import Kind, Record, pack_endpoint
from wgmp.ring import RingReader
from wgmp.stream import Label, RecordStream

# Records taken in one call, so that others get their turn.
_BURST: Final = 8


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
        self._owner = allowed_ips.lookup
        self._counters = counters
        self._drops = drops
        self._coalesce = coalesce
        self._find = find

    def open(self, ring: RingReader) -> tuple[list[Received], list[Refused]]:
        """Open the ring's records of datagrams from the oldest on."""
        received: list[Received] = []
        refused: list[Refused] = []
        for _ in range(self._burst):
            record = ring.peek()
            if record is None or record.kind != Kind.DATAGRAMS:
                break
            self._counters.record_in(record.count, record.used)
            endpoint = record.endpoint()
            if endpoint is None or record.shortest() < OVERHEAD:
                self._counters.drop(DropReason.RING_CORRUPT, record.count)
                ring.release()
                continue
            packed = pack_endpoint(endpoint)
            for index, group in groupby(trains(record), lambda train: train.index):
                cars = list(group)
                found = self._find(index)
                if isinstance(found, DropReason):
                    refused.append((index, found, sum(train.count for train in cars)))
                    continue
                opened = self._open_session(*found, cars, record)
                if opened.data + opened.keepalives:
                    received.append(
                        (index, opened.data, opened.keepalives, opened.received_bytes, packed)
                    )
            ring.release()
        return received, refused

    def _open_session(
        self, keypair: Keypair, peer: int, cars: list[Train], record: Record
    ) -> Opened:
        self._out.start(Label(Kind.PACKETS, peer))
        opened = open_trains(
            keypair,
            record,
            cars,
            self._out,
            lambda source: self._owner(source) == peer,
            congestion=record.ecn,
            coalesce=self._coalesce,
        )
        self._out.flush()
        self._counters.add(Counter.JOINED, opened.joined)
        for reason, count in opened.drops.items():
            self._counters.drop(reason, count)
            self._drops.add(row_of(peer), reason, count)
        return opened


@dataclass(frozen=True, slots=True)
class Train:
    """Datagrams of one length and one receiver index, one behind the other in a record."""

    index: int
    start: int
    length: int
    count: int


def trains(record: Record) -> Iterator[Train]:
    """Yield a record's datagrams as trains, in order. Their types and lengths were checked."""
    start = 0
    target = np.frombuffer(record.payload, np.uint8)
    for length, count in record.length_runs():
        end = start + length * count
        if count == 1:
            _, index, _ = HEADER_LAYOUT.unpack_from(record.payload, start)
            yield Train(index, start, length, 1)
            start = end
            continue
        indices = target[start:end].reshape(count, length)[:, 4:8].copy().view("<u4")[:, 0]
        breaks = np.flatnonzero(indices[1:] != indices[:-1]) + 1
        edges = [0, *breaks.tolist(), count]
        for first, last in pairwise(edges):
            yield Train(int(indices[first]), start + first * length, length, last - first)
        start = end


@dataclass(slots=True)
class Opened:
    """What `open_trains` found: authenticated, unseen datagrams by sort, and the drops.

    `received_bytes`: outer bytes of every authenticated, unseen datagram. `joined`: packets that
    super-packets were made of, less the super-packets.
    """

    data: int = 0
    keepalives: int = 0
    received_bytes: int = 0
    joined: int = 0
    drops: Tally[DropReason] = field(default_factory=Tally)


def open_trains(
    keypair: Keypair,
    record: Record,
    cars: Sequence[Train],
    out: RecordStream,
    is_allowed_source: Callable[[bytes], bool],
    *,
    congestion: int,
    coalesce: frozenset[int],
) -> Opened:
    """Open trains of one keypair from `record` into packets for the TUN.

    `out` gets packets behind virtio headers, trimmed of padding. `is_allowed_source`: whether
    the inner source address routes to this peer. `congestion`: the outer ECN field.
    `coalesce`: protocols of which to make super-packets. Never raises
    on what the datagrams contain; what fails its tag never leaves the scratch memory, and is
    wiped there.
    """
    result = Opened()
    sink = PacketSink(scratch, out, is_allowed_source, result.drops, congestion, coalesce)
    offset = 0
    for train in cars:
        plain = train.length - OVERHEAD
        if offset + plain * train.count > SCRATCH_BYTES:
            sink.flush()
            offset = 0
        seen = _open_train(keypair, record, train, offset, result)
        result.received_bytes += train.length * sum(seen)
        if not plain:
            result.keepalives += sum(seen)
            continue
        result.data += sum(seen)
        for first, last in _stretches(seen):
            sink.add(offset + first * plain, last - first, plain)
        offset += plain * train.count
    sink.flush()
    result.joined = sink.joined
    return result


def _open_train(
    keypair: Keypair, record: Record, train: Train, offset: int, result: Opened
) -> list[bool]:
    """Decrypt a train into scratch rows; return which datagrams are authentic and new."""
    start, length, count = train.start, train.length, train.count
    payload = record.payload
    plain = length - OVERHEAD
    ends = range(start + length, start + length * count + 1, length)
    bodies = [payload[end - length + HEADER_BYTES : end] for end in ends]
    views = (
        [scratch_view[at : at + plain] for at in range(offset, offset + plain * count, plain)]
        if plain
        else [scratch_view[offset:offset]] * count
    )
    if count == 1:
        counters = [HEADER_LAYOUT.unpack_from(payload, start)[2]]
        numbered = [NONCE_LAYOUT.pack(0, counters[0])]
    else:
        area = np.frombuffer(payload, np.uint8, length * count, start).reshape(count, length)
        numbers = area[:, 8:16].copy().view("<u8")[:, 0]
        numbered = nonces(numbers)
        counters = numbers.tolist()
    decrypt_into = keypair.opener.decrypt_into
    try:
        list(map(decrypt_into, numbered, bodies, repeat(None), views))
        authentic = [True] * count
    except InvalidTag:
        each = zip(numbered, bodies, views, strict=True)
        authentic = [_authenticates(decrypt_into, *datagram) for datagram in each]
    accept = keypair.replay.accept
    seen = []
    for good, counter in zip(authentic, counters, strict=True):
        if not good:
            result.drops[DropReason.BAD_TAG] += 1
        elif counter >= REJECT_AFTER_MESSAGES:
            result.drops[DropReason.COUNTER_EXHAUSTED] += 1
            good = False
        elif not accept(counter):
            result.drops[DropReason.REPLAYED] += 1
            good = False
        seen.append(good)
    return seen


def _authenticates(
    decrypt_into: Callable[..., int], nonce: bytes, body: memoryview, plain: memoryview
) -> bool:
    try:
        decrypt_into(nonce, body, None, plain)
    except InvalidTag:
        plain[:] = bytes(len(plain))
        return False
    return True


def _stretches(flags: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of each run of true flags."""
    start = None
    for at, flag in enumerate([*flags, False]):
        if flag and start is None:
            start = at
        elif not flag and start is not None:
            yield start, at
            start = None
