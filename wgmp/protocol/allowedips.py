"""Allowed IPs: which peer a prefix belongs to, by longest match, for the whole device.

One dictionary per prefix length, probed from the longest down; only the lengths that are in
use exist. A prefix has one owner at a time (WP 2: cryptokey routing).
"""

from __future__ import annotations

from typing import Final

Prefix = tuple[bytes, int]

_FAMILIES: Final = (4, 16)


class AllowedIPs:
    """The table. A `network` or `address` is packed: 4 bytes (IPv4) or 16 (IPv6)."""

    __slots__ = ("_by_owner", "_probes")

    def __init__(self) -> None:
        # Per family: (bits to shift out, {prefix as an int: owner}), longest prefix first.
        self._probes: dict[int, list[tuple[int, dict[int, int]]]] = {f: [] for f in _FAMILIES}
        self._by_owner: dict[int, dict[Prefix, None]] = {}

    def insert(self, network: bytes, length: int, owner: int) -> None:
        """Give a prefix to `owner`, taking it from whoever has it; host bits are ignored."""
        shift = len(network) * 8 - length
        key = int.from_bytes(network, "big") >> shift
        table = self._table(len(network), shift)
        prefix = _prefix(network, length)
        before = table.get(key)
        if before is not None and before != owner:
            self._disown(before, prefix)
        table[key] = owner
        self._by_owner.setdefault(owner, {})[prefix] = None

    def remove(self, network: bytes, length: int, owner: int) -> None:
        """Take a prefix from `owner`; nothing happens when it is not the owner's."""
        shift = len(network) * 8 - length
        key = int.from_bytes(network, "big") >> shift
        probes = self._probes[len(network)]
        table = next((table for probe, table in probes if probe == shift), {})
        if table.get(key) != owner:
            return
        del table[key]
        if not table:
            probes.remove((shift, table))
        self._disown(owner, _prefix(network, length))

    def remove_owner(self, owner: int) -> None:
        """Take all prefixes from `owner`."""
        for network, length in self.prefixes_of(owner):
            self.remove(network, length, owner)

    def lookup(self, address: bytes) -> int | None:
        """Return the owner of the longest prefix that holds the address, or None."""
        number = int.from_bytes(address, "big")
        for shift, table in self._probes[len(address)]:
            owner = table.get(number >> shift)
            if owner is not None:
                return owner
        return None

    def prefixes_of(self, owner: int) -> list[Prefix]:
        """Return the owner's prefixes as (network, length), in the order they were given."""
        return list(self._by_owner.get(owner, ()))

    def _table(self, family: int, shift: int) -> dict[int, int]:
        probes = self._probes[family]
        for probe, table in probes:
            if probe == shift:
                return table
        new: dict[int, int] = {}
        probes.append((shift, new))
        probes.sort(key=lambda probe: probe[0])
        return new

    def _disown(self, owner: int, prefix: Prefix) -> None:
        prefixes = self._by_owner[owner]
        del prefixes[prefix]
        if not prefixes:
            del self._by_owner[owner]


def _prefix(network: bytes, length: int) -> Prefix:
    shift = len(network) * 8 - length
    masked = int.from_bytes(network, "big") >> shift << shift
    return masked.to_bytes(len(network), "big"), length
