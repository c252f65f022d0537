"""The replay window: which transport counters of a keypair have been seen (RFC 6479).

A ring of 8-bit blocks holds one bit per counter, REPLAY_BITS in all. Moving forward clears
whole blocks, so nothing is ever shifted. A counter further than REPLAY_WINDOW behind the
highest is too old to tell and refused, as in the kernel (receive.c, counter_validate).
"""

from __future__ import annotations

from typing import Final

from wgmp.protocol.constants import REJECT_AFTER_MESSAGES, REPLAY_BITS, REPLAY_WINDOW

_BLOCKS: Final = REPLAY_BITS // 8
_BLOCK_MASK: Final = _BLOCKS - 1


class ReplayWindow:
    """The counters seen. `highest`: the highest accepted one, -1 for none."""

    __slots__ = ("_blocks", "highest")

    def __init__(self, highest: int = -1) -> None:
        """Start empty; with `highest`, take it and everything below it as seen."""
        self.highest = highest
        self._blocks = bytearray(_BLOCKS)
        if highest >= 0:
            self._blocks[:] = b"\xff" * _BLOCKS
            self._blocks[highest >> 3 & _BLOCK_MASK] = (2 << (highest & 7)) - 1

    def check(self, counter: int) -> bool:
        """Return whether `accept` would accept the counter, and change nothing."""
        if counter > self.highest:
            return counter < REJECT_AFTER_MESSAGES
        if self.highest - counter > REPLAY_WINDOW:
            return False
        return not self._blocks[counter >> 3 & _BLOCK_MASK] >> (counter & 7) & 1

    def accept(self, counter: int) -> bool:
        """Mark a counter (0..2**64-1) as seen; False when it was seen, is too old or too high.

        Call it only after the datagram's tag has been verified, and believe its answer:
        check and mark are one step.
        """
        highest = self.highest
        block = counter >> 3
        if counter > highest:
            if counter >= REJECT_AFTER_MESSAGES:
                return False
            if block != highest >> 3:
                self._clear(highest >> 3, block)
            self.highest = counter
            self._blocks[block & _BLOCK_MASK] |= 1 << (counter & 7)
            return True
        bit = 1 << (counter & 7)
        if highest - counter > REPLAY_WINDOW or self._blocks[block & _BLOCK_MASK] & bit:
            return False
        self._blocks[block & _BLOCK_MASK] |= bit
        return True

    def _clear(self, old: int, new: int) -> None:
        """Clear the blocks after `old` up to and including `new`."""
        if new - old >= _BLOCKS:
            self._blocks[:] = bytes(_BLOCKS)
            return
        for block in range(old + 1, new + 1):
            self._blocks[block & _BLOCK_MASK] = 0
