"""Sealing: records of packets from the TUN become records of transport datagrams.

The reference fast path's way out. A super-packet's segments are laid out, given their fields and
sealed all at once; what comes out is, packet by packet, what `Keypair.seal` says.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from itertools import repeat
from typing import Final

from wgmp.counters import Block, Counter
from wgmp.fastpath import virtio
from wgmp.fastpath.segment import Segments, finish_checksum, segment
from wgmp.fastpath.transport import (
    HEADER_BYTES,
    HEADER_LAYOUT,
    NONCE_LAYOUT,
    OVERHEAD,
    scratch,
    scratch_view,
)
from wgmp.fastpath.virtio import VirtioHeader
from wgmp.orders import row_of
from wgmp.peerdrops import PeerDrops
from wgmp.protocol.constants import REJECT_AFTER_MESSAGES
from wgmp.protocol.keypair import Keypair, padded_length
from wgmp.protocol.messages import MessageType
from wgmp.protocol.outcome import DropReason, Endpoint
from wgmp.record import (
    MAX_TRAIN_BYTES,
    MAX_TRAIN_DATAGRAMS,
    PAYLOAD_BYTES,
    Kind,
    Record,
    ecn_flags,
    unpack_endpoint,
)
from wgmp.ring import RingReader
from wgmp.stream import Label, RecordStream

_TRANSPORT: Final = MessageType.TRANSPORT.value

# Records of one peer taken in one call, so that others get their turn.
_BURST: Final = 8


class Sealer:
    """Seals into the stream `out`, at most `burst` records a call. See `interface.Sealer`."""

    def __init__(
        self, out: RecordStream, counters: Block, drops: PeerDrops, burst: int = _BURST
    ) -> None:
        self._out = out
        self.counters = counters
        self._drops = drops
        self._burst = burst
        self._label = Label(Kind.DATAGRAMS)

    def seal(
        self, ring: RingReader, keypair: Keypair, peer: int, endpoint: bytes, mtu: int
    ) -> tuple[int, int]:
        """Seal the ring's records from the oldest on, while they are packets of `peer`."""
        destination = unpack_endpoint(endpoint)
        datagrams = length = 0
        for _ in range(self._burst):
            record = ring.peek()
            if record is None or record.kind != Kind.PACKETS or record.peer != peer:
                break
            if keypair.send_counter + record.used > REJECT_AFTER_MESSAGES:
                break
            self.counters.record_in(record.count, record.used)
            if record.shortest() < virtio.SIZE:
                self.counters.drop(DropReason.RING_CORRUPT, record.count)
            else:
                out = self._out
                out.start(self._labelled(peer, ecn_flags(record.ecn), destination))
                sealed = seal(keypair, record.packets(), out, mtu)
                out.flush()
                if sealed.cut:
                    self.counters.add(Counter.CUT, sealed.cut)
                for reason, count in sealed.drops.items():
                    self.counters.drop(reason, count)
                    self._drops.add(row_of(peer), reason, count)
                datagrams += out.sent_packets
                length += out.sent_bytes
            ring.release()
        return datagrams, length

    def _labelled(self, peer: int, flags: int, endpoint: Endpoint | None) -> Label:
        """Return the label; the same one as before where nothing has changed."""
        last = self._label
        if last.peer != peer or last.flags != flags or last.endpoint is not endpoint:
            self._label = Label(Kind.DATAGRAMS, peer, flags, endpoint)
        return self._label


class Sealed:
    """What `seal` did: packets it dealt with, from the first on, and the drops among them.

    Packets behind those found the keypair's counter at its end: they need another session. `cut`:
    packets that super-packets were cut into, less the super-packets.
    """

    __slots__ = ("cut", "drops", "packets")

    def __init__(self) -> None:
        self.packets = self.cut = 0
        self.drops: dict[DropReason, int] = defaultdict(int)


def seal(keypair: Keypair, packets: Sequence[memoryview], out: RecordStream, mtu: int) -> Sealed:
    """Seal packets from the TUN into transport datagrams.

    `packets`: of one peer, each behind its virtio header, borrowed until return. `mtu`: bytes
    that padding does not pass. Datagrams of one super-packet follow one another in a record.
    """
    result = Sealed()
    dropped = 0
    for packet in packets:
        if virtio.is_super(packet):
            header = VirtioHeader.unpack(packet)
            plain: bytes | Segments | DropReason = segment(header, packet[virtio.SIZE :], scratch)
        else:
            plain = _plain_packet(packet)
        count = len(plain.rows) if isinstance(plain, Segments) else 1
        if isinstance(plain, DropReason):
            result.drops[plain] += 1
        elif keypair.send_counter + count > REJECT_AFTER_MESSAGES:
            break
        elif isinstance(plain, Segments):
            result.cut += count - 1
            dropped += _seal_rows(keypair, plain, out, mtu)
        else:
            dropped += _seal_packet(keypair, plain, out, mtu)
        result.packets += 1
    if dropped:
        result.drops[DropReason.RING_FULL] += dropped
    return result


def plain_packets(packet: memoryview) -> list[bytes] | DropReason:
    """Return the packets that a packet from the TUN stands for: itself, or its segments."""
    if not virtio.is_super(packet):
        plain = _plain_packet(packet)
        return plain if isinstance(plain, DropReason) else [plain]
    cut = segment(VirtioHeader.unpack(packet), packet[virtio.SIZE :], scratch)
    if isinstance(cut, DropReason):
        return cut
    packets = [row[: cut.length].tobytes() for row in cut.rows]
    packets[-1] = packets[-1][: cut.last_length]
    return packets


def _plain_packet(packet: memoryview) -> bytes | DropReason:
    """Return a packet that is no super-packet, with its checksum finished."""
    body = bytes(packet[virtio.SIZE :])
    if len(body) + OVERHEAD > PAYLOAD_BYTES:
        return DropReason.BAD_PACKET
    if virtio.needs_checksum(packet):
        return finish_checksum(VirtioHeader.unpack(packet), body)
    return body


def _seal_packet(keypair: Keypair, plain: bytes, out: RecordStream, mtu: int) -> int:
    """Seal one packet; return how many were dropped for want of a slot: 0 or 1."""
    padded = padded_length(len(plain), mtu)
    length = padded + OVERHEAD
    record = out.room(length)
    if record is None:
        return 1
    counter = keypair.send_counter
    keypair.send_counter = counter + 1
    at, payload = record.used, record.payload
    HEADER_LAYOUT.pack_into(payload, at, _TRANSPORT, keypair.remote_index, counter)
    sealed = payload[at + HEADER_BYTES : at + length]
    keypair.sealer.encrypt_into(
        NONCE_LAYOUT.pack(0, counter), plain.ljust(padded, b"\0"), None, sealed
    )
    record.commit(length)
    return 0


def _seal_rows(keypair: Keypair, segments: Segments, out: RecordStream, mtu: int) -> int:
    """Seal every row; return how many were dropped for want of a slot."""
    rows, length, last_length = segments
    count, pitch = len(rows), rows.shape[1]
    padded, last_padded = padded_length(length, mtu), padded_length(last_length, mtu)
    stride = padded + OVERHEAD
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
    counter = keypair.send_counter
    # From here on these counters are used, whatever happens next.
    keypair.send_counter = counter + count
    counters = range(counter, counter + count)
    at, stride, payload = record.used, lengths[0] + OVERHEAD, record.payload
    places = range(at, at + count * stride, stride)
    plains = [
        scratch_view[row : row + length]
        for row, length in zip(range(start, start + count * pitch, pitch), lengths, strict=True)
    ]
    sealed = [
        payload[place + HEADER_BYTES : place + length + OVERHEAD]
        for place, length in zip(places, lengths, strict=True)
    ]
    # Loops that are C's, one after the other.
    common = repeat(payload), places, repeat(_TRANSPORT), repeat(keypair.remote_index), counters
    deque(map(HEADER_LAYOUT.pack_into, *common), 0)
    nonces = map(NONCE_LAYOUT.pack, repeat(0), counters)
    deque(map(keypair.sealer.encrypt_into, nonces, plains, repeat(None), sealed), 0)
    record.commit_all([length + OVERHEAD for length in lengths])
