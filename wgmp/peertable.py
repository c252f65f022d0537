"""The peer table and the index table: what several processes know of a peer.

**Peer table**, one row of 16 words per peer; no keys in it.

| word | field | written by |
|---|---|---|
| 0 | owner: the worker's number | the supervisor |
| 1 | peer id of the row's tenant | the owning worker |
| 2 | version: odd while the endpoint is being written | the owning worker |
| 3, 4 | bytes received, bytes sent (outer, as `wg` counts them) | the owning worker |
| 5 | last handshake, Unix nanoseconds, 0 never | the owning worker |
| 6..11 | endpoint, 44 bytes, and the serial of the order that set one last | the owning worker |
| 12, 13 | greatest TAI64N timestamp received | the owning worker |
| 14 | rows of session memory in use, see `wgmp/sessions.py` | the owning worker |
| 15 | when an initiation may be sent again, boot time in ms, above 8 bits of attempts | the same |

The row outlives the worker, so its successor knows where the peer was last seen and which
initiations are replays. Drops by peer are in memory of their own (peerdrops.py).

**Index table**, one word per entry: receiver index in the low half, row + 1 in the high half,
0 when free. An index's entry is its low bits, so the UDP reader finds the owner of a datagram
with two loads. A worker draws an index at random but for the class bits, which are its number:
free entries of a class are written only by that class's worker, used ones only by the worker
that owns the peer. An observer learns the class: log2 of the number of workers, in bits.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass

from wgmp.orders import row_of
from wgmp.peerdrops import PeerDrops
from wgmp.protocol.outcome import DropReason, Endpoint
from wgmp.record import ENDPOINT_BYTES, pack_endpoint, unpack_endpoint
from wgmp.shm import WORD_BYTES, LastingMemory, Segment, keep_order, make

ROWS = 16_384
ROW_WORDS = 16

OWNER, _TENANT, _VERSION, RX, TX, _HANDSHAKE, _ENDPOINT, _TIMESTAMP = 0, 1, 2, 3, 4, 5, 6, 12
_SESSIONS, _INITIATIONS = 14, 15
_MOST_ATTEMPTS = 255
_TIMESTAMP_BYTES = 12
_NO_TIMESTAMP = bytes(_TIMESTAMP_BYTES)
_SERIAL_BYTES = 4

# Three keypairs and a handshake for each of 16,384 peers fill half of it.
INDEX_ENTRIES = 131_072
_INDEX_MASK = INDEX_ENTRIES - 1
_LOW_HALF = 0xFFFF_FFFF
_ATTEMPTS = 10_000


@dataclass(frozen=True, slots=True)
class RowFigures:
    """What a row says of its peer. `last_handshake_ns`: Unix nanoseconds, 0 never."""

    endpoint: Endpoint | None
    last_handshake_ns: int
    rx_bytes: int
    tx_bytes: int


class PeerTable:
    """The rows of all peers, in `memory` if that is given.

    `bytes`: all rows; `peer_drops`: each peer's drops.
    """

    def __init__(self, memory: LastingMemory | None = None) -> None:
        self._segment = make(memory, "peers", ROWS * ROW_WORDS * WORD_BYTES, Segment)
        self._words = self._segment.words
        self.bytes = self._segment.bytes
        self.peer_drops = PeerDrops(ROWS, memory)

    def set_owner(self, peer: int, worker: int) -> None:
        """Supervisor: let `worker` own the peer from now on."""
        self._words[row_of(peer) * ROW_WORDS + OWNER] = worker

    def owner(self, row: int) -> int:
        """Return the number of the worker that owns the row's peer."""
        return self._words[row * ROW_WORDS + OWNER]

    def row(self, peer: int) -> PeerRow:
        """Return the peer's row, for its owning worker."""
        return PeerRow(self._segment, self.peer_drops, peer)

    def tenant(self, row: int) -> int:
        """Return the peer id of the row's tenant, -1 for none."""
        return self._words[row * ROW_WORDS + _TENANT] - 1

    def with_sessions(self) -> list[int]:
        """Return the rows that say there are sessions."""
        words = self._words[_SESSIONS::ROW_WORDS].tolist()
        return [row for row, word in enumerate(words) if word]

    def figures(self, peer: int) -> RowFigures:
        """Return what the row says; zeros when its tenant is another peer (or none yet)."""
        row = self.row(peer)
        return row.figures() if row.is_tenant() else RowFigures(None, 0, 0, 0)

    def drops(self, peer: int) -> dict[str, int]:
        """Return the peer's drops that happened, by the reason's lower-case name."""
        return self.peer_drops.by_reason(row_of(peer)) if self.row(peer).is_tenant() else {}


class PeerRow:
    """One peer's row. `adopt` makes the peer its tenant; only then may it be written."""

    # Offsets into the whole table: a view of its own for each of thousands of rows costs memory.
    __slots__ = ("_bytes", "_drops", "_peer", "_start", "_words")

    def __init__(self, segment: Segment, drops: PeerDrops, peer: int) -> None:
        self._words = segment.words
        self._bytes = segment.bytes
        self._start = row_of(peer) * ROW_WORDS
        self._peer = peer
        self._drops = drops

    def is_tenant(self) -> bool:
        """Return whether the row speaks of this peer."""
        # The id is stored with one added: a fresh row's zero is nobody's.
        found = bool(self._words[self._start + _TENANT] == self._peer + 1)
        keep_order()
        return found

    def adopt(self) -> bool:
        """Owner: take the row over; return whether a predecessor already kept it for this peer."""
        if self.is_tenant():
            version = self._start + _VERSION
            self._words[version] += self._words[version] & 1  # it died while writing
            return True
        self._words[self._start + _TENANT] = 0
        keep_order()
        for word in range(_VERSION, ROW_WORDS):
            self._words[self._start + word] = 0
        self._drops.clear(row_of(self._peer))
        keep_order()
        self._words[self._start + _TENANT] = self._peer + 1
        return False

    def abandon(self) -> None:
        """Owner: the peer is gone; the row speaks of nobody."""
        self._words[self._start + _TENANT] = 0

    def add_received(self, count: int) -> None:
        """Owner: count authenticated bytes received."""
        self._words[self._start + RX] += count

    def add_sent(self, count: int) -> None:
        """Owner: count bytes sent."""
        self._words[self._start + TX] += count

    def drop(self, reason: DropReason, count: int) -> None:
        """Owner: count drops of what came from the peer, or was for it."""
        self._drops.add(row_of(self._peer), reason, count)

    def set_last_handshake(self, unix_ns: int) -> None:
        """Owner: a handshake completed."""
        self._words[self._start + _HANDSHAKE] = unix_ns

    def set_endpoint(self, endpoint: Endpoint | None, serial: int) -> None:
        """Owner: the peer is at `endpoint` now; `serial`: of the order obeyed last (u32)."""
        packed = bytes(ENDPOINT_BYTES) if endpoint is None else pack_endpoint(endpoint)
        self._words[self._start + _VERSION] += 1
        keep_order()
        self._put(_ENDPOINT, packed + serial.to_bytes(_SERIAL_BYTES, "little"))
        keep_order()
        self._words[self._start + _VERSION] += 1

    def set_greatest_timestamp(self, timestamp: bytes) -> None:
        """Owner: remember the newest initiation's 12-byte TAI64N label."""
        self._put(_TIMESTAMP, timestamp)

    def set_sessions(self, word: int) -> None:
        """Owner: which rows of session memory are in which slot. One store changes them all."""
        self._words[self._start + _SESSIONS] = word

    def sessions(self) -> int:
        """Return the word last set, 0 for no sessions."""
        return self._words[self._start + _SESSIONS]

    def set_initiations(self, again_at: float, attempts: int) -> None:
        """Owner: no initiation before `again_at` (boot time in seconds); `attempts` so far."""
        milliseconds = int(max(0.0, again_at) * 1000)  # -inf: it may be sent now
        self._words[self._start + _INITIATIONS] = milliseconds << 8 | min(attempts, _MOST_ATTEMPTS)

    def initiations(self) -> tuple[float, int]:
        """Return what was set last, to the millisecond."""
        word = self._words[self._start + _INITIATIONS]
        return (word >> 8) / 1000, word & _MOST_ATTEMPTS

    def greatest_timestamp(self) -> bytes:
        """Return the 12 bytes of the newest initiation's label, zeros for none."""
        timestamp = self._get(_TIMESTAMP, _TIMESTAMP_BYTES)
        return timestamp if any(timestamp) else _NO_TIMESTAMP  # one object for all who have none

    def endpoint(self) -> Endpoint | None:
        """Return the endpoint last written, or None; never half of one and half of another."""
        words, version_at = self._words, self._start + _VERSION
        for _ in range(_ATTEMPTS):
            version = words[version_at]
            keep_order()
            endpoint = unpack_endpoint(self._get(_ENDPOINT, ENDPOINT_BYTES))
            keep_order()
            if not version & 1 and words[version_at] == version:
                return endpoint
        return None  # its writer died half-way; the successor writes it anew

    def endpoint_serial(self) -> int:
        """Owner: return what came with the endpoint last written, 0 for none."""
        packed = self._get(_ENDPOINT, ENDPOINT_BYTES + _SERIAL_BYTES)
        return int.from_bytes(packed[ENDPOINT_BYTES:], "little")

    def figures(self) -> RowFigures:
        """Return the row's figures."""
        words, start = self._words, self._start
        return RowFigures(
            self.endpoint(), words[start + _HANDSHAKE], words[start + RX], words[start + TX]
        )

    def _get(self, word: int, length: int) -> bytes:
        at = (self._start + word) * WORD_BYTES
        return bytes(self._bytes[at : at + length])

    def _put(self, word: int, content: bytes) -> None:
        at = (self._start + word) * WORD_BYTES
        self._bytes[at : at + len(content)] = content


class IndexTable:
    """Which row a receiver index belongs to; in `memory` if that is given. `bytes`: all entries."""

    def __init__(self, memory: LastingMemory | None = None) -> None:
        segment = make(memory, "indices", INDEX_ENTRIES * WORD_BYTES, Segment)
        self.bytes = segment.bytes
        self._words = segment.words

    def row(self, index: int) -> int | None:
        """Return the row that the u32 `index` belongs to, or None."""
        word = self._words[index & _INDEX_MASK]
        if word & _LOW_HALF != index or not word >> 32:
            return None
        return (word >> 32) - 1

    def draw(self, peer: int, worker: int, workers: int, randomness: Callable[[int], bytes]) -> int:
        """Worker: claim a random index of the worker's class for the peer.

        Raises RuntimeError when the table is practically full of the class's indices.
        """
        class_mask = (1 << (workers - 1).bit_length()) - 1
        for _ in range(_ATTEMPTS):
            index = int.from_bytes(randomness(4), "little") & ~class_mask | worker
            if not self._words[index & _INDEX_MASK]:
                self._words[index & _INDEX_MASK] = (row_of(peer) + 1) << 32 | index
                return index
        raise RuntimeError("no receiver index is free")

    def free(self, index: int) -> None:
        """Worker: give an index back. Freeing one that is free already does nothing."""
        if self._words[index & _INDEX_MASK] & _LOW_HALF == index:
            self._words[index & _INDEX_MASK] = 0

    def free_others(self, worker: int, peers: PeerTable, kept: Container[int]) -> None:
        """Worker's successor: give back what the predecessor held but for the indices `kept`."""
        for entry, word in enumerate(self._words.tolist()):
            mine = word and peers.owner((word >> 32) - 1) == worker
            if mine and word & _LOW_HALF not in kept:
                self._words[entry] = 0
