"""The peer table and the index table, as successive owners and concurrent readers see them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from math import inf

import pytest

from wgmp.orders import ROW_BITS
from wgmp.peertable import INDEX_ENTRIES, IndexTable, PeerTable
from wgmp.protocol.outcome import Endpoint

HERE = Endpoint(b"\x01" * 4, 1111)
THERE = Endpoint(b"\xfe" * 16, 2222, 3, b"\xfe" * 16, 3)


def test_row_outlives_its_worker() -> None:
    table = PeerTable()
    row = table.row(7)
    assert not row.adopt()
    row.add_received(100)
    row.add_sent(50)
    row.set_last_handshake(123)
    row.set_endpoint(THERE, 0)
    row.set_greatest_timestamp(b"t" * 12)
    successor = table.row(7)
    assert successor.adopt()
    assert successor.greatest_timestamp() == b"t" * 12
    figures = table.figures(7)
    assert (figures.endpoint, figures.last_handshake_ns) == (THERE, 123)
    assert (figures.rx_bytes, figures.tx_bytes) == (100, 50)


def test_an_endpoint_and_its_version_keep_their_order_on_any_cpu(
    fences: list[Callable[[], object]],
) -> None:
    table = PeerTable()
    row = table.row(0)
    row.adopt()
    words, seen = row._words, []

    def look() -> None:
        seen.append((words[2], any(words[6:12])))

    fences += [look, look]
    row.set_endpoint(HERE, 0)
    assert seen == [(1, False), (1, True)]
    assert words[2] == 2
    # Whoever reads it while it changes reads it again.
    fences += [lambda: None, lambda: words.__setitem__(2, 4), look, look]
    assert row.endpoint() == HERE
    assert seen[2:] == [(4, True), (4, True)]


def test_a_row_speaks_of_its_next_tenant_when_it_is_clean_on_any_cpu(
    fences: list[Callable[[], object]],
) -> None:
    table = PeerTable()
    table.row(0).adopt()
    table.row(0).add_sent(5)
    row = table.row(1 << ROW_BITS)
    seen: list[tuple[int, int]] = []

    def look() -> None:
        seen.append((row._words[1], row._words[4]))

    fences += [look, look, look]
    row.adopt()
    assert seen == [(1, 5), (0, 5), (0, 0)]
    assert row.is_tenant()


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ((12345.678, 3), (12345.678, 3)),
        ((86_400.0 * 365 * 100, 255), (86_400.0 * 365 * 100, 255)),
        ((7.0, 300), (7.0, 255)),
        ((-inf, 1), (0.0, 1)),
    ],
)
def test_when_an_initiation_may_be_sent_again_outlives_its_worker(
    said: tuple[float, int], found: tuple[float, int]
) -> None:
    table = PeerTable()
    row = table.row(7)
    row.adopt()
    assert row.initiations() == (0.0, 0)
    row.set_initiations(*said)
    successor = table.row(7)
    assert successor.adopt()
    again_at, attempts = successor.initiations()
    assert (again_at, attempts) == (pytest.approx(found[0], abs=0.001), found[1])
    row.set_initiations(0.0, 0)
    assert successor.initiations() == (0.0, 0)


def test_a_peers_owner_and_its_sessions_are_found_by_its_row() -> None:
    table = PeerTable()
    second = 1 << ROW_BITS | 9
    for peer in (7, second):
        table.set_owner(peer, 3)
        table.row(peer).adopt()
    table.set_owner(second, 2)
    assert (table.owner(7), table.owner(9)) == (3, 2)
    assert (table.tenant(7), table.tenant(8), table.tenant(9)) == (7, -1, second)
    table.row(second).set_sessions(1 << 24)
    assert table.with_sessions() == [9]
    table.row(second).abandon()
    assert table.tenant(9) == -1


def test_new_tenant_of_a_row_inherits_nothing() -> None:
    table = PeerTable()
    first = table.row(7)
    first.adopt()
    first.add_sent(50)
    first.set_greatest_timestamp(b"t" * 12)
    next_tenant = 1 << ROW_BITS | 7
    assert table.figures(next_tenant).tx_bytes == 0
    row = table.row(next_tenant)
    assert not row.adopt()
    assert row.greatest_timestamp() == bytes(12)
    assert table.figures(7).tx_bytes == 0


def test_endpoint_is_never_read_half_written() -> None:
    table = PeerTable()
    table.row(0).adopt()
    pid = os.fork()
    if not pid:
        row = table.row(0)
        while True:
            row.set_endpoint(HERE, 0)
            row.set_endpoint(THERE, 0)
    try:
        seen = set()
        deadline = time.monotonic() + 10
        while len(seen) < 2 and time.monotonic() < deadline:
            seen |= {table.figures(0).endpoint for _ in range(2000)} - {None}
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert seen == {HERE, THERE}


def test_owner_died_while_writing_its_endpoint_and_the_successor_recovers() -> None:
    table = PeerTable()
    row = table.row(0)
    row.adopt()
    row._words[2] += 1  # as if killed half-way
    assert table.figures(0).endpoint is None
    successor = table.row(0)
    successor.adopt()
    successor.set_endpoint(HERE, 0)
    assert table.figures(0).endpoint == HERE


@pytest.mark.parametrize("workers", [1, 2, 3, 64])
def test_index_leads_to_its_row_and_tells_no_more_than_the_class(workers: int) -> None:
    indices = IndexTable()
    classes = 1 << (workers - 1).bit_length()
    for row in range(200):
        worker = row % workers
        index = indices.draw(row, worker, workers, os.urandom)
        assert indices.row(index) == row
        assert index % classes == worker


def test_freed_index_is_unknown_and_another_one_in_its_entry_survives() -> None:
    indices = IndexTable()
    index = indices.draw(5, 0, 1, os.urandom)
    alias = (index + INDEX_ENTRIES) & 0xFFFF_FFFF
    assert indices.row(alias) is None
    indices.free(alias)
    assert indices.row(index) == 5
    indices.free(index)
    assert indices.row(index) is None


def test_index_that_is_taken_is_not_drawn_again() -> None:
    indices = IndexTable()
    scripted = iter([b"\x01\0\0\0", b"\x01\0\0\0", b"\x02\0\0\0"])
    first = indices.draw(1, 0, 1, lambda count: next(scripted))
    second = indices.draw(2, 0, 1, lambda count: next(scripted))
    assert (first, second) == (1, 2)


def test_successor_frees_its_own_indices_but_those_it_keeps() -> None:
    table, indices = PeerTable(), IndexTable()
    table.set_owner(1, 0)
    table.set_owner(2, 1)
    mine, others = (indices.draw(peer, peer - 1, 2, os.urandom) for peer in (1, 2))
    kept = indices.draw(1, 0, 2, os.urandom)
    indices.free_others(0, table, {kept})
    assert indices.row(mine) is None
    assert indices.row(kept) == 1
    assert indices.row(others) == 2
