"""Where something stands in a TOML or JSON text, for error messages.

Neither parser tells lines. For TOML this asks which is the shortest beginning of the text that
parses and holds what is looked for; for JSON it counts names and commas.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from typing import Any

Path = Sequence[str | int]
"""The way to a value from the outermost table: names of members, indices in arrays."""

_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


def line_of(text: str, path: Path, is_json: bool) -> int | None:
    """Return the line, from 1, where the value at `path` begins; or that of what encloses it.

    `text`: parses. None when not even the beginning of the path is there.
    """
    find = _line_in_json if is_json else _line_in_toml
    for length in range(len(path), 0, -1):
        line = find(text, list(path[:length]))
        if line is not None:
            return line
    return None


def spell(path: Path) -> str:
    """Return the path as people write it: network.home.peers[0].endpoint."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _line_in_toml(text: str, path: list[str | int]) -> int | None:
    lines = [f"{line}\n" for line in text.split("\n")]

    def parses(count: int) -> dict[str, Any] | None:
        try:
            return tomllib.loads("".join(lines[:count]))
        except tomllib.TOMLDecodeError:
            return None  # the text ends within a value here

    def parsed_from(count: int) -> tuple[int, dict[str, Any]]:
        """Return the first beginning of at least `count` lines that parses."""
        while (tables := parses(count)) is None:
            count += 1
        return count, tables

    if not _holds(tomllib.loads(text), path):
        return None
    low, high = 0, len(lines)  # the beginning of `low` lines lacks it, that of `high` holds it
    while high - low > 1:
        middle, tables = parsed_from((low + high) // 2)
        if _holds(tables, path):
            high = (low + high) // 2
        else:
            low = middle
    end, _ = parsed_from(high)
    start = end - 1
    while parses(start) is None:
        start -= 1
    return start + 1


def _holds(value: Any, path: list[str | int]) -> bool:
    for step in path:
        try:
            value = value[step]
        except (LookupError, TypeError):
            return False
    return True


def _line_in_json(text: str, path: list[str | int]) -> int | None:
    here: list[str | int | None] = []  # None: a member's name is next
    for match in _JSON_TOKEN.finditer(text):
        token = match[0]
        if token in "{[":
            here.append(None if token == "{" else 0)
        elif token in "}]":
            here.pop()
        elif token == ",":
            here[-1] = here[-1] + 1 if isinstance(here[-1], int) else None
        elif token != ":" and here and here[-1] is None:
            here[-1] = json.loads(token)
        else:
            continue
        if here == path:
            return text.count("\n", 0, match.start()) + 1
    return None
