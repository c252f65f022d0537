"""Every message in docs/TROUBLESHOOTING.md is one that the program has."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "TROUBLESHOOTING.md").read_text()
MESSAGES = [
    line
    for block in re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
]
_LETTERS_MIN = 10


@cache
def templates() -> list[tuple[re.Pattern[str], int]]:
    """Return every text in the program as a pattern, with its number of fixed characters."""
    found = []
    for path in (ROOT / "wgmp").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = _parts(node)
            fixed = sum(len(part) for part in parts if part)
            if fixed >= _LETTERS_MIN:
                pattern = "".join(re.escape(part) if part else ".+?" for part in parts)
                found.append((re.compile(pattern, re.DOTALL), fixed))
    return found


def _parts(node: ast.AST) -> list[str]:
    """Return the fixed parts of a text or an f-string, "" for each value in between."""
    match node:
        case ast.JoinedStr(values=values):
            return [part for value in values for part in _parts(value) or [""]]
        case ast.Constant(value=str(text)):
            # As %-formatting of log lines has it.
            return [part for piece in re.split(r"(%s)", text) for part in [piece.replace("%s", "")]]
        case _:
            return []


@pytest.mark.parametrize("message", MESSAGES)
def test_the_message_is_one_the_program_has(message: str) -> None:
    # A message may have file and line, or a command, before what tells it from others.
    best = max((fixed for pattern, fixed in templates() if pattern.search(message)), default=0)
    assert best >= min(len(message) // 4, 20)


def test_the_page_has_what_people_look_for() -> None:
    headings = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
    assert len(MESSAGES) > 30
    assert len(headings) == len(set(headings)) > 8


def test_a_message_that_nobody_prints_would_be_noticed() -> None:
    message = "the flux capacitor of wg0 has no power: turn it off and on again"
    assert not any(pattern.search(message) for pattern, _ in templates())
