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
    view.press("escape")
    assert (view.filter, view.typing) == ("", False)


def test_keys_pause_scroll_and_end() -> None:
    view = pressed(" ", "down", "page down", "up")
    assert (view.paused, view.first) == (True, 10)
    view.press("home")
    view.press("up")
    assert view.first == 0
    view.press("p")
    assert not view.paused
    assert pressed("x", "escape", "\x1b").press("q") is False
