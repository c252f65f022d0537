"""Internet checksums (RFC 1071), one packet at a time or all rows of a matrix at once.

Sums are taken over words in host order and swapped at the end: one's complement addition does
not care. Callers add sums as they like and `fold` once.
"""

from __future__ import annotations

import sys
from typing import Final

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.uint8]
Sums = NDArray[np.uint32]

_LOW: Final = np.uint32(0xFFFF)
_HALF: Final = np.uint32(16)

# Up to here one big division is faster than numpy.
_SHORT: Final = 600
_SWAP: Final = sys.byteorder == "little"


def sum_words(data: memoryview | bytes) -> int:
    """Return the sum of the big-endian 16-bit words of `data`, folded; odd lengths are padded.

    `data` that is all zeros may give 0xFFFF, which is the same in one's complement.
    """
    if len(data) < _SHORT:
        # 2^16 is 1 modulo 0xFFFF, so the remainder of the whole number is the sum of its words.
        number = int.from_bytes(data, "big") << 8 * (len(data) & 1)
        return number % 0xFFFF or 0xFFFF
    even = len(data) & ~1
    total = int(np.frombuffer(data[:even], np.uint16).sum(dtype=np.uint64))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    if _SWAP:
        total = (total & 0xFF) << 8 | total >> 8
    if even != len(data):
        total += data[-1] << 8
    return total


def finish(total: int) -> int:
    """Return the checksum field's value for a sum over everything it covers."""
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def sum_rows(rows: Rows) -> Sums:
    """Return the folded sum of each row's big-endian words.

    `rows`: two-dimensional, an even number of contiguous bytes per row, less than 128 KiB.
    """
    sums = fold_rows(rows.view(np.uint16).sum(axis=1, dtype=np.uint32)).astype(np.uint16)
    return (sums.byteswap() if _SWAP else sums).astype(np.uint32)


def fold_rows(totals: Sums) -> Sums:
    """Fold 32-bit sums to 16 bits each. Twice is enough: the first leaves at most 0x1FFFE."""
    totals = (totals & _LOW) + (totals >> _HALF)
    return (totals & _LOW) + (totals >> _HALF)
