"""The table of a network's life."""

from __future__ import annotations

import pytest

from wgmp.agent.lifecycle import TRANSITIONS, Event, State, after


def test_what_people_ask_for_again_is_nothing_to_do() -> None:
    assert after(State.RUNNING, Event.CONNECT) is None
    assert after(State.STARTING, Event.CONNECT) is None
    assert after(State.STOPPED, Event.DISCONNECT) is None
    assert after(State.STOPPING, Event.DISCONNECT) is None


def test_an_event_that_cannot_be_is_a_broken_invariant() -> None:
    with pytest.raises(AssertionError):
        after(State.STOPPED, Event.UP)


def test_from_every_state_a_network_can_be_stopped_and_started() -> None:
    for state in State:
        reached, todo = set(), [state]
        while todo:
            if (now := todo.pop()) not in reached:
                reached.add(now)
                todo += [to for (where, _), to in TRANSITIONS.items() if where is now]
        assert {State.STOPPED, State.RUNNING, State.FAILED} <= reached, state
