"""Keys out of what a terminal sends."""

from __future__ import annotations

import pytest

from wgmp.top.terminal import keys_in


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("q", ["q"]),
        ("\x1b", ["escape"]),
        ("\x1b q", ["escape", " ", "q"]),
        ("\x1b[A\x1b[6~x\r", ["up", "page down", "x", "enter"]),
        ("\x1b[3~", ["\x1b[3~"]),
        ("\x1b[1;5Ri", ["\x1b[1;5R", "i"]),
        ("\x1bOR", ["\x1bOR"]),
    ],
)
def test_a_key_that_is_not_known_is_one_key_and_not_an_escape(text: str, keys: list[str]) -> None:
    assert keys_in(text) == keys
