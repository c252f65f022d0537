"""What sealing and opening share: the layout of transport data, and memory for opened packets."""

from __future__ import annotations

import struct
from typing import Final

import numpy as np

from wgmp.protocol.constants import TAG_SIZE
from wgmp.protocol.messages import TransportHeader

HEADER_BYTES: Final = TransportHeader.SIZE
OVERHEAD: Final = HEADER_BYTES + TAG_SIZE
# Type, receiver index and counter; zeros and counter. Applied by `map`, which is faster than numpy.
HEADER_LAYOUT: Final = struct.Struct("<IIQ")
NONCE_LAYOUT: Final = struct.Struct("<IQ")

# The smallest segment the kernel cuts is 536 bytes less options; this holds 64 KiB of it.
SCRATCH_BYTES: Final = 1 << 18
scratch: Final = np.zeros(SCRATCH_BYTES, np.uint8)
scratch_view: Final = scratch.data
