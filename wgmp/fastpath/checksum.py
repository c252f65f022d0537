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
Sums = NDArray[np.uint64]

_SWAP: Final = sys.byteorder == "little"


def sum_words(data: memoryview | bytes) -> int:
    """Return the sum of the big-endian 16-bit words of `data`, folded; odd lengths are padded."""
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

    `rows`: two-dimensional, an even number of contiguous bytes per row.
    """
    return fold_rows(rows.view(np.uint16).sum(axis=1, dtype=np.uint64), _SWAP)


def fold_rows(totals: Sums, swap: bool = False) -> Sums:
    """Fold sums to 16 bits each; `swap` their bytes too."""
    totals = (totals & 0xFFFF) + (totals >> 16)
    totals = (totals & 0xFFFF) + (totals >> 16)
    totals = (totals & 0xFFFF) + (totals >> 16)
    if swap:
        totals = (totals & np.uint64(0xFF)) << np.uint64(8) | totals >> np.uint64(8)
    return totals
