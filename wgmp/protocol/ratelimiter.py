"""How many handshake messages one source may send while the device is under load (WP 5.3).

A token bucket per source, kept as the one number it needs: the time at which the bucket would
be full again. A source whose bucket is full is as good as unknown and is forgotten.
"""

from __future__ import annotations

from math import inf
from typing import Final

from wgmp.protocol.constants import (
    HANDSHAKES_BURST,
    HANDSHAKES_PER_SECOND,
    RATELIMITER_ENTRIES,
)

_COST: Final = 1 / HANDSHAKES_PER_SECOND
_SLACK: Final = (HANDSHAKES_BURST - 1) * _COST
_SWEEP_INTERVAL: Final = 1.0  # kernel ratelimiter.c collects garbage every second
_IPV6_PREFIX_BYTES: Final = 8
# Adding up steps of 1/20 s must not lose a message to rounding.
_ROUNDING: Final = 1e-6


class RateLimiter:
    """The buckets of all sources. A full table refuses new sources, it does not grow."""

    __slots__ = ("_full_at", "_limit", "_sweep_at")

    def __init__(self, limit: int = RATELIMITER_ENTRIES) -> None:
        self._limit = limit
        self._full_at: dict[bytes, float] = {}
        self._sweep_at = -inf

    def __len__(self) -> int:
        """Return the number of sources remembered."""
        return len(self._full_at)

    def allow(self, address: bytes, now: float) -> bool:
        """Take a token of `address` (packed, 4 bytes, or 16 of which the /64 counts)."""
        if now >= self._sweep_at:
            self._sweep(now)
        source = address[:_IPV6_PREFIX_BYTES]
        full_at = self._full_at.get(source)
        if full_at is None and len(self._full_at) >= self._limit:
            return False
        full_at = now if full_at is None else max(full_at, now)
        if full_at - now > _SLACK + _ROUNDING:
            return False
        self._full_at[source] = full_at + _COST
        return True

    def _sweep(self, now: float) -> None:
        self._full_at = {source: at for source, at in self._full_at.items() if at > now}
        self._sweep_at = now + _SWEEP_INTERVAL
