"""Internet checksums (RFC 1071), one packet at a time or all rows of a matrix at once.

Sums are taken over words in host order and swapped at the end: one's complement addition does
not care. Callers add sums as they like, and the end is one remainder: a sum that is folded until it
fits 16 bits is what is left of it modulo 0xFFFF, but for 0 and 0xFFFF, which mean the same.
"""

from __future__ import annotations

import sys
from typing import Final

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.uint8]
Sums = NDArray[np.int64]

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
    """Return a number for each row that is the sum of its big-endian words, modulo 0xFFFF.

    It is 0 only where all of the row is. `rows`: two-dimensional, contiguous bytes in each row,
    less than 128 KiB; of an odd number the last one is padded, as in `sum_words`.
    """
    even = rows.shape[1] & ~1
    words = rows[:, :even].view(np.uint16)
    sums: Sums = np.add.reduce(words, axis=1, dtype=np.uint32).astype(np.int64)
    if _SWAP:
        sums *= 256  # modulo 0xFFFF that is the same as swapping the bytes of a word
    if even != rows.shape[1]:
        sums += rows[:, -1].astype(np.int64) << 8
    return sums


def finish_rows(totals: Sums) -> Sums:
    """Return the checksum field's values for sums that are not 0, as `finish` does."""
    values: Sums = -totals % 0xFFFF
    return values
