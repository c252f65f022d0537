"""Session memory: the keypairs of all peers, where a worker's successor finds them.

One page per peer that has or had a session (others are never touched, and cost nothing): three
rows of 144 words. The peer's row in the peer table says which of them are in use; all of it is
written by the worker that owns the peer.

| word of a row | holds |
|---|---|
| 0..129 | the keypair's state: counters and replay window (`protocol/keypair.py`) |
| 130 | local index, and above it the remote index, 32 bits each |
| 131 | created, boot time in ns |
| 132 | when sending asks for a new handshake, boot time in ns; 0 never |
| 133 | 1: this end was the initiator |
| 134..137, 138..141 | the sending and the receiving key |
| 142 | the peer id, plus 1 |
| 143 | the first 8 bytes of our public key: a session of another key seals nothing any more |

| byte of the peer row's sessions word | the row in that slot, 1 to 3; 0 for none |
|---|---|
| 0 | previous |
| 1 | current |
| 2 | next |
| 3 | 1: there may be something in the page |

**Death at any instruction.** The keypair works on its row in place, so counters and window are
always those of this moment. A row is filled while the sessions word does not name it; one store
of that word is the whole change from old slots to new ones; rows it names no more are wiped
after. Whoever takes over finds the old slots or the new ones, and wipes the other rows. The
word is 0 only while all of the page is.

It is mapped by workers and the supervisor alone, on no disk (locked where that is allowed), and
in no core dump.
"""

from __future__ import annotations

from math import inf

from wgmp.orders import row_of
from wgmp.peertable import ROWS, PeerRow, PeerTable
from wgmp.protocol.constants import KEY_SIZE
from wgmp.protocol.keypair import STATE_WORDS, Keypair
from wgmp.protocol.keypairs import Slots
from wgmp.protocol.noise import Identity, SessionKeys
from wgmp.shm import PAGE_BYTES, WORD_BYTES, LastingMemory, SecretSegment, make

_ROWS_PER_PEER = 3
_ROW_WORDS = 144
_INDICES, _CREATED, _REKEY_AT, _INITIATOR = STATE_WORDS, 131, 132, 133
_SENDING, _RECEIVING, _PEER, _IDENTITY = 134, 138, 142, 143
_ROW_BYTES = _ROW_WORDS * WORD_BYTES
_LOW_HALF = 0xFFFF_FFFF
_SLOT_BITS = 8
_SLOT_MASK = (1 << _SLOT_BITS) - 1
_IN_USE = 1 << 3 * _SLOT_BITS


class SessionMemory:
    """The pages of all peers, in `memory` if that is given.

    Made before the first fork; raises OSError without memory.
    """

    def __init__(self, memory: LastingMemory | None = None) -> None:
        self._segment = make(memory, "sessions", ROWS * PAGE_BYTES, SecretSegment)
        self._identity = 0

    @property
    def identity(self) -> int:
        """The first 8 bytes of the public key that sessions are made with now, 0 for none."""
        return self._identity

    def use(self, identity: Identity | None) -> None:
        """Owner: sessions are made with this key from now on."""
        key = b"" if identity is None else identity.public_key[:WORD_BYTES]
        self._identity = int.from_bytes(key, "little")

    def of(self, peer: int, row: PeerRow, orderly: bool) -> PeerSessions:
        """Owner: return the sessions of the peer whose row in the peer table is `row`.

        `orderly`: whoever had them before has ended in order.
        """
        return PeerSessions(self, self._segment, peer, row, orderly)

    def forget(self, peer: int, row: PeerRow) -> None:
        """Owner: leave nothing of the peer's sessions; nobody works with them."""
        if row.sessions():
            start = row_of(peer) * PAGE_BYTES
            self._segment.bytes[start : start + PAGE_BYTES] = bytes(PAGE_BYTES)
            row.set_sessions(0)

    def lock(self) -> bool:
        """Keep this process's pages out of swap; return whether that is allowed."""
        return self._segment.lock()

    def close(self) -> None:
        """Unmap the memory from this process, which has no business with it."""
        self._segment.close()


def forget_unknown(memory: SessionMemory, table: PeerTable, worker: int, known: set[int]) -> None:
    """Worker's successor: forget the sessions of its rows whose peers are not `known` any more."""
    for row in table.with_sessions():
        peer = table.tenant(row)
        if table.owner(row) == worker and peer not in known:
            memory.forget(row, table.row(row))


class PeerSessions:
    """One peer's page (a `SessionStore`). Nothing of it is touched before there is a session."""

    __slots__ = ("_holders", "_memory", "_orderly", "_peer", "_row", "_segment")

    def __init__(
        self,
        memory: SessionMemory,
        segment: SecretSegment,
        peer: int,
        row: PeerRow,
        orderly: bool,
    ) -> None:
        self._memory = memory
        self._segment = segment
        self._peer = peer
        self._row = row
        self._orderly = orderly
        self._holders: list[Keypair | None] = [None] * _ROWS_PER_PEER

    def save(self, slots: Slots) -> None:
        """Keep these keypairs and no others; a new one's state moves into its row."""
        for keypair in slots:
            if keypair is not None and keypair not in self._holders:
                self._write(self._free_row(), keypair)
        if any(self._holders):
            self._commit(slots)

    def load(self) -> Slots:
        """Return the keypairs in the slots. A word or a row that makes no sense is no session."""
        word = self._row.sessions()
        numbers = [(word >> slot * _SLOT_BITS & _SLOT_MASK) - 1 for slot in range(_ROWS_PER_PEER)]
        used = [number for number in numbers if number >= 0]
        sound = len(set(used)) == len(used) and all(n < _ROWS_PER_PEER for n in used)
        found = [self._read(number) if sound and number >= 0 else None for number in numbers]
        slots = Slots(*found)
        for keypair in (slots.previous, slots.current):
            if keypair is not None:
                keypair.confirmed = True
        if word:
            self._commit(slots)
        return slots

    def _free_row(self) -> int:
        """Return a row that nobody holds. When all are held, previous leaves in any case."""
        word = self._row.sessions()
        if None not in self._holders:
            self._row.set_sessions(word & ~_SLOT_MASK)
            self._wipe((word & _SLOT_MASK) - 1)
        elif not word:
            self._row.set_sessions(_IN_USE)
        return self._holders.index(None)

    def _commit(self, slots: Slots) -> None:
        """Let the word say what is in the slots, and wipe the other rows."""
        word = _IN_USE
        for slot, keypair in enumerate(slots):
            if keypair is not None:
                word |= self._holders.index(keypair) + 1 << slot * _SLOT_BITS
        self._row.set_sessions(word)
        for number, keypair in enumerate(self._holders):
            if keypair is None or keypair not in slots:
                self._wipe(number)
        if not any(slots):
            self._row.set_sessions(0)

    def _start(self, number: int) -> int:
        return row_of(self._peer) * PAGE_BYTES + number * _ROW_BYTES

    def _write(self, number: int, keypair: Keypair) -> None:
        words, start = self._segment.words, self._start(number) // WORD_BYTES
        keys = keypair.keys
        words[start + _INDICES] = keys.remote_index << 32 | keys.local_index
        words[start + _CREATED] = int(keypair.created_at * 1e9)
        words[start + _REKEY_AT] = 0 if keypair.rekey_at == inf else int(keypair.rekey_at * 1e9)
        words[start + _INITIATOR] = keys.is_initiator
        self._put(number, _SENDING, keys.sending)
        self._put(number, _RECEIVING, keys.receiving)
        words[start + _IDENTITY] = self._memory.identity
        words[start + _PEER] = self._peer + 1
        keypair.move(words[start : start + STATE_WORDS])
        self._holders[number] = keypair

    def _read(self, number: int) -> Keypair | None:
        words, start = self._segment.words, self._start(number) // WORD_BYTES
        if words[start + _PEER] != self._peer + 1:
            return None
        indices = words[start + _INDICES]
        keys = SessionKeys(
            self._get(number, _SENDING),
            self._get(number, _RECEIVING),
            indices & _LOW_HALF,
            indices >> 32,
            bool(words[start + _INITIATOR]),
        )
        state = words[start : start + STATE_WORDS]
        keypair = Keypair(keys, words[start + _CREATED] / 1e9, state)
        rekey_at = words[start + _REKEY_AT]
        keypair.rekey_at = rekey_at / 1e9 if rekey_at else inf
        if not self._orderly:
            keypair.replay.close()
        if words[start + _IDENTITY] != self._memory.identity:
            keypair.retire()
        self._holders[number] = keypair
        return keypair

    def _put(self, number: int, word: int, key: bytes) -> None:
        at = self._start(number) + word * WORD_BYTES
        self._segment.bytes[at : at + KEY_SIZE] = key

    def _get(self, number: int, word: int) -> bytes:
        at = self._start(number) + word * WORD_BYTES
        return bytes(self._segment.bytes[at : at + KEY_SIZE])

    def _wipe(self, number: int) -> None:
        self._holders[number] = None
        at = self._start(number)
        self._segment.bytes[at : at + _ROW_BYTES] = bytes(_ROW_BYTES)
