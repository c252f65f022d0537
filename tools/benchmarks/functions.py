"""Microseconds per packet of each batch function of both fast paths, beside the bare AEAD."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import repeat as again

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgmp.fastpath.choice import Choice, load, native_is_missing

from .fastpath import TRAIN, functions
from .figures import Section

SIZES = (64, 512, 1420)

_NATIVE, _BARE_NATIVE = "native", "its bare AEAD"
_REFERENCE, _BARE_REFERENCE = "reference", "its bare AEAD in Python"
# Long enough for the clock, short enough that all columns see the same machine.
_SAMPLE_S = 0.1
_TAG_BYTES = 16

NOTE = f"""\
Time per packet of one call after another on {TRAIN} packets of a TCP flow, of that size each (IP
header included), as a super-packet or one by one, from a ring into a ring. The bare AEAD seals or
opens as many bytes and does nothing else: the crate's in the native column, for the reference one
`encrypt_into` or `decrypt_into` of cryptography's ChaCha20Poly1305."""


def run(repeats: int, tell: Callable[[str], None]) -> Section:
    """Measure; return the table. `tell` is given a line per function."""
    columns = [] if native_is_missing() else [_NATIVE, _BARE_NATIVE]
    columns += [_REFERENCE, _BARE_REFERENCE]
    pairs = list(zip(columns[::2], columns[1::2], strict=True))
    section = Section("Functions of the fast path", NOTE, columns, pairs)
    for size in SIZES:
        for fast, bare in pairs:
            fastpath = load(Choice(fast))
            for function in functions(fastpath, size):
                what = f"{function.name}, {size} bytes"
                opening = function.name.startswith("open")
                alone = _native_aead if fast == _NATIVE else _python_aead
                for repeat in range(repeats):
                    section.add(repeat, fast, what, "us", _microseconds(function.call))
                    section.add(repeat, bare, what, "us", _microseconds(alone(size, opening)))
                tell(f"{function.name}, {size} bytes, {fast}")
    return section


def _native_aead(size: int, opening: bool) -> Callable[[], object]:
    import wgmp.fastpath.native._native as _native

    return lambda: _native.bare_aead(size, TRAIN, opening)


def _python_aead(size: int, opening: bool) -> Callable[[], object]:
    aead = ChaCha20Poly1305(bytes(32))
    nonces = [bytes(4) + number.to_bytes(8, "little") for number in range(TRAIN)]
    plains = [bytearray(size) for _ in nonces]
    sealed = [bytearray(size + _TAG_BYTES) for _ in nonces]
    list(map(aead.encrypt_into, nonces, plains, again(None), sealed))
    if opening:
        return lambda: list(map(aead.decrypt_into, nonces, sealed, again(None), plains))
    return lambda: list(map(aead.encrypt_into, nonces, plains, again(None), sealed))


def _microseconds(call: Callable[[], object]) -> float:
    """Return the time per packet, over as many calls as fill a sample; the first is left out."""
    call()
    calls, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < _SAMPLE_S:
        call()
        calls += 1
    return elapsed / (calls * TRAIN) * 1e6
