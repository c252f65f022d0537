"""This process's memory: given back when it was needed once, and never written to a core dump."""

from __future__ import annotations

import ctypes
import resource
import sys

from wgmp.syscalls import PR_SET_DUMPABLE, prctl


def keep_out_of_dumps() -> None:
    """Let no core dump be made of this process and its children: there are keys in them.

    On Linux other users cannot attach to them either (prctl(2), PR_SET_DUMPABLE).
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if sys.platform == "linux":
        prctl(PR_SET_DUMPABLE, 0)


def give_back() -> None:
    """Return freed memory to the kernel, where the C library can (glibc's malloc_trim(3)).

    A configuration of thousands of peers passes through the supervisor as text, as lines and as
    orders, and the C library keeps what those have freed.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
