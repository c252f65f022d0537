"""What sealing and opening share: the layout of transport data, and memory for opened packets."""

from __future__ import annotations

import struct
from typing import Final

import numpy as np

from wgmp.protocol.constants import TAG_SIZE
from wgmp.protocol.messages import TransportHeader

HEADER_BYTES: Final = TransportHeader.SIZE
OVERHEAD: Final = HEADER_BYTES + TAG_SIZE
HEADER_FIELDS: Final = np.dtype([("type", "<u4"), ("receiver", "<u4"), ("counter", "<u8")])
_NONCE_FIELDS: Final = np.dtype([("zeros", "<u4"), ("counter", "<u8")])
# The same for one at a time, which numpy would make slower, not faster.
HEADER_LAYOUT: Final = struct.Struct("<IIQ")
NONCE_LAYOUT: Final = struct.Struct("<IQ")

# The smallest segment the kernel cuts is 536 bytes less options; this holds 64 KiB of it.
SCRATCH_BYTES: Final = 1 << 18
scratch: Final = np.zeros(SCRATCH_BYTES, np.uint8)
scratch_view: Final = scratch.data


def nonces(counters: np.typing.NDArray[np.uint64]) -> list[bytes]:
    """Return the 12-byte nonce of each counter."""
    fields = np.zeros(len(counters), _NONCE_FIELDS)
    fields["counter"] = counters
    raw = fields.tobytes()
    return [raw[at : at + 12] for at in range(0, len(raw), 12)]
