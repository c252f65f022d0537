"""Figures as people read them."""

from __future__ import annotations

from collections.abc import Sequence

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_THOUSANDS = ("", "k", "M", "G", "T", "P")


def size(count: float) -> str:
    """Return bytes with their binary unit: 512 B, 1.5 KiB."""
    for unit in _UNITS[:-1]:
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} {_UNITS[-1]}"


def bits(bytes_per_second: float) -> str:
    """Return a rate in decimal bits per second, as links are sold: 1.2 Gbit/s, 0 bit/s."""
    return f"{quantity(bytes_per_second * 8, ' ')}bit/s"


def quantity(count: float, gap: str = "") -> str:
    """Return a number with at most three digits and a decimal suffix: 999, 1.2k, 35M."""
    for suffix in _THOUSANDS[:-1]:
        if count < 999.5:
            digits = 1 if count < 9.95 and (suffix or count % 1) else 0
            return f"{count:.{digits}f}{gap}{suffix}"
        count /= 1000
    return f"{count:.0f}{gap}{_THOUSANDS[-1]}"


def age(seconds: float | None) -> str:
    """Return how long ago in one word: 5s, 3m, 2h, 4d; "never" for None."""
    if seconds is None:
        return "never"
    for limit, length, unit in ((120, 1, "s"), (7200, 60, "m"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{max(0.0, seconds) / length:.0f}{unit}"
    return f"{seconds / 86_400:.0f}d"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return aligned columns, the first one to the left, the others to the right."""
    if not rows:
        return f"{head[0]}: none"
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
