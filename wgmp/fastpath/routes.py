"""Allowed IPs for the reference fast path: the protocol's table, with its answers remembered."""

from __future__ import annotations

from wgmp.protocol.allowedips import AllowedIPs

_CACHE_ENTRIES = 65_536


class Routes:
    """`protocol.allowedips.AllowedIPs`, for packets that come in runs."""

    __slots__ = ("_cache", "_table")

    def __init__(self) -> None:
        self._table = AllowedIPs()
        self._cache: dict[bytes, int | None] = {}

    def insert(self, network: bytes, length: int, owner: int) -> None:
        """Give a prefix to `owner`, taking it from whoever has it."""
        self._cache.clear()
        self._table.insert(network, length, owner)

    def remove(self, network: bytes, length: int, owner: int) -> None:
        """Take a prefix from `owner`, if it is the owner's."""
        self._cache.clear()
        self._table.remove(network, length, owner)

    def remove_owner(self, owner: int) -> None:
        """Take all prefixes from `owner`."""
        self._cache.clear()
        self._table.remove_owner(owner)

    def lookup(self, address: bytes) -> int | None:
        """Return the owner of the longest prefix that holds the packed address, or None."""
        try:
            return self._cache[address]
        except KeyError:
            if len(self._cache) >= _CACHE_ENTRIES:
                self._cache.clear()
            owner = self._cache[address] = self._table.lookup(address)
            return owner
