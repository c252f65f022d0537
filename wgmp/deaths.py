"""How often each process has died, and how long its successor waits.

One that dies is replaced at once. One that dies young again and again waits 0, 0.1, 0.2, 0.4 ... s,
and in the end there is no hope in one more. But there is when somebody else kills them: that says
nothing of what they had in hand, unless they had hardly begun (for want of memory, by the kernel).
"""

from __future__ import annotations

from collections.abc import Iterable

# A process that was this old when it died, or was killed, has worked.
_STABLE_S, _STABLE_IF_KILLED_S = 3.0, 0.3
_FIRST_BACKOFF_S = 0.1
_LONGEST_BACKOFF_S = 5.0
_MAX_DEATHS = 10


class Deaths:
    """The books, by name of the process.

    `restarts`: how often it was replaced; `hangs`: how often it was ended because it hung;
    `in_a_row`: how often it has died young since one of its name has worked.
    """

    def __init__(self) -> None:
        self.restarts: dict[str, int] = {}
        self.hangs: dict[str, int] = {}
        self.in_a_row: dict[str, int] = {}

    def open_books(self, names: Iterable[str]) -> None:
        """Let there be processes of these names; those there were keep their figures."""
        for name in names:
            for figures in (self.restarts, self.hangs, self.in_a_row):
                figures.setdefault(name, 0)

    def died(self, name: str, age_s: float, killed: bool = False) -> float | None:
        """Note a death; return after how many seconds a successor begins, None: it should not.

        `killed`: by somebody else.
        """
        young = age_s < (_STABLE_IF_KILLED_S if killed else _STABLE_S)
        count = self.in_a_row[name] + 1 if young else 0
        self.in_a_row[name] = count
        if count > _MAX_DEATHS and not killed:
            return None
        self.restarts[name] += 1
        return min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** (count - 2)) if count > 1 else 0.0
