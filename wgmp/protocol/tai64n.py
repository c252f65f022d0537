"""TAI64N labels: 12 bytes that sort by time, which an initiation proves its freshness with.

https://cr.yp.to/libtai/tai64.html. Nanoseconds lose their low 24 bits (about 17 ms), so that
the label tells no more of the sender's clock than it must (kernel noise.c, tai64n_now).
"""

from __future__ import annotations

from typing import Final

BASE: Final = 0x4000_0000_0000_000A
WHITENER_MASK: Final = 0xFF_FFFF
_NANOSECONDS: Final = 1_000_000_000


def label(unix_ns: int) -> bytes:
    """Return the 12-byte label of a Unix time in nanoseconds, which is not negative."""
    seconds, nanoseconds = divmod(unix_ns, _NANOSECONDS)
    return (BASE + seconds).to_bytes(8, "big") + (nanoseconds & ~WHITENER_MASK).to_bytes(4, "big")
