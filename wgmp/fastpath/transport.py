"""What sealing and opening share: the layout of transport data, and memory for opened packets."""

from __future__ import annotations

import struct
from itertools import accumulate, repeat
from typing import Final

import numpy as np

from wgmp.protocol.constants import TAG_SIZE
from wgmp.protocol.messages import TransportHeader
from wgmp.record import Record

HEADER_BYTES: Final = TransportHeader.SIZE
OVERHEAD: Final = HEADER_BYTES + TAG_SIZE
# Type, receiver index and counter; zeros and counter. Applied by `map`, which is faster than numpy.
HEADER_LAYOUT: Final = struct.Struct("<IIQ")
NONCE_LAYOUT: Final = struct.Struct("<IQ")

# The smallest segment the kernel cuts is 536 bytes less options; this holds 64 KiB of it.
SCRATCH_BYTES: Final = 1 << 18
scratch: Final = np.zeros(SCRATCH_BYTES, np.uint8)
scratch_view: Final = scratch.data

# The same where only the receiver index is asked for.
_INDEX_LAYOUT: Final = struct.Struct("<4xI")


def receiver_indices(record: Record) -> set[int]:
    """Return the receiver indices of a record's datagrams, which are long enough to have one."""
    places = accumulate(record.lengths()[:-1], initial=0)
    return {index for (index,) in map(_INDEX_LAYOUT.unpack_from, repeat(record.payload), places)}
