"""The replay window: which transport counters of a keypair have been seen (RFC 6479).

A ring of 64-bit blocks holds one bit per counter, REPLAY_BITS in all. Moving forward clears
whole blocks, so nothing is ever shifted. A counter further than REPLAY_WINDOW behind the
highest is too old to tell and refused, as in the kernel (receive.c, counter_validate).

The window is words 1.. of a keypair's state (keypair.py): the highest counter plus 1, then the
blocks.
"""

from __future__ import annotations

from typing import Final

from wgmp.protocol.constants import REJECT_AFTER_MESSAGES, REPLAY_BITS, REPLAY_WINDOW

_BLOCK_SHIFT: Final = 6
_BIT_MASK: Final = 63
BITMAP_WORDS: Final = REPLAY_BITS >> _BLOCK_SHIFT
_BLOCK_MASK: Final = BITMAP_WORDS - 1
_ALL_SEEN: Final = 2**64 - 1


class ReplayWindow:
    """The counters seen, in `words`: 1 + BITMAP_WORDS of format "Q", borrowed; zeros: none."""

    __slots__ = ("_words",)

    def __init__(self, words: memoryview | None = None) -> None:
        """Go on with what `words` say; without them start empty, in private memory."""
        if words is None:
            words = memoryview(bytearray((1 + BITMAP_WORDS) * 8)).cast("Q")
        self._words = words

    @property
    def highest(self) -> int:
        """The highest counter accepted, -1 for none."""
        return self._words[0] - 1

    def close(self) -> None:
        """Take everything up to the highest as seen; what is above it is still to come."""
        highest = self.highest
        words = self._words
        for block in range(1, 1 + BITMAP_WORDS):
            words[block] = _ALL_SEEN
        newest = highest >> _BLOCK_SHIFT
        words[1 + (newest & _BLOCK_MASK)] = (2 << (highest & _BIT_MASK)) - 1

    def accept(self, counter: int) -> bool:
        """Mark a counter (0..2**64-1) as seen; False when it was seen, is too old or too high.

        Call it only after the datagram's tag has been verified, and believe its answer:
        check and mark are one step.
        """
        words = self._words
        highest = words[0] - 1
        block = counter >> _BLOCK_SHIFT
        at = 1 + (block & _BLOCK_MASK)
        bit = 1 << (counter & _BIT_MASK)
        if counter > highest:
            if counter >= REJECT_AFTER_MESSAGES:
                return False
            words[0] = counter + 1
            if block != highest >> _BLOCK_SHIFT:
                self._clear(highest >> _BLOCK_SHIFT, block)
            words[at] |= bit
            return True
        if highest - counter > REPLAY_WINDOW or words[at] & bit:
            return False
        words[at] |= bit
        return True

    def _clear(self, old: int, new: int) -> None:
        """Clear the blocks after `old` up to and including `new`."""
        words = self._words
        for block in range(max(old, new - BITMAP_WORDS) + 1, new + 1):
            words[1 + (block & _BLOCK_MASK)] = 0
