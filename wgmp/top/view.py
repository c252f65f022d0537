"""What the user of `wgmp top` has chosen, and what each key does."""

from __future__ import annotations

from dataclasses import dataclass, field

from wgmp.top.peers import COLUMNS, Column

HELP = (
    ("q", "quit"),
    ("space", "pause"),
    ("<>", "sort"),
    ("i", "invert"),
    ("/", "filter"),
    ("arrows", "scroll"),
)

_BY_KEY = {column.key: column for column in COLUMNS}
_PAGE_ROWS = 10


def column_named(name: str) -> Column:
    """Return the column that `--sort` names; raises KeyError."""
    return {column.name: column for column in COLUMNS}[name]


@dataclass
class View:
    """The choices. `first`: the row at the top; `typing`: keys go into the filter."""

    sort: Column = field(default_factory=lambda: column_named("rx"))
    inverted: bool = False
    filter: str = ""
    typing: bool = False
    paused: bool = False
    first: int = 0

    def press(self, key: str) -> bool:
        """Do what the key says; return False for the end. Keys that say nothing do nothing."""
        if self.typing:
            self._type(key)
            return True
        match key:
            case "q" | "\x03" | "\x04":
                return False
            case " " | "p":
                self.paused = not self.paused
            case "i":
                self.inverted = not self.inverted
            case "/":
                self.typing = True
            case "escape":
                self.filter = ""
            case "<" | "left":
                self._move(-1)
            case ">" | "right":
                self._move(1)
            case "up" | "down" | "page up" | "page down" | "home":
                self._scroll(key)
            case _ if key in _BY_KEY:
                # Once more the same inverts.
                column = _BY_KEY[key]
                self.inverted = not self.inverted if column is self.sort else False
                self.sort = column
        return True

    def stay_within(self, rows: int, room: int | None) -> None:
        """Move up as far as it takes to fill the room; `room`: rows shown, None for all."""
        self.first = min(self.first, max(0, rows - (rows if room is None else room)))

    def _type(self, key: str) -> None:
        self.first = 0
        match key:
            case "enter":
                self.typing = False
            case "escape":
                self.typing, self.filter = False, ""
            case "backspace":
                self.filter = self.filter[:-1]
            case _ if len(key) == 1 and key.isprintable():
                self.filter += key

    def _move(self, step: int) -> None:
        self.sort = COLUMNS[(COLUMNS.index(self.sort) + step) % len(COLUMNS)]
        self.inverted = False

    def _scroll(self, key: str) -> None:
        step = {"up": -1, "down": 1, "page up": -_PAGE_ROWS, "page down": _PAGE_ROWS}
        self.first = max(0, self.first + step[key]) if key in step else 0
