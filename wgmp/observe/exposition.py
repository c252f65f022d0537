"""The text format of Prometheus: families of samples, with their HELP and TYPE.

https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Lines in a piece: about a millisecond's work.
_PIECE_LINES = 1000

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

# A sample is its labels, ready to print, and its value.
Sample = tuple[str, int | float]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its name, its type, and what its samples say. The samples are read once."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    samples: Iterable[Sample]


def escaped(value: str) -> str:
    """Return a label's value as it stands between quotes."""
    return value.translate(_ESCAPES)


def labels(**values: str) -> str:
    """Return labels in braces, those that are empty left out: to Prometheus that is the same."""
    inside = ",".join(f'{name}="{escaped(value)}"' for name, value in values.items() if value)
    return f"{{{inside}}}" if inside else ""


def write(families: Iterable[Family]) -> Iterator[str]:
    """Yield the text of all families, in pieces that end with a line."""
    for family in families:
        lines = [
            f"# HELP {family.name} {family.help}\n",
            f"# TYPE {family.name} {family.kind}\n",
        ]
        for labelled, value in family.samples:
            lines.append(f"{family.name}{labelled} {value}\n")
            if len(lines) >= _PIECE_LINES:
                yield "".join(lines)
                lines.clear()
        yield "".join(lines)
