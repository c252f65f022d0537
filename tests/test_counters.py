"""Counter blocks: separate per role, kept over a restart, readable by others."""

from __future__ import annotations

from wgmp.counters import Counter, Counters, create_counters
from wgmp.protocol.outcome import DropReason


def test_roles_count_in_blocks_of_their_own() -> None:
    segment = create_counters(2)
    first, second = Counters(segment, 0), Counters(segment, 1)
    first.add(Counter.PACKETS_IN, 3)
    second.drop(DropReason.BAD_TAG, 2)
    assert first.figures()["packets_in"] == 3
    assert second.figures()["packets_in"] == 0
    assert first.drops() == {}
    assert second.drops() == {"bad_tag": 2}


def test_successor_goes_on_counting() -> None:
    segment = create_counters(1)
    Counters(segment, 0).add(Counter.STARTS)
    Counters(segment, 0).add(Counter.STARTS)
    assert Counters(segment, 0).value(Counter.STARTS) == 2


def test_every_drop_reason_has_a_word_of_its_own() -> None:
    counters = Counters(create_counters(1), 0)
    for reason in DropReason:
        counters.drop(reason, reason + 1)
    assert counters.drops() == {reason.name.lower(): reason + 1 for reason in DropReason}
    assert not any(counters.figures().values())


def test_a_worker_counts_its_way_in_apart_and_a_reader_sees_both() -> None:
    counters = Counters(create_counters(2), 1)
    counters.add(Counter.PACKETS_IN, 3)
    counters.inward.add(Counter.PACKETS_IN, 4)
    counters.inward.drop(DropReason.BAD_TAG)
    assert counters.value(Counter.PACKETS_IN) == 7
    assert counters.outward.value(Counter.PACKETS_IN) == 3
    assert counters.outward.drops() == {}
    assert counters.drops() == {"bad_tag": 1}
