"""Landlock (landlock(7)): a process gives up the file system, TCP and signals to others, for good.

What is open already stays open. A role has no rule that lets it open anything.
"""

from __future__ import annotations

import ctypes
import os

from wgmp.syscalls import syscall

# The numbers are the same on all CPUs (asm-generic/unistd.h).
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_VERSION_FLAG = 1

# linux/landlock.h: by the version of the kernel's interface, the rights on files that there are.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_NETWORK_RIGHTS, _NETWORK_SINCE = 0b11, 4  # bind and connect TCP
_SCOPES, _SCOPES_SINCE = 0b11, 6  # abstract Unix sockets, signals


def version() -> int:
    """Return the version of the kernel's Landlock, 0 when there is none or it is off."""
    try:
        return syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    except OSError:
        return 0


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("files", ctypes.c_uint64),
        ("network", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


def enter(kernel: int) -> None:
    """Give up all that version `kernel` (1 and up) lets a process give up. Raises OSError.

    No new privileges must be set before.
    """
    files = (1 << _FILE_RIGHTS[min(kernel, max(_FILE_RIGHTS))]) - 1
    network = _NETWORK_RIGHTS if kernel >= _NETWORK_SINCE else 0
    scoped = _SCOPES if kernel >= _SCOPES_SINCE else 0
    rules = _Ruleset(files, network, scoped)
    # An older kernel takes a longer structure whose rest is zeros.
    ruleset = syscall(_CREATE_RULESET, ctypes.byref(rules), ctypes.sizeof(rules), 0)
    try:
        syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
