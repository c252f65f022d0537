"""Records: what a ring's slot holds. One record is many packets of one kind and one peer.

```
byte 0    header    16 x u32, see the table
    64    endpoint  outer address of the datagrams (Endpoint, 44 bytes)
   128    lengths   256 x u32, one per packet
  1152    payload   the packets, one behind the other
```

| u32 | field | |
|---|---|---|
| 0 | kind | `Kind` |
| 1 | count | packets in the record, 0..256 |
| 2 | used | bytes of payload, the sum of the lengths |
| 3 | flags | `HANDSHAKE`: datagrams that carry DSCP 0x88; bits 8, 9: `ecn_flags` |
| 4, 5 | peer | peer id, u64 |
| 6..15 | annotation | of copies in tap rings only (tap.py), five u64 |

A packet's place in the payload follows from the lengths before it, so datagrams of one size
already lie as the kernel's segmentation offload wants them. The writer fills the slot through
`begin`, `commit`, `append`; `finish` writes the header, and the ring publishes. The
reader trusts nothing: `check` compares every length with the slot before anything is used.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from enum import IntEnum, unique
from functools import lru_cache
from itertools import groupby

from wgmp.protocol import ecn
from wgmp.protocol.outcome import Endpoint

MAX_PACKETS = 256
ENDPOINT_OFFSET = 64
LENGTHS_OFFSET = 128
PAYLOAD_OFFSET = LENGTHS_OFFSET + 4 * MAX_PACKETS

# A full-size IP packet of 65,535 bytes with its virtio header or sealed, in whole cache lines.
PAYLOAD_BYTES = 66_048
SLOT_BYTES = PAYLOAD_OFFSET + PAYLOAD_BYTES

# Handshake datagrams are at most 148 bytes, an opened initiation 288. Ten fit.
SMALL_SLOT_BYTES = PAYLOAD_OFFSET + 2_048

# A train is what one UDP_SEGMENT send or UDP_GRO receive carries: linux/udp.h,
# UDP_MAX_SEGMENTS, and the most an IPv4 datagram has (65,535 less IP and UDP headers).
MAX_TRAIN_DATAGRAMS = 64
MAX_TRAIN_BYTES = 65_507

_ANNOTATION_OFFSET = 24

HANDSHAKE = 1
ECN_SHIFT = 8


def ecn_flags(ecn: int) -> int:
    """Return the flags that say an ECN field, 0..3: the packets' own, or the datagrams' outer."""
    return ecn << ECN_SHIFT


_HEADER = struct.Struct("=IIIIQ")
_ENDPOINT = struct.Struct("<BBHII16s16s")
# Each record has one, and nearly always it is one of a few.
_ENDPOINTS_KNOWN = 4096


@unique
class Kind(IntEnum):
    """What the packets of a record are."""

    PACKETS = 1  # inner packets of one peer, each behind its virtio header
    DATAGRAMS = 2  # outer datagrams to or from one endpoint
    HANDSHAKE_MESSAGES = 3  # outer handshake datagrams, not yet looked into
    OPENED_INITIATION = 4  # one initiation whose static key admission has decrypted
    ADDRESSED_MESSAGES = 5  # handshake datagrams from anywhere, each behind its packed endpoint


@lru_cache(_ENDPOINTS_KNOWN)
def pack_endpoint(endpoint: Endpoint) -> bytes:
    """Return the 44 bytes that stand for an endpoint in shared memory."""
    return _ENDPOINT.pack(
        len(endpoint.address),
        len(endpoint.source),
        endpoint.port,
        endpoint.scope_id,
        endpoint.source_ifindex,
        endpoint.address,
        endpoint.source,
    )


def unpack_endpoint(buffer: memoryview | bytes, offset: int = 0) -> Endpoint | None:
    """Return the endpoint packed at `offset`, or None where there is no valid one."""
    packed = bytes(buffer[offset : offset + ENDPOINT_BYTES])
    return _unpack_endpoint(packed) if len(packed) == ENDPOINT_BYTES else None


@lru_cache(_ENDPOINTS_KNOWN)
def _unpack_endpoint(packed: bytes) -> Endpoint | None:
    family, source_family, port, scope_id, ifindex, address, source = _ENDPOINT.unpack(packed)
    if family not in (4, 16) or source_family not in (0, family):
        return None
    return Endpoint(address[:family], port, scope_id, source[:source_family], ifindex)


ENDPOINT_BYTES = _ENDPOINT.size


class Record:
    """One slot, seen as a record. Made once per slot and used again each time round.

    `slot`: the slot's memory, at least PAYLOAD_OFFSET + 1 bytes, borrowed for the record's life.
    """

    __slots__ = (
        "_annotation",
        "_capacity",
        "_lengths",
        "_sizes",
        "_slot",
        "count",
        "flags",
        "kind",
        "payload",
        "peer",
        "used",
    )

    def __init__(self, slot: memoryview) -> None:
        self._slot = slot
        self._annotation = slot[_ANNOTATION_OFFSET:ENDPOINT_OFFSET].cast("Q")
        self._lengths = slot[LENGTHS_OFFSET:PAYLOAD_OFFSET].cast("I")
        self.payload = slot[PAYLOAD_OFFSET:]
        self._capacity = len(self.payload)
        self._sizes: list[int] = []  # the lengths once they are in the slot, or were checked
        self.kind = 0
        self.count = 0
        self.used = 0
        self.flags = 0
        self.peer = 0

    # --- the writer's side ---

    def begin(self, kind: Kind, peer: int = 0, flags: int = 0) -> None:
        """Start an empty record in the slot."""
        self.kind = kind
        self.peer = peer
        self.flags = flags
        self.count = 0
        self.used = 0
        self._sizes = []

    def set_endpoint(self, endpoint: Endpoint) -> None:
        """Say where the datagrams come from or go to."""
        self._slot[ENDPOINT_OFFSET : ENDPOINT_OFFSET + ENDPOINT_BYTES] = pack_endpoint(endpoint)

    def commit(self, length: int) -> None:
        """Count `length` bytes that were written at `payload[used:]` as the next packet."""
        self._lengths[self.count] = length
        self._sizes.append(length)
        self.count += 1
        self.used += length

    def append(self, packet: bytes | memoryview) -> None:
        """Copy one packet in. The caller knows that it fits."""
        length = len(packet)
        self.payload[self.used : self.used + length] = packet
        self.commit(length)

    def commit_all(self, lengths: list[int]) -> None:
        """Count packets that were written at `payload[used:]`, one behind the other."""
        if len(lengths) == 1:
            self.commit(lengths[0])
            return
        count = self.count + len(lengths)
        self._lengths[self.count : count] = memoryview(array("I", lengths))
        self._sizes += lengths
        self.count = count
        self.used += sum(lengths)

    def packets_left(self) -> int:
        """Return how many more packets the record can count."""
        return MAX_PACKETS - self.count

    def bytes_left(self) -> int:
        """Return how many more bytes of payload there is room for."""
        return self._capacity - self.used

    def finish(self) -> None:
        """Write the header. Called by the ring's `publish`."""
        _HEADER.pack_into(self._slot, 0, self.kind, self.count, self.used, self.flags, self.peer)

    def annotate(self, *words: int) -> None:
        """Write an annotation: five u64."""
        for number, word in enumerate(words):
            self._annotation[number] = word

    # --- the reader's side ---

    def check(self) -> bool:
        """Take header and lengths over; return False when those do not fit the slot."""
        self.kind, count, used, self.flags, self.peer = _HEADER.unpack_from(self._slot)
        self.count, self.used = count, used
        if count > MAX_PACKETS or used > self._capacity:
            return False
        self._sizes = [self._lengths[0]] if count == 1 else self._lengths[:count].tolist()
        return bool(sum(self._sizes) == used)

    def lengths(self) -> list[int]:
        """Return the packets' lengths in bytes: the record's own list."""
        return self._sizes

    def length_runs(self) -> Iterator[tuple[int, int]]:
        """Yield (length, count) of each run of packets of one length."""
        for length, run in groupby(self.lengths()):
            yield length, len(list(run))

    def shortest(self) -> int:
        """Return the length of the shortest packet in bytes, 0 without any."""
        return min(self._sizes, default=0)

    def trains(self, first: int) -> Iterator[tuple[memoryview, int, int]]:
        """Yield (datagrams, length of each, count) of each train, from packet `first` on.

        All of a train have that length but the last, which may be shorter.
        """
        lengths = self._sizes
        if len(lengths) == 1 and not first:
            yield self.payload[: self.used], self.used, 1
            return
        at = sum(lengths[:first])
        while first < len(lengths):
            size = lengths[first]
            most = min(len(lengths) - first, MAX_TRAIN_DATAGRAMS, MAX_TRAIN_BYTES // max(1, size))
            count = max(1, most)
            alike = lengths[first : first + count]
            if alike.count(size) != count:
                # It ends behind the first that is shorter, or before one that is longer.
                count = next(n for n, length in enumerate(alike) if length != size)
                count += alike[count] < size
            total = sum(lengths[first : first + count])
            yield self.payload[at : at + total], size, count
            at += total
            first += count

    def packets(self) -> list[memoryview]:
        """Return a view of each packet, valid until the ring's `release` or `publish`."""
        payload = self.payload
        views = []
        at = 0
        for length in self._sizes:
            end = at + length
            views.append(payload[at:end])
            at = end
        return views

    def annotation(self) -> list[int]:
        """Return the annotation's five words."""
        return self._annotation.tolist()

    @property
    def ecn(self) -> int:
        """The ECN field that the flags say."""
        return self.flags >> ECN_SHIFT & ecn.MASK

    def packed_endpoint(self) -> bytes:
        """Return the 44 bytes of the record's endpoint, valid or not."""
        return bytes(self._slot[ENDPOINT_OFFSET : ENDPOINT_OFFSET + ENDPOINT_BYTES])

    def endpoint(self) -> Endpoint | None:
        """Return the record's endpoint, or None where it has no valid one."""
        return unpack_endpoint(self._slot, ENDPOINT_OFFSET)

    def wipe(self) -> None:
        """Overwrite the payload in use with zeros: it held secrets."""
        self.payload[: self.used] = bytes(self.used)
