"""The results as tables for a terminal, as JSON, and as the page docs/BENCHMARKS.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from .figures import Line, Section, Spread, ratio, spread


@dataclass(frozen=True)
class Run:
    """One run: when (ISO 8601), the machine, how it was started, how noisy it was, the tables."""

    date: str
    command: str
    machine: dict[str, str]
    noise: dict[str, str]
    sections: list[Section] = field(default_factory=list)


# Longer names stand in the legend alone.
_HEAD = 24


def legend(section: Section) -> str:
    """Return which number is which column: the ratios are given by numbers."""
    names = (f"({number}) {column}" for number, column in enumerate(section.columns, 1))
    return f"Columns: {', '.join(names)}."


def table(section: Section) -> str:
    """Return a section's lines as a Markdown table with aligned columns."""
    numbers = {column: str(number) for number, column in enumerate(section.columns, 1)}
    heads = [number if len(name) > _HEAD else name for name, number in numbers.items()]
    ratios = [f"{numbers[above]} / {numbers[below]}" for above, below in section.ratios]
    rows = [["", "unit", *heads, *ratios]]
    for line in section.lines:
        values = [_text(spread(line.samples.get(column, ()))) for column in section.columns]
        # A ratio of shares says nothing.
        shares = line.unit == "%"
        values += ["" if shares else _text(ratio(line, *pair)) for pair in section.ratios]
        rows.append([line.what, line.unit, *values])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rule = ["-" * widths[0], "-" * widths[1], *("-" * (width - 1) + ":" for width in widths[2:])]
    return "\n".join(_row(row, widths) for row in [rows[0], rule, *rows[1:]])


def _row(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
    cells += [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
    return f"| {' | '.join(cells)} |"


def _text(value: Spread | None) -> str:
    """Return "median (low..high)", or the one value where all are the same."""
    if value is None:
        return ""
    median, low, high = (_number(x) for x in (value.median, value.low, value.high))
    return median if low == high else f"{median} ({low}..{high})"


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def terminal(run: Run) -> str:
    """Return the tables and what failed."""
    blocks = []
    for section in run.sections:
        blocks.append(f"{section.title}: median (least..greatest). {legend(section)}")
        blocks.append(table(section))
        blocks += [f"failed: {failure}" for failure in section.failures]
    return "\n\n".join(blocks)


def to_json(run: Run) -> str:
    """Return everything as JSON: every sample, with medians, spreads and ratios beside them."""
    document = asdict(run)
    for section, plain in zip(run.sections, document["sections"], strict=True):
        plain["lines"] = [_line_document(section, line) for line in section.lines]
    return json.dumps(document, indent=2) + "\n"


def _line_document(section: Section, line: Line) -> dict[str, object]:
    summaries = {column: spread(samples) for column, samples in line.samples.items()}
    ratios = {f"{a} / {b}": ratio(line, a, b) for a, b in section.ratios}
    return {
        "what": line.what,
        "unit": line.unit,
        "samples": line.samples,
        "summary": {name: asdict(value) for name, value in summaries.items() if value},
        "ratios": {name: asdict(value) for name, value in ratios.items() if value},
    }


def page(run: Run) -> str:
    """Return the run as docs/BENCHMARKS.md."""
    facts = "\n".join(f"| {name} | {value} |" for name, value in run.machine.items())
    noise = "\n".join(f"- {name}: {value}" for name, value in run.noise.items())
    blocks = [
        "# Benchmarks",
        f"Written by `{run.command}` on {run.date}. Do not edit: run it again.",
        f"| machine | |\n|---|---|\n{facts}",
        "Every figure is the median of the repeats, with the least and the greatest in "
        "parentheses. What is compared was measured in turn within this one run, and a ratio is "
        "the median of the ratios within each repeat.",
        "**Noise.** Figures of different runs or machines cannot be compared, their ratios with "
        "care; a difference smaller than the spreads is none. During this run:\n\n" + noise,
    ]
    for section in run.sections:
        blocks += [f"## {section.title}", section.note, legend(section), table(section)]
        blocks += [f"Failed: {failure}" for failure in section.failures]
    return "\n\n".join(blocks) + "\n"
