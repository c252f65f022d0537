"""Keys of `wgmp top`: order, filter, pause and place."""

from __future__ import annotations

import pytest

from wgmp.commands.top import SORTS
from wgmp.top.peers import COLUMNS, peer_rows
from wgmp.top.view import View, column_named

from .snapshots import peer, snapshot

BEFORE = [peer(n) for n in range(1, 6)]
AFTER = [
    peer(1, rx_bytes=1000, drops={"bad_tag": 2}),
    peer(2, rx_bytes=3000, name="Office", tx_bytes=9),
    peer(3, tx_bytes=5000, handshake_age_s=None),
    peer(4, endpoint="[2001:db8::4]:9"),
    peer(5, drops={"replayed": 7, "bad_tag": 1}),
]


def order(view: View) -> list[int]:
    before, after = snapshot(1.0, BEFORE), snapshot(2.0, AFTER)
    rows = peer_rows(before, after, view.sort, view.inverted, view.filter)
    return [int(row.peer.public_key[:4]) for row in rows]


def pressed(*keys: str) -> View:
    view = View()
    for key in keys:
        assert view.press(key)
    return view


def test_the_busiest_peer_is_first_and_rates_are_per_second() -> None:
    assert order(View())[:2] == [2, 1]
    (row, *_) = peer_rows(
        snapshot(1.0, BEFORE), snapshot(3.0, AFTER), column_named("rx"), False, ""
    )
    assert row.rx_rate == 1500.0


@pytest.mark.parametrize(
    ("keys", "first"),
    [
        ("t", [3, 2]),
        ("d", [5, 1]),
        ("h", [1, 2, 4, 5, 3]),
        ("hh", [3, 5, 4, 2, 1]),
        ("hi", [3, 5, 4, 2, 1]),
        ("R", [2, 1]),
        ("e", [1, 2, 3, 5, 4]),
        ("n", [1, 3, 4, 5, 2]),
    ],
)
def test_a_key_sorts_by_its_column_and_once_more_inverts(keys: str, first: list[int]) -> None:
    assert order(pressed(*keys))[: len(first)] == first


def test_the_command_line_sorts_by_every_column() -> None:
    assert tuple(column.name for column in COLUMNS) == SORTS


def test_the_order_can_go_through_all_columns_and_back() -> None:
    view = View()
    seen = []
    for _ in COLUMNS:
        view.press(">")
        seen.append(view.sort.name)
    assert set(seen) == {column.name for column in COLUMNS}
    assert view.sort.name == "rx"
    view.press("left")
    assert view.sort.name == "endpoint"
    for key, name in (("<", "peer"), ("<", "drops"), ("right", "peer"), (">", "endpoint")):
        view.press(key)
        assert view.sort.name == name, "one column further, and round the ends"


def test_another_column_begins_with_its_own_order() -> None:
    assert pressed("i", ">").inverted is False
    assert pressed("i", "t").inverted is False
    assert pressed("i", "r").inverted is False, "it was inverted, and is once more"


def test_peers_that_are_as_fast_stand_by_all_they_moved_and_then_by_name() -> None:
    after = [
        peer(3, name="b"),
        peer(1, name="Cc", rx_bytes=10, tx_bytes=10),
        peer(2, name="A"),
        peer(4, name="d", rx_bytes=1, tx_bytes=20),
    ]
    rows = peer_rows(snapshot(1.0, after), snapshot(2.0, after), column_named("rx"), False, "")
    assert [row.title for row in rows] == ["d", "Cc", "A", "b"]


@pytest.mark.parametrize(
    ("text", "left"),
    [("office", [2]), ("0003", [3]), ("2001:", [4]), ("10.0.0.5", [5]), ("bad_tag", [1, 5])],
)
def test_a_filter_finds_names_keys_addresses_and_reasons(text: str, left: list[int]) -> None:
    view = pressed("/", *text, "enter")
    assert sorted(order(view)) == left
    view.press("escape")
    assert len(order(view)) == 5


def test_while_a_filter_is_typed_keys_are_its_text() -> None:
    view = pressed("/", "q", "p", "x", "backspace", " ")
    assert (view.filter, view.typing, view.paused) == ("qp ", True, False)
    view.press("page up")
    view.press("\x01")
    assert view.filter == "qp ", "keys that are no text are none"
    view.press("enter")
    view.press("i")
    assert (view.filter, view.typing, view.inverted) == ("qp ", False, True)
    view.press("/")
    view.press("escape")
    assert (view.filter, view.typing) == ("", False)


def test_a_new_filter_begins_at_the_top() -> None:
    view = pressed("page down", "/", "a")
    assert view.first == 0


def test_a_list_that_gets_shorter_is_shown_to_its_end() -> None:
    view = pressed("page down", "page down")
    view.stay_within(15, 5)
    assert view.first == 10
    view.stay_within(3, 5)
    assert view.first == 0
    view.press("page down")
    view.stay_within(100, None)
    assert view.first == 0, "there is room for all"


def test_keys_pause_scroll_and_end() -> None:
    view = pressed(" ", "down", "page down", "up")
    assert (view.paused, view.first) == (True, 10)
    view.press("page up")
    assert view.first == 0
    for keys in (("down", "home"), ("up",)):
        for key in keys:
            view.press(key)
        assert view.first == 0
    view.press("p")
    assert not view.paused
    assert pressed("x", "escape", "\x1b").press("q") is False
