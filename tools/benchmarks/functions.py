"""Microseconds per packet of each batch function of the fast path, beside the bare AEAD."""

from __future__ import annotations

import time
from collections.abc import Callable

from .fastpath import TRAIN, functions
from .figures import Section

SIZES = (64, 512, 1420)

_FAST, _BARE = "fast path", "bare AEAD"
# Long enough for the clock, short enough that both columns see the same machine.
_SAMPLE_S = 0.1

NOTE = f"""\
Time per packet of one call after another on {TRAIN} packets of a TCP flow, of that size each (IP
header included), as a super-packet or one by one. What comes out goes into a ring. The bare AEAD
is `encrypt_into` or `decrypt_into` of cryptography's ChaCha20Poly1305 on the same bytes, without
anything around it."""


def run(repeats: int, tell: Callable[[str], None]) -> Section:
    """Measure; return the table. `tell` is given a line per function."""
    section = Section("Functions of the fast path", NOTE, [_FAST, _BARE], [(_FAST, _BARE)])
    for size in SIZES:
        for function in functions(size):
            for repeat in range(repeats):
                what = f"{function.name}, {size} bytes"
                section.add(repeat, _FAST, what, "us", _microseconds(function.call))
                section.add(repeat, _BARE, what, "us", _microseconds(function.bare))
            tell(f"{function.name}, {size} bytes")
    return section


def _microseconds(call: Callable[[], object]) -> float:
    """Return the time per packet, over as many calls as fill a sample; the first is left out."""
    call()
    calls, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < _SAMPLE_S:
        call()
        calls += 1
    return elapsed / (calls * TRAIN) * 1e6
