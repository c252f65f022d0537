"""Any POSIX system, macOS above all: what `wgmp.system` lists, for one compact process."""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import tempfile
import time
from pathlib import Path
from typing import Self

from wgmp.system.line import Line, StreamLine, pair

FULL = False
RUN_DIRECTORY = Path("/var/run/wgmp")

_PIPE_READ_BYTES = 4096


def boottime() -> float:
    """Return the time that goes on while the machine is suspended, in seconds."""
    return time.clock_gettime(time.CLOCK_MONOTONIC_RAW)


class Poller:
    """What of `select.epoll` a loop uses, on poll(2); the events have the same numbers."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self.register = self._poll.register
        self.modify = self._poll.modify

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to close."""

    def unregister(self, descriptor: int) -> None:
        """Watch a descriptor no longer."""
        self._poll.unregister(descriptor)

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        """Wait at most `timeout` seconds; return descriptors, each with what happened."""
        return self._poll.poll(timeout * 1000)


def open_bell() -> tuple[int, int]:
    """Return the descriptor to wait for, and the one to strike. Raises OSError."""
    ends = os.pipe()
    for descriptor in ends:
        os.set_blocking(descriptor, False)
    return ends


def strike(descriptor: int, times: int) -> None:
    """Wake whoever waits."""
    with contextlib.suppress(BlockingIOError):  # full of strikes
        os.write(descriptor, bytes(times))


def silence(descriptor: int) -> None:
    """Be quiet until the next strike. Raises BlockingIOError when there was none."""
    os.read(descriptor, _PIPE_READ_BYTES)


def open_memory(name: str, size: int) -> int:
    """Return -1, which maps anonymous memory: it can be inherited, and not be handed on."""
    return -1


def keep_from_children(mapping: mmap.mmap, keep: bool) -> None:
    """Children inherit everything here."""


def discard(mapping: mmap.mmap, start: int) -> None:
    """Let the memory from byte `start` on be zeros."""
    mapping[start:] = bytes(len(mapping) - start)


def keep_from_dumps(mapping: mmap.mmap) -> None:
    """Nothing to do: a gateway makes no dumps at all (`memory.keep_out_of_dumps`)."""


def lock(mapping: mmap.mmap) -> bool:
    """Return False: all of it at once, mostly never used, is too much to lock."""
    return False


def memory_file(name: str) -> int:
    """Return the descriptor of an empty file without a path."""
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def line_pair() -> tuple[Line, Line]:
    """Return the supervisor's end of a line and the process's. Raises OSError."""
    ours, theirs = pair(socket.SOCK_STREAM)
    return StreamLine(ours), StreamLine(theirs)


class Lifeline:
    """How a parent learns of its child's end: of a pipe that the child alone has open to write.

    Made before the fork.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def in_child(self) -> list[int]:
        """Return what the child must keep open."""
        return [self._write]

    def in_parent(self, pid: int) -> int:
        """Return a descriptor that is readable when the child has ended."""
        os.close(self._write)
        return self._read

    def close(self) -> None:
        """There will be no child."""
        os.close(self._read)
        os.close(self._write)


def die_with(parent: int) -> None:
    """A loop ends when its line to the supervisor does; nothing here ends one that hangs."""
    if os.getppid() != parent:
        os._exit(1)


def become(uid: int, gid: int) -> None:
    """Let this process, which is root's, be another user's, for good. Raises OSError."""
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def set_name(name: str) -> None:
    """Processes keep the name of their program here."""


def close_others(kept: list[int]) -> None:
    """Close all descriptors from 3 on but these."""
    for descriptor in map(int, os.listdir("/dev/fd")):
        if descriptor > 2 and descriptor not in kept:
            with contextlib.suppress(OSError):  # it was the listing's own
                os.close(descriptor)


def cores() -> int:
    """Return 1: more would not be used."""
    return 1
