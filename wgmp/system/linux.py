"""Linux: what `wgmp.system` lists, by the kernel's own means."""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

from wgmp.syscalls import PR_SET_PDEATHSIG, prctl
from wgmp.system.line import Line, PacketLine, pair

assert sys.platform == "linux"

FULL = True
RUN_DIRECTORY = Path("/run/wgmp")

_PR_SET_NAME = 15  # linux/prctl.h
_MLOCK_ONFAULT = 1  # linux/mman.h
_SO_SNDBUFFORCE = 32  # asm-generic/socket.h

Poller = select.epoll

# With a descriptor, and 1: wake whoever waits. With it alone, raising BlockingIOError: be quiet.
strike = os.eventfd_write
silence = os.eventfd_read


def boottime() -> float:
    """Return the time that goes on while the machine is suspended, in seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def open_bell() -> tuple[int, int]:
    """Return the descriptor to wait for, and the one to strike. Raises OSError."""
    descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    return descriptor, descriptor


def open_memory(name: str, size: int) -> int:
    """Return a descriptor of `size` bytes of memory to map. Raises OSError."""
    descriptor = os.memfd_create(f"wgmp:{name}", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def keep_from_children(mapping: mmap.mmap, keep: bool) -> None:
    """Let processes forked from now on not inherit the mapping; or let them, after all."""
    mapping.madvise(mmap.MADV_DONTFORK if keep else mmap.MADV_DOFORK)


def discard(mapping: mmap.mmap, start: int) -> None:
    """Give the memory from byte `start` on back; it reads as zeros then."""
    # A page may be of 16 or 64 KiB, on aarch64: its rest is wiped.
    page = min(-(-start // mmap.PAGESIZE) * mmap.PAGESIZE, len(mapping))
    mapping[start:page] = bytes(page - start)
    if page < len(mapping):
        mapping.madvise(mmap.MADV_REMOVE, page)


def keep_from_dumps(mapping: mmap.mmap) -> None:
    """Let no core dump have it."""
    mapping.madvise(mmap.MADV_DONTDUMP)


def lock(mapping: mmap.mmap) -> bool:
    """Lock the pages that this process touches; return whether that is allowed.

    A lock is not inherited over a fork. Pages never touched stay without memory
    (mlock2(2), MLOCK_ONFAULT).
    """
    mlock2 = getattr(ctypes.CDLL(None), "mlock2", None)
    if mlock2 is None:
        return False
    start = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
    size = ctypes.c_size_t(len(mapping))
    result: int = mlock2(ctypes.c_void_p(start), size, _MLOCK_ONFAULT)
    return result == 0


def memory_file(name: str) -> int:
    """Return the descriptor of an empty file without a path."""
    return os.memfd_create(f"wgmp:{name}", os.MFD_CLOEXEC)


def line_pair() -> tuple[Line, Line]:
    """Return the supervisor's end of a line and the process's. Raises OSError."""
    ours, theirs = pair(socket.SOCK_SEQPACKET, _SO_SNDBUFFORCE)
    return PacketLine(ours), PacketLine(theirs)


class Lifeline:
    """How a parent learns of its child's end. Made before the fork."""

    def in_child(self) -> list[int]:
        """Return what the child must keep open."""
        return []

    def in_parent(self, pid: int) -> int:
        """Return a descriptor that is readable when the child has ended. Raises OSError."""
        return os.pidfd_open(pid)

    def close(self) -> None:
        """There will be no child, and there is nothing to close."""


def die_with(parent: int) -> None:
    """Let this process end with its parent, whatever kills that."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before the line above


def become(uid: int, gid: int) -> None:
    """Let this process be another user's, for good. Raises OSError."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def set_name(name: str) -> None:
    """Let this process be called `name` in lists of processes."""
    prctl(_PR_SET_NAME, name.encode()[:15])


def close_others(kept: list[int]) -> None:
    """Close all descriptors from 3 on but these."""
    low = 3
    for descriptor in sorted({fd for fd in kept if fd >= low}):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))
