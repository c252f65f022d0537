"""What a loop waits for: descriptors to read from, and one that a role is blocked on."""

from __future__ import annotations

import select
from collections.abc import Iterable

from wgmp import system

_BROKEN = select.POLLERR | select.POLLHUP


class Interest:
    """The descriptors that one poller watches. `blocked_on`: what must become writable, or None."""

    def __init__(self) -> None:
        self.blocked_on: int | None = None
        self._poller = system.Poller()
        self._masks: dict[int, int] = {}

    @property
    def descriptor(self) -> int:
        """The poller's own descriptor, where it is one (epoll)."""
        return self._poller.fileno()

    def wait(self, timeout_s: float) -> list[tuple[int, int]]:
        """Return what is ready within so many seconds, as (descriptor, mask)."""
        return self._poller.poll(timeout_s)

    def read(self, descriptors: Iterable[int]) -> None:
        """Watch these, to read from, and nothing else."""
        self._set(dict.fromkeys(descriptors, select.POLLIN))
        self.blocked_on = None

    def write(self, blocked_on: int | None) -> None:
        """Watch this one until it is writable, besides those to read from."""
        if blocked_on == self.blocked_on:
            return
        self.blocked_on = blocked_on
        wanted = {
            fd: mask & ~select.POLLOUT for fd, mask in self._masks.items() if mask != select.POLLOUT
        }
        if blocked_on is not None:
            wanted[blocked_on] = wanted.get(blocked_on, 0) | select.POLLOUT
        self._set(wanted)

    def _set(self, wanted: dict[int, int]) -> None:
        for descriptor in self._masks.keys() - wanted.keys():
            try:
                self._poller.unregister(descriptor)
            except (OSError, ValueError):
                continue  # closed by now, and so forgotten by the kernel
        for descriptor, mask in wanted.items():
            if descriptor not in self._masks:
                self._poller.register(descriptor, mask)
            elif self._masks[descriptor] != mask:
                self._poller.modify(descriptor, mask)
        self._masks = wanted


def is_broken(mask: int) -> bool:
    """Return whether a descriptor can be used no more."""
    return bool(mask & _BROKEN)
