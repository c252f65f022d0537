"""What this process has open, and how much more it may have."""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager


def open_files() -> list[str]:
    """Return the descriptors that this process has open."""
    gc.collect()
    listed = os.listdir("/proc/self/fd")  # one is of the listing itself
    return [each for each in listed if os.path.lexists(f"/proc/self/fd/{each}")]


@contextmanager
def room_for(count: int) -> Iterator[None]:
    """Let this process open so many more descriptors."""
    taken = {int(each) for each in open_files()}
    limit = 0
    while limit - sum(each < limit for each in taken) < count or limit in taken:
        limit += 1
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
