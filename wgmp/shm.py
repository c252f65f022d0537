"""Shared memory between wgmp's processes, and the one fence they need.

A `Segment` is anonymous memory, mapped before the fork: it has no name, nothing can leak,
and the kernel frees it with the last process. Every 8-byte word in it has exactly one writing
process; which one stands in the layout table of the module that owns the segment (ring.py,
counters.py, peertable.py).

Aligned 8-byte loads and stores through `memoryview.cast("Q")` are single instructions. On
x86-64 stores become visible in program order and loads are not reordered, so publishing an
index after its data needs nothing more. Only "store mine, then load yours" (a producer's
index against a consumer's asleep flag) needs `full_fence`. Other CPUs order less: there
(not STORES_ARE_ORDERED) whoever publishes or observes says where the order matters
(`keep_order`), with a fence that only the native fast path has (`use_fence`); without it
`require_ordered_stores` refuses. A store that hangs on a load, as filling a slot does on having
seen the tail, waits for it on any CPU.

What a killed process has done is seen by its successor in the order of its program on any CPU: an
interrupt is between two instructions, and the kernel's own locks stand between the two.
"""

from __future__ import annotations

import mmap
import os
import platform
import threading
from collections.abc import Callable, Mapping
from typing import Self, TypeVar

from wgmp import system
from wgmp.errors import RingError

WORD_BYTES = 8
PAGE_BYTES = 4096

STORES_ARE_ORDERED = platform.machine() in ("x86_64", "AMD64")

_lock = threading.Lock()
_fences: list[Callable[[], None]] = []


def use_fence(fence: Callable[[], None]) -> None:
    """Let `full_fence` be `fence`, a full barrier on any CPU."""
    _fences[:] = [fence]


def full_fence() -> None:
    """Order every earlier load and store of this thread before every later one.

    Taking a lock is a locked read-modify-write, which on x86 is a full barrier.
    """
    if _fences:
        _fences[0]()
    else:
        _lock.acquire()
        _lock.release()


def keep_order() -> None:
    """Order earlier loads and stores before later ones; x86-64 does, but for loads after stores."""
    if not STORES_ARE_ORDERED:
        full_fence()


def require_ordered_stores() -> None:
    """Raise RingError on a CPU that may reorder stores, when there is nothing to prevent it."""
    if not STORES_ARE_ORDERED and not _fences:
        raise RingError(
            f"this CPU ({platform.machine()}) may reorder stores, and only the native fast path "
            "can prevent it: install wgmp again on a machine with Rust, or run one process "
            "(--topology compact --workers 1)"
        )


class Segment:
    """One anonymous shared mapping of `size` bytes (rounded up to pages), zeroed by the kernel.

    `bytes` and `words` (8-byte words, native order) view the whole of it and live as long as
    the segment. With `shared` its `descriptor` stays open, to be given to other programs; it is -1
    where there is no such thing.
    Raises OSError when there is no memory.
    """

    __slots__ = ("_mapping", "bytes", "descriptor", "size", "words")

    def __init__(self, name: str, size: int, shared: bool = False) -> None:
        self.size = -(-size // PAGE_BYTES) * PAGE_BYTES
        self.descriptor = system.open_memory(name, self.size)
        kept = False
        try:
            self._map()
            kept = shared
        finally:
            if not kept and self.descriptor >= 0:
                os.close(self.descriptor)

    @classmethod
    def of(cls, descriptor: int) -> Self:
        """Map a segment of another program. Raises OSError, ValueError for what is none."""
        segment = cls.__new__(cls)
        segment.descriptor = descriptor
        segment.size = os.fstat(descriptor).st_size
        segment._map()
        return segment

    def keep_from_children(self, keep: bool = True) -> None:
        """Let processes forked from now on not inherit the mapping; or let them, after all."""
        system.keep_from_children(self._mapping, keep)

    def discard(self, start: int) -> None:
        """Give the memory from byte `start` on back; it reads as zeros then."""
        system.discard(self._mapping, start)

    def _map(self) -> None:
        self._mapping = mmap.mmap(self.descriptor, self.size, mmap.MAP_SHARED)
        self.bytes = memoryview(self._mapping)
        self.words = self.bytes.cast("Q")

    def close(self) -> None:
        """Unmap the segment from this process. Raises BufferError while somebody views it."""
        self.words.release()
        self.bytes.release()
        self._mapping.close()


class SecretSegment(Segment):
    """A segment that is in no core dump, and in no swap where locking is allowed."""

    __slots__ = ()

    def _map(self) -> None:
        super()._map()
        system.keep_from_dumps(self._mapping)

    def lock(self) -> bool:
        """Keep the pages that this process touches out of swap; return whether that is allowed."""
        return system.lock(self._mapping)


_Kind = TypeVar("_Kind", bound=Segment)


class LastingMemory:
    """The segments that outlive a supervisor: it hands their descriptors to its successor.

    `inherited`: a predecessor's descriptors by name; a segment that is not among them is new.
    """

    def __init__(self, inherited: Mapping[str, int] | None = None) -> None:
        self._inherited = dict(inherited or {})
        self._segments: dict[str, Segment] = {}

    def segment(self, name: str, size: int, kind: type[_Kind]) -> _Kind:
        """Return the segment of that name. Raises RingError for one of another size, OSError."""
        descriptor = self._inherited.pop(name, None)
        segment = kind(name, size, shared=True) if descriptor is None else kind.of(descriptor)
        if segment.size != -(-size // PAGE_BYTES) * PAGE_BYTES:
            raise RingError(f"the inherited memory {name!r} has {segment.size} bytes, not {size}")
        self._segments[name] = segment
        return segment

    def descriptors(self) -> list[tuple[str, int]]:
        """Return a descriptor of each segment, with its name. They stay this process's."""
        return [(name, segment.descriptor) for name, segment in self._segments.items()]


def make(memory: LastingMemory | None, name: str, size: int, kind: type[_Kind]) -> _Kind:
    """Return a segment that lasts in `memory`, or one that does not."""
    return kind(name, size) if memory is None else memory.segment(name, size, kind)
