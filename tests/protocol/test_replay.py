"""The replay window against a set of everything seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgmp.protocol.constants import REJECT_AFTER_MESSAGES, REPLAY_WINDOW
from wgmp.protocol.replay import ReplayWindow


class Model:
    """The obvious slow window."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.highest = -1

    def accept(self, counter: int) -> bool:
        """Say what a window must say."""
        if counter >= REJECT_AFTER_MESSAGES or counter in self.seen:
            return False
        if self.highest - counter > REPLAY_WINDOW:
            return False
        self.seen.add(counter)
        self.highest = max(self.highest, counter)
        return True


# Steps from the highest counter: small ones, ones about the window's edge, and leaps.
STEPS = st.one_of(
    st.integers(-20, 20),
    st.integers(-REPLAY_WINDOW - 80, -REPLAY_WINDOW + 80),
    st.integers(REPLAY_WINDOW - 80, REPLAY_WINDOW + 300),
    st.integers(-10_000, 10_000),
)


@given(st.sampled_from([0, 1, 2**32 - 10, 2**63]), st.lists(STEPS, max_size=80))
def test_window_agrees_with_a_set(start: int, moves: list[int]) -> None:
    window, model = ReplayWindow(), Model()
    counter = start
    for move in moves:
        counter = max(0, model.highest + move if model.highest >= 0 else start)
        expected = model.accept(counter)
        assert window.accept(counter) == expected
        assert not window.accept(counter)
        assert window.highest == model.highest


def test_in_order_counters_are_accepted_once() -> None:
    window = ReplayWindow()
    for counter in range(20_000):
        assert window.accept(counter)
        assert not window.accept(counter)


def test_reordered_counters_within_the_window_are_accepted_once() -> None:
    window = ReplayWindow()
    backwards = range(REPLAY_WINDOW, -1, -1)
    assert all(window.accept(counter) for counter in backwards)
    assert not any(window.accept(counter) for counter in backwards)


def test_counters_behind_the_window_are_refused() -> None:
    window = ReplayWindow()
    assert window.accept(REPLAY_WINDOW + 100)
    assert window.accept(100)
    assert not window.accept(99)


def test_a_leap_forgets_no_replay_and_invents_none() -> None:
    window = ReplayWindow()
    assert window.accept(5)
    assert window.accept(5 + 8192)  # the same bit of the ring, one turn later
    assert not window.accept(5)
    assert window.accept(6 + 8192 - REPLAY_WINDOW)
    assert window.accept(10**12)
    assert window.accept(10**12 - 1)


def test_counters_above_32_bits_are_told_apart() -> None:
    window = ReplayWindow()
    assert window.accept(1)
    assert window.accept(2**32 + 1)
    assert not window.accept(2**32 + 1)
    assert not window.accept(1)


@pytest.mark.parametrize("counter", [REJECT_AFTER_MESSAGES, 2**64 - 1])
def test_counters_at_the_limit_are_refused(counter: int) -> None:
    window = ReplayWindow()
    assert not window.accept(counter)
    assert window.highest == -1
    assert window.accept(REJECT_AFTER_MESSAGES - 1)


@given(st.integers(-1, 2**40), st.lists(st.integers(-9000, 9000), max_size=60))
def test_a_successor_takes_everything_up_to_the_highest_as_seen(
    highest: int, moves: list[int]
) -> None:
    window = ReplayWindow()
    assert highest < 0 or window.accept(highest)
    window.close()
    newest, seen = highest, set[int]()
    for move in moves:
        counter = max(0, highest + move)
        fresh = counter > highest and counter not in seen and newest - counter <= REPLAY_WINDOW
        assert window.accept(counter) == fresh
        newest = max(newest, counter)
        seen.add(counter)


def test_a_successor_takes_nothing_that_was_under_way_twice() -> None:
    window = ReplayWindow()
    assert window.accept(20_000)
    window.close()
    assert not any(window.accept(counter) for counter in range(20_001))
    assert all(window.accept(counter) for counter in range(20_001, 40_000))
