"""TAI64N labels: 12 bytes that sort by time, which an initiation proves its freshness with.

https://cr.yp.to/libtai/tai64.html. Nanoseconds lose their low 24 bits (about 17 ms), so that
the label tells no more of the sender's clock than it must (kernel noise.c, tai64n_now).
"""

from __future__ import annotations

from typing import Final

BASE: Final = 0x4000_0000_0000_000A
WHITENER_MASK: Final = 0xFF_FFFF
_STEP: Final = WHITENER_MASK + 1
_NANOSECONDS: Final = 1_000_000_000


def label(unix_ns: int) -> bytes:
    """Return the 12-byte label of a Unix time in nanoseconds, which is not negative."""
    seconds, nanoseconds = divmod(unix_ns, _NANOSECONDS)
    return (BASE + seconds).to_bytes(8, "big") + (nanoseconds & ~WHITENER_MASK).to_bytes(4, "big")


def after(previous: bytes, present: bytes) -> bytes:
    """Return the label `present`, or the one next after `previous` if that is not earlier.

    A peer refuses a label that is not greater than the last one. So a wall clock that was set
    back, or two labels within one step, must not show in what we send.
    """
    if present > previous:
        return present
    seconds = int.from_bytes(previous[:8], "big")
    nanoseconds = int.from_bytes(previous[8:], "big") + _STEP
    if nanoseconds >= _NANOSECONDS:
        seconds, nanoseconds = seconds + 1, 0
    return seconds.to_bytes(8, "big") + nanoseconds.to_bytes(4, "big")
