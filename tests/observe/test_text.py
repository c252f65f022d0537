"""Figures as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgmp.observe.text import age, bits, quantity, size, table


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (999 << 20, "999.0 MiB"),
        (3 << 30, "3.0 GiB"),
        (999 << 40, "999.0 TiB"),
        (3 << 50, "3.0 PiB"),
    ],
)
def test_sizes_have_binary_units(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (7, "7"),
        (0.4, "0.4"),
        (999, "999"),
        (999.7, "1.0k"),
        (1234, "1.2k"),
        (9.94, "9.9"),
        (9.96, "10"),
        (35e6, "35M"),
        (2.5e9, "2.5G"),
        (4e12, "4.0T"),
        (7e15, "7P"),
    ],
)
def test_quantities_are_short(count: float, text: str) -> None:
    assert quantity(count) == text


def test_rates_are_in_bits_as_links_are_sold() -> None:
    assert bits(125_000_000) == "1.0 Gbit/s"
    assert bits(0) == "0 bit/s"


@given(st.floats(0, 1e15))
def test_no_figure_is_wider_than_its_column(count: float) -> None:
    assert len(quantity(count)) <= 4
    assert len(size(count)) <= 10


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "never"),
        (-1, "0s"),
        (119, "119s"),
        (120, "2m"),
        (7199, "120m"),
        (7200, "2h"),
        (172_799, "48h"),
        (172_800, "2d"),
        (100 * 86_400, "100d"),
    ],
)
def test_ages_are_one_word(seconds: float | None, text: str) -> None:
    assert age(seconds) == text


def test_a_table_lines_up_and_says_when_it_is_empty() -> None:
    assert table(["a", "bb"], [["ccc", "d"]]) == "a    bb\nccc   d"
    assert table(["rings", "depth"], []) == "rings: none"
