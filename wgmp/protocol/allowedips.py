"""Allowed IPs: which peer a prefix belongs to, by longest match, for the whole device.

One dictionary per prefix length, probed from the longest down; only the lengths that are in
use exist. A prefix has one owner at a time (WP 2: cryptokey routing).

Several processes hold this table, each for all peers, so it keeps nothing but the prefixes
themselves. An owner that goes is noted, and its prefixes are swept out before the next lookup:
one sweep for any number of owners.
"""

from __future__ import annotations

from typing import Final

Prefix = tuple[bytes, int]

_FAMILIES: Final = (4, 16)


class AllowedIPs:
    """The table. A `network` or `address` is packed: 4 bytes (IPv4) or 16 (IPv6)."""

    __slots__ = ("_gone", "_probes")

    def __init__(self) -> None:
        # Per family: (bits to shift out, {prefix as an int: owner}), longest prefix first.
        self._probes: dict[int, list[tuple[int, dict[int, int]]]] = {f: [] for f in _FAMILIES}
        self._gone: set[int] = set()

    def insert(self, network: bytes, length: int, owner: int) -> None:
        """Give a prefix to `owner`, taking it from whoever has it; host bits are ignored."""
        if owner in self._gone:
            self._sweep()
        shift = len(network) * 8 - length
        self._table(len(network), shift)[int.from_bytes(network, "big") >> shift] = owner

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

    def remove_owner(self, owner: int) -> None:
        """Take all prefixes from `owner`."""
        self._gone.add(owner)

    def lookup(self, address: bytes) -> int | None:
        """Return the owner of the longest prefix that holds the address, or None."""
        if self._gone:
            self._sweep()
        number = int.from_bytes(address, "big")
        for shift, table in self._probes[len(address)]:
            owner = table.get(number >> shift)
            if owner is not None:
                return owner
        return None

    def _table(self, family: int, shift: int) -> dict[int, int]:
        probes = self._probes[family]
        for probe, table in probes:
            if probe == shift:
                return table
        new: dict[int, int] = {}
        probes.append((shift, new))
        probes.sort(key=lambda probe: probe[0])
        return new

    def _sweep(self) -> None:
        """Take out the prefixes of all owners that have gone."""
        gone = self._gone
        for family, probes in self._probes.items():
            kept = []
            for shift, table in probes:
                if not gone.isdisjoint(table.values()):
                    table = {key: owner for key, owner in table.items() if owner not in gone}
                if table:
                    kept.append((shift, table))
            self._probes[family] = kept
        gone.clear()
