"""Allowed IPs against a scan of a list."""

from __future__ import annotations

import ipaddress

from hypothesis import given, settings
from hypothesis import strategies as st

from wgmp.protocol.allowedips import AllowedIPs


def packed(text: str) -> tuple[bytes, int]:
    """Return a prefix as the table takes it."""
    network = ipaddress.ip_network(text, strict=False)
    return network.network_address.packed, network.prefixlen


def address(text: str) -> bytes:
    """Return an address as the table takes it."""
    return ipaddress.ip_address(text).packed


class Scan:
    """The obvious slow table: (network, length, owner) in a list, one owner a prefix."""

    def __init__(self) -> None:
        self.rows: list[tuple[bytes, int, int]] = []

    def insert(self, network: bytes, length: int, owner: int) -> None:
        """Add a prefix at the end, unless its owner has it already."""
        if (network, length, owner) in self.rows:
            return
        self.rows = [row for row in self.rows if row[:2] != (network, length)]
        self.rows.append((network, length, owner))

    def lookup(self, wanted: bytes) -> int | None:
        """Look at every row."""
        best: tuple[int, int | None] = (-1, None)
        for network, length, owner in self.rows:
            if len(network) == len(wanted) and length > best[0]:
                shift = len(network) * 8 - length
                inside = int.from_bytes(network, "big") ^ int.from_bytes(wanted, "big")
                if not inside >> shift:
                    best = (length, owner)
        return best[1]


@st.composite
def prefixes(draw: st.DrawFn) -> tuple[bytes, int]:
    """Draw prefixes of few bits that differ, so that they nest and collide."""
    size = draw(st.sampled_from([4, 16]))
    length = draw(st.sampled_from([0, 1, 8, 15, 16, 24, 31, 32, size * 8]))
    raw = draw(st.sampled_from([0, 0x0A, 0x0B, 0x80])) << (size * 8 - 8)
    raw |= draw(st.integers(0, 3)) << (size * 8 - 16) | draw(st.integers(0, 3))
    shift = size * 8 - length
    return (raw >> shift << shift).to_bytes(size, "big"), length


operations = st.lists(
    st.tuples(
        st.sampled_from(["insert", "insert", "insert", "remove", "remove_other", "remove_owner"]),
        prefixes(),
        st.integers(0, 3),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(operations, st.lists(prefixes(), min_size=1, max_size=10))
def test_table_agrees_with_a_linear_scan(
    steps: list[tuple[str, tuple[bytes, int], int]], wanted: list[tuple[bytes, int]]
) -> None:
    table, scan = AllowedIPs(), Scan()
    for verb, (network, length), owner in steps:
        if verb == "remove" and scan.rows:  # one that is there
            network, length, owner = scan.rows[owner % len(scan.rows)]
        match verb:
            case "insert":
                table.insert(network, length, owner)
                scan.insert(network, length, owner)
            case "remove" | "remove_other":
                table.remove(network, length, owner)
                scan.rows = [row for row in scan.rows if row != (network, length, owner)]
            case _:
                table.remove_owner(owner)
                scan.rows = [row for row in scan.rows if row[2] != owner]
        for probe in [*(probe for probe, _ in wanted), *(row[0] for row in scan.rows)]:
            assert table.lookup(probe) == scan.lookup(probe)


def test_the_longest_prefix_wins() -> None:
    table = AllowedIPs()
    for owner, text in enumerate(["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32"]):
        table.insert(*packed(text), owner)
    assert table.lookup(address("10.1.2.3")) == 3
    assert table.lookup(address("10.1.2.4")) == 2
    assert table.lookup(address("10.2.0.0")) == 1
    assert table.lookup(address("11.0.0.0")) == 0
    assert table.lookup(address("::")) is None


def test_a_prefix_moves_from_one_peer_to_another() -> None:
    table = AllowedIPs()
    table.insert(*packed("2001:db8::/32"), 1)
    table.insert(*packed("2001:db8::/32"), 2)
    assert table.lookup(address("2001:db8::1")) == 2
    table.remove(*packed("2001:db8::/32"), 1)
    assert table.lookup(address("2001:db8::1")) == 2


def test_removing_a_prefix_loses_nothing_below_or_above_it() -> None:
    table = AllowedIPs()
    for owner, text in enumerate(["10.0.0.0/8", "10.0.0.0/9", "10.0.0.0/10", "10.0.0.0/11"]):
        table.insert(*packed(text), owner)
    table.remove(*packed("10.0.0.0/9"), 1)
    assert table.lookup(address("10.0.0.1")) == 3
    assert table.lookup(address("10.32.0.1")) == 2
    assert table.lookup(address("10.64.0.1")) == 0


def test_an_owner_that_went_and_came_back_has_only_its_new_prefixes() -> None:
    table = AllowedIPs()
    table.insert(*packed("10.0.0.0/8"), 1)
    table.insert(*packed("10.1.0.0/16"), 2)
    table.remove_owner(1)
    table.insert(*packed("10.2.0.0/16"), 1)
    assert table.lookup(address("10.2.0.1")) == 1
    assert table.lookup(address("10.1.0.1")) == 2
    assert table.lookup(address("10.3.0.1")) is None


def test_host_bits_are_ignored() -> None:
    table = AllowedIPs()
    table.insert(address("10.1.2.3"), 8, 1)
    assert table.lookup(address("10.255.0.1")) == 1
    table.remove(address("10.9.9.9"), 8, 1)
    assert table.lookup(address("10.1.2.3")) is None


def test_an_owner_may_be_zero() -> None:
    table = AllowedIPs()
    table.insert(*packed("10.0.0.0/8"), 0)
    assert table.lookup(address("10.0.0.1")) == 0
    table.insert(*packed("10.0.0.0/8"), 1)
    table.remove(*packed("10.0.0.0/8"), 0)
    assert table.lookup(address("10.0.0.1")) == 1
