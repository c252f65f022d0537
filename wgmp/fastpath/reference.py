"""The reference fast path: plain Python on `cryptography` and numpy, always there.

```
out  record of packets from the TUN  -> segment, finish checksums -> seal -> datagrams
in   record of datagrams             -> open, replay window -> inner source -> coalesce -> packets
```

Each function works on a whole record: one call, whatever the number of packets in it, with the
fields of all packets computed at once and nothing per packet but the cryptography. What comes
out is, packet by packet, what `Keypair.seal` and `Keypair.open` say; the tests hold it to them.
"""

from __future__ import annotations

import struct
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, repeat
from typing import Final

import numpy as np
from cryptography.exceptions import InvalidTag

from wgmp.fastpath import virtio
from wgmp.fastpath.segment import Segments, finish_checksum, segment
from wgmp.fastpath.sink import PacketSink
from wgmp.fastpath.virtio import VirtioHeader
from wgmp.protocol.constants import REJECT_AFTER_MESSAGES, TAG_SIZE
from wgmp.protocol.keypair import Keypair, padded_length
from wgmp.protocol.messages import MessageType, TransportHeader
from wgmp.protocol.outcome import DropReason
from wgmp.record import MAX_TRAIN_BYTES, MAX_TRAIN_DATAGRAMS, PAYLOAD_BYTES, Record
from wgmp.stream import RecordStream

_HEADER: Final = TransportHeader.SIZE
_OVERHEAD: Final = _HEADER + TAG_SIZE
_TRANSPORT: Final = MessageType.TRANSPORT.value
_HEADER_FIELDS: Final = np.dtype([("type", "<u4"), ("receiver", "<u4"), ("counter", "<u8")])
_NONCE_FIELDS: Final = np.dtype([("zeros", "<u4"), ("counter", "<u8")])
# The same for one at a time, which numpy would make slower, not faster.
_HEADER_LAYOUT: Final = struct.Struct("<IIQ")
_NONCE_LAYOUT: Final = struct.Struct("<IQ")

# The smallest segment the kernel cuts is 536 bytes less options; this holds 64 KiB of it.
_SCRATCH_BYTES: Final = 1 << 18
_scratch: Final = np.zeros(_SCRATCH_BYTES, np.uint8)
_scratch_view: Final = _scratch.data


@dataclass(slots=True)
class Sealed:
    """What `seal` did: packets it dealt with, from the first on, and the drops among them.

    Packets behind those found the keypair's counter at its end: they need another session. `cut`:
    packets that super-packets were cut into, less the super-packets.
    """

    packets: int = 0
    cut: int = 0
    drops: Tally[DropReason] = field(default_factory=Tally)


def seal(keypair: Keypair, packets: Sequence[memoryview], out: RecordStream, mtu: int) -> Sealed:
    """Seal packets from the TUN into transport datagrams.

    `packets`: of one peer, each behind its virtio header, borrowed until return. `mtu`: bytes
    that padding does not pass. Datagrams of one super-packet follow one another in a record.
    """
    result = Sealed()
    for packet in packets:
        header = VirtioHeader.unpack(packet)
        if header.gso_type == virtio.GSO_NONE:
            plain: bytes | Segments | DropReason = _plain_packet(header, packet)
        else:
            plain = segment(header, packet[virtio.SIZE :], _scratch)
        count = len(plain.rows) if isinstance(plain, Segments) else 1
        if isinstance(plain, DropReason):
            result.drops[plain] += 1
        elif keypair.send_counter + count > REJECT_AFTER_MESSAGES:
            break
        elif isinstance(plain, Segments):
            result.cut += count - 1
            result.drops[DropReason.RING_FULL] += _seal_rows(keypair, plain, out, mtu)
        else:
            result.drops[DropReason.RING_FULL] += _seal_packet(keypair, plain, out, mtu)
        result.packets += 1
    result.drops += Tally()  # forget the reasons that did not happen
    return result


def plain_packets(packet: memoryview) -> list[bytes] | DropReason:
    """Return the packets that a packet from the TUN stands for: itself, or its segments."""
    header = VirtioHeader.unpack(packet)
    if header.gso_type == virtio.GSO_NONE:
        plain = _plain_packet(header, packet)
        return plain if isinstance(plain, DropReason) else [plain]
    cut = segment(header, packet[virtio.SIZE :], _scratch)
    if isinstance(cut, DropReason):
        return cut
    packets = [row[: cut.length].tobytes() for row in cut.rows]
    packets[-1] = packets[-1][: cut.last_length]
    return packets


def _plain_packet(header: VirtioHeader, packet: memoryview) -> bytes | DropReason:
    """Return a packet that is no super-packet, with its checksum finished."""
    body = bytes(packet[virtio.SIZE :])
    if len(body) + _OVERHEAD > PAYLOAD_BYTES:
        return DropReason.BAD_PACKET
    return finish_checksum(header, body) if header.flags & virtio.NEEDS_CSUM else body


def _seal_packet(keypair: Keypair, plain: bytes, out: RecordStream, mtu: int) -> int:
    """Seal one packet; return how many were dropped for want of a slot: 0 or 1."""
    padded = padded_length(len(plain), mtu)
    length = padded + _OVERHEAD
    record = out.room(length)
    if record is None:
        return 1
    counter = keypair.send_counter
    keypair.send_counter = counter + 1
    at, payload = record.used, record.payload
    _HEADER_LAYOUT.pack_into(payload, at, _TRANSPORT, keypair.remote_index, counter)
    sealed = payload[at + _HEADER : at + length]
    keypair.sealer.encrypt_into(
        _NONCE_LAYOUT.pack(0, counter), plain.ljust(padded, b"\0"), None, sealed
    )
    record.commit(length)
    return 0


def _seal_rows(keypair: Keypair, segments: Segments, out: RecordStream, mtu: int) -> int:
    """Seal every row; return how many were dropped for want of a slot."""
    rows, length, last_length = segments
    count, pitch = len(rows), rows.shape[1]
    padded, last_padded = padded_length(length, mtu), padded_length(last_length, mtu)
    stride = padded + _OVERHEAD
    done = 0
    while done < count:
        record = out.room(stride)
        if record is None:
            return count - done
        fits = min(count - done, record.packets_left(), record.bytes_left() // stride)
        train = min(fits, MAX_TRAIN_DATAGRAMS, max(1, MAX_TRAIN_BYTES // stride))
        lengths = [padded] * train
        if done + train == count:
            lengths[-1] = last_padded
        _seal_train(keypair, done * pitch, pitch, lengths, record)
        done += train
    return 0


def _seal_train(
    keypair: Keypair, start: int, pitch: int, lengths: list[int], record: Record
) -> None:
    """Seal scratch rows from byte `start` on: all of one length, but the last may be shorter."""
    count = len(lengths)
    stride = lengths[0] + _OVERHEAD
    # Not by arange's own start: it would compute with floats above 2^63.
    counters = np.arange(count, dtype=np.uint64) + np.uint64(keypair.send_counter)
    # From here on these counters are used, whatever happens next.
    keypair.send_counter += count
    headers = np.empty(count, _HEADER_FIELDS)
    headers["type"] = _TRANSPORT
    headers["receiver"] = keypair.remote_index
    headers["counter"] = counters
    used = record.used
    payload = record.payload
    target = np.frombuffer(payload, np.uint8)
    heads = target[used : used + count * stride].reshape(count, stride)
    heads[:, :_HEADER] = headers.view(np.uint8).reshape(count, _HEADER)
    plains = [
        _scratch_view[start + row * pitch : start + row * pitch + length]
        for row, length in enumerate(lengths)
    ]
    sealed = [
        payload[used + row * stride + _HEADER : used + row * stride + length + _OVERHEAD]
        for row, length in enumerate(lengths)
    ]
    # One C-level loop over the record.
    list(map(keypair.sealer.encrypt_into, _nonces(counters), plains, repeat(None), sealed))
    record.commit_all([length + _OVERHEAD for length in lengths])


def _nonces(counters: np.typing.NDArray[np.uint64]) -> list[bytes]:
    fields = np.zeros(len(counters), _NONCE_FIELDS)
    fields["counter"] = counters
    raw = fields.tobytes()
    return [raw[at : at + 12] for at in range(0, len(raw), 12)]


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
            _, index, _ = _HEADER_LAYOUT.unpack_from(record.payload, start)
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
    sink = PacketSink(_scratch, out, is_allowed_source, result.drops, congestion, coalesce)
    offset = 0
    for train in cars:
        plain = train.length - _OVERHEAD
        if offset + plain * train.count > _SCRATCH_BYTES:
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
    plain = length - _OVERHEAD
    ends = range(start + length, start + length * count + 1, length)
    bodies = [payload[end - length + _HEADER : end] for end in ends]
    views = (
        [_scratch_view[at : at + plain] for at in range(offset, offset + plain * count, plain)]
        if plain
        else [_scratch_view[offset:offset]] * count
    )
    if count == 1:
        counters = [_HEADER_LAYOUT.unpack_from(payload, start)[2]]
        nonces = [_NONCE_LAYOUT.pack(0, counters[0])]
    else:
        area = np.frombuffer(payload, np.uint8, length * count, start).reshape(count, length)
        numbers = area[:, 8:16].copy().view("<u8")[:, 0]
        nonces = _nonces(numbers)
        counters = numbers.tolist()
    decrypt_into = keypair.opener.decrypt_into
    try:
        list(map(decrypt_into, nonces, bodies, repeat(None), views))
        authentic = [True] * count
    except InvalidTag:
        each = zip(nonces, bodies, views, strict=True)
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
