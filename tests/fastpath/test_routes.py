"""What the reference fast path remembers of routes is never older than the routes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocol.test_allowedips import operations, prefixes
from wgmp.fastpath.choice import Choice, load
from wgmp.protocol.allowedips import AllowedIPs


@settings(deadline=None)
@given(operations, st.lists(prefixes(), min_size=1, max_size=10))
def test_remembered_routes_are_those_of_the_table(
    steps: list[tuple[str, tuple[bytes, int], int]], wanted: list[tuple[bytes, int]]
) -> None:
    cached, table = load(Choice.REFERENCE).allowed_ips(), AllowedIPs()
    inserted: list[tuple[bytes, int, int]] = []
    for verb, (network, length), owner in steps:
        if verb == "remove" and inserted:  # one that may still be there
            network, length, owner = inserted[owner % len(inserted)]
        for each in (cached, table):
            match verb:
                case "insert":
                    each.insert(network, length, owner)
                case "remove_owner":
                    each.remove_owner(owner)
                case _:
                    each.remove(network, length, owner)
        if verb == "insert":
            inserted.append((network, length, owner))
        for probe in [*(probe for probe, _ in wanted), *(row[0] for row in inserted)]:
            assert cached.lookup(probe) == table.lookup(probe)


def test_no_flood_of_addresses_makes_it_grow_without_end_or_forget_a_route() -> None:
    cached = load(Choice.REFERENCE).allowed_ips()
    cached.insert(bytes([10, 0, 0, 0]), 8, 1)
    for number in range(70_000):
        assert cached.lookup((0x0A000000 + number).to_bytes(4, "big")) == 1
        assert cached.lookup((0x0B000000 + number).to_bytes(4, "big")) is None
    assert len(cached._cache) <= 65_536  # type: ignore[attr-defined]
