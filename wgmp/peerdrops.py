"""Each peer's drops by reason, counted by its worker in memory that idle peers leave alone.

| part | words | written by |
|---|---|---|
| totals | one per row of the peer table: all drops of its tenant | the owning worker |
| blocks | 64 per row, by `DropReason` | the owning worker |

The kernel gives a page of this memory when it is first touched. So nobody looks at a block whose
total is 0, and a peer without a drop costs its 8 bytes.
"""

from __future__ import annotations

from wgmp.protocol.outcome import DropReason
from wgmp.shm import WORD_BYTES, LastingMemory, Segment, make

BLOCK_WORDS = 64


class PeerDrops:
    """The drops of the peers in `rows` rows, in `memory` if that is given. `bytes`: all of them."""

    __slots__ = ("_rows", "_words", "bytes")

    def __init__(self, rows: int, memory: LastingMemory | None = None) -> None:
        self._rows = rows
        segment = make(memory, "peer drops", rows * (1 + BLOCK_WORDS) * WORD_BYTES, Segment)
        self.bytes = segment.bytes
        self._words = segment.words

    def add(self, row: int, reason: DropReason, count: int) -> None:
        """Owner: count `count` drops of the row's tenant."""
        self._words[self._rows + row * BLOCK_WORDS + reason] += count
        self._words[row] += count

    def clear(self, row: int) -> None:
        """Owner: the row has another tenant."""
        if self._words[row]:
            start = self._rows + row * BLOCK_WORDS
            for word in range(start, start + BLOCK_WORDS):
                self._words[word] = 0
            self._words[row] = 0

    def by_reason(self, row: int) -> dict[str, int]:
        """Return the drops of the row's tenant that happened, by the reason's lower-case name."""
        if not self._words[row]:
            return {}
        start = self._rows + row * BLOCK_WORDS
        counts = ((reason.name.lower(), self._words[start + reason]) for reason in DropReason)
        return {name: count for name, count in counts if count}
