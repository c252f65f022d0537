"""Memory that was needed once: a configuration of thousands of peers passes through the supervisor
as text, as lines and as orders, and the C library keeps what those have freed."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Return freed memory to the kernel, where the C library can (glibc's malloc_trim(3))."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
