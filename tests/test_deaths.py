"""Who died how often, and how long successors wait."""

from __future__ import annotations

from wgmp.deaths import Deaths

YOUNG_S = 0.5
OLD_S = 3600.0


def _books() -> Deaths:
    deaths = Deaths()
    deaths.open_books(["worker0", "worker1"])
    return deaths


def test_the_first_to_die_is_replaced_at_once() -> None:
    assert _books().died("worker0", YOUNG_S) == 0.0


def test_one_that_keeps_dying_young_waits_longer_each_time_and_is_given_up() -> None:
    deaths = _books()
    delays = []
    while (delay_s := deaths.died("worker0", YOUNG_S)) is not None:
        delays.append(delay_s)
    assert delays[:5] == [0.0, 0.1, 0.2, 0.4, 0.8]
    assert delays == sorted(delays)
    assert delays[-1] == 5.0, "nobody waits longer"
    assert deaths.in_a_row["worker0"] == len(delays) + 1
    assert deaths.restarts == {"worker0": len(delays), "worker1": 0}


def test_one_that_worked_before_it_died_begins_a_new_row() -> None:
    deaths = _books()
    for _ in range(5):
        deaths.died("worker0", YOUNG_S)
    assert deaths.died("worker0", OLD_S) == 0.0
    assert deaths.in_a_row["worker0"] == 0


def test_the_next_generation_goes_on_with_the_books() -> None:
    deaths = _books()
    deaths.died("worker0", YOUNG_S)
    deaths.open_books(["worker0", "worker2"])
    assert deaths.restarts == {"worker0": 1, "worker1": 0, "worker2": 0}


def test_whoever_is_killed_again_and_again_has_a_successor_at_once_and_ever() -> None:
    deaths = _books()
    assert {deaths.died("worker0", YOUNG_S, killed=True) for _ in range(50)} == {0.0}
    assert deaths.in_a_row["worker0"] == 0
    assert deaths.restarts["worker0"] == 50


def test_those_killed_as_soon_as_they_begin_wait_and_are_never_given_up() -> None:
    deaths = _books()
    delays = [deaths.died("worker0", 0.0, killed=True) for _ in range(50)]
    assert delays[:4] == [0.0, 0.1, 0.2, 0.4]
    assert set(delays[10:]) == {5.0}
    assert deaths.in_a_row["worker0"] == 50
