"""Microseconds per packet of each batch function of both fast paths, beside the bare AEAD."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat as again
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgmp.fastpath import reference
from wgmp.fastpath.choice import ipsec_mb_is_missing, native_is_missing
from wgmp.fastpath.interface import FastPath

from .fastpath import TRAIN, functions
from .figures import Section

if TYPE_CHECKING:
    from wgmp.fastpath.native import Native

SIZES = (64, 512, 1420)

# Long enough for the clock, short enough that all columns see the same machine.
_SAMPLE_S = 0.1
_TAG_BYTES = 16

NOTE = f"""\
Time per packet of one call after another on {TRAIN} packets of a TCP flow, of that size each (IP
header included), as a super-packet or one by one, from a ring into a ring. The bare AEAD seals or
opens as many bytes and does nothing else: `ring`'s in the native column, ipsec-mb's in that of
`--aead ipsec-mb` where it can be used, for the reference one `encrypt_into` or `decrypt_into` of
cryptography's ChaCha20Poly1305."""

# Given a size, and whether to open: a call that does so with TRAIN packets and nothing else.
Bare = Callable[[int, bool], Callable[[], object]]


def run(repeats: int, tell: Callable[[str], None]) -> Section:
    """Measure; return the table. `tell` is given a line per function."""
    variants = list(_variants())
    columns = [column for fast, alone, _, _ in variants for column in (fast, alone)]
    pairs = [(fast, alone) for fast, alone, _, _ in variants]
    section = Section("Functions of the fast path", NOTE, columns, pairs)
    for size in SIZES:
        for fast, alone, fastpath, bare in variants:
            for function in functions(fastpath, size):
                what = f"{function.name}, {size} bytes"
                opening = function.name.startswith("open")
                for repeat in range(repeats):
                    section.add(repeat, fast, what, "us", _microseconds(function.call))
                    section.add(repeat, alone, what, "us", _microseconds(bare(size, opening)))
                tell(f"{function.name}, {size} bytes, {fast}")
    return section


def _variants() -> Iterator[tuple[str, str, FastPath, Bare]]:
    """Yield each fast path there is: its column and that of its bare AEAD, itself, and that."""
    if not native_is_missing():
        from wgmp.fastpath.native import IPSEC_MB, Native

        native = Native()
        yield "native", "its bare AEAD", native, _repeating(native)
        if not ipsec_mb_is_missing():
            native = Native(IPSEC_MB)
            yield "native, ipsec-mb", "bare ipsec-mb", native, _repeating(native)
    yield "reference", "its bare AEAD in Python", reference, _python_aead


def _repeating(native: Native) -> Bare:
    return lambda size, opening: partial(native.aead.repeat, size, TRAIN, opening)


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
