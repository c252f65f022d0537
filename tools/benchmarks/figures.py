"""Figures: samples of the repeats, their median and spread, and ratios within a run.

A `Section` is one table: a `Line` per thing measured, a column per candidate. Every line has one
sample per repeat and column, None where that measurement failed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

Samples = list[float | None]


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of some samples."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """One thing measured. `samples`: by column, in the order of the repeats."""

    what: str
    unit: str
    samples: dict[str, Samples] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """One table. `ratios`: pairs of columns, the first of which is divided by the second."""

    title: str
    note: str
    columns: list[str]
    ratios: list[tuple[str, str]]
    lines: list[Line] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def line(self, what: str, unit: str) -> Line:
        """Return the line for `what`, a new and empty one the first time."""
        for line in self.lines:
            if (line.what, line.unit) == (what, unit):
                return line
        self.lines.append(Line(what, unit))
        return self.lines[-1]

    def add(self, repeat: int, column: str, what: str, unit: str, value: float) -> None:
        """Record a measurement of the repeat with that number, counted from 0."""
        samples = self.line(what, unit).samples.setdefault(column, [])
        samples += [None] * (repeat + 1 - len(samples))
        samples[repeat] = value


def spread(samples: Iterable[float | None]) -> Spread | None:
    """Return the spread of the samples that are there, None when none is."""
    values = [sample for sample in samples if sample is not None]
    return Spread(statistics.median(values), min(values), max(values)) if values else None


def ratio(line: Line, above: str, below: str) -> Spread | None:
    """Return the spread of a line's ratios, each within one repeat."""
    pairs = zip(line.samples.get(above, ()), line.samples.get(below, ()), strict=False)
    return spread(a / b for a, b in pairs if a is not None and b)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the least value that at least `percent` of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]
