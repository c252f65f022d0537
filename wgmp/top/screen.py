"""One frame of `wgmp top`: the gateway, its processes, its peers.

    wg0: wgmp 0.1.0, compact, 1 worker, native      the device, then what goes through
    process     CPU            rings                a line per process
    peer        endpoint       rx     tx            as many peers as there is room for

Readable at 80 columns and without colour: what colours say, characters say as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wgmp.observe.rates import stage_rates
from wgmp.observe.snapshot import ProcessFigures, RingFigures, Snapshot
from wgmp.observe.text import age, bits, quantity, size
from wgmp.top.peers import COLUMNS, Column, PeerRow, peer_rows
from wgmp.top.view import HELP, View

_WIDE = 120
_BAR = 10
_HOT, _WARM = 0.9, 0.6
# What figures leave goes to these columns. A wide terminal's peer has room for name and key.
_RATIOS = {"peer": 5, "endpoint": 6, "drops": 5}
_WIDE_RATIOS = {"peer": 12, "endpoint": 9, "drops": 7}
# The heading's three, blank lines, the tables' heads and the foot.
_LINES_BESIDE_ROWS = 8


@dataclass(frozen=True, slots=True)
class Frame:
    """What is to be shown: two snapshots, for the rates, and the user's choices.

    `width`: columns; `height`: lines, None for as many as it takes. `ascii`: without blocks.
    """

    before: Snapshot
    after: Snapshot
    view: View
    width: int
    height: int | None = None
    ascii: bool = False

    def render(self) -> RenderableType:
        """Return the whole frame; a view below the last row comes up to it."""
        processes = self._processes()
        rows = peer_rows(
            self.before, self.after, self.view.sort, self.view.inverted, self.view.filter
        )
        parts: list[RenderableType] = [*self._heading(), "", processes, ""]
        room = None
        if self.height is not None:
            room = max(1, self.height - processes.row_count - _LINES_BESIDE_ROWS)
        self.view.stay_within(len(rows), room)
        parts += [self._peers(rows, room), self._foot(len(rows), room)]
        return Group(*parts)

    # --- the gateway ---

    def _heading(self) -> list[Text]:
        now, shakes = self.after, self.after.handshakes
        title = self._line()
        title.append(now.interface, style="bold")
        # Before what may be cut off.
        if shakes.under_load:
            title.append("  UNDER LOAD", style="bold red")
        if self.view.paused:
            title.append("  PAUSED", style="bold yellow")
        title.append(
            f": wgmp {now.version}, {now.shape}, {_workers(now)}, {now.fastpath}, "
            f"port {now.listen_port}, up {age(now.uptime_s)}"
        )
        lines = [title]
        for parts in (self._through(), self._events()):
            line = self._line()
            for name, text in parts:
                line.append(f"{name} ", style="dim")
                line.append(f"{text}  ")
            lines.append(line)
        return lines

    def _through(self) -> list[tuple[str, str]]:
        rates = {rate.stage: rate for rate in stage_rates(self.before, self.after)}
        parts = []
        for name, stage in (("in", "udp_reader"), ("out", "udp_writer")):
            rate = rates[stage]
            shared = f", {rate.packets_per_record:.0f} a record" if rate.records else ""
            parts.append((name, f"{bits(rate.bytes)} {quantity(rate.packets)} pkt/s{shared}"))
        return parts

    def _events(self) -> list[tuple[str, str]]:
        seconds = max(1e-3, self.after.taken_at - self.before.taken_at)
        drops, shakes = self.after.drops, self.after.handshakes
        rate = (sum(drops.values()) - sum(self.before.drops.values())) / seconds
        most = sorted(drops, key=lambda reason: -drops[reason])[:3]
        reasons = "".join(f", {quantity(drops[reason])} {reason}" for reason in most)
        return [
            ("handshakes", str(shakes.completed)),
            ("given up", str(shakes.given_up)),
            ("dropped", f"{quantity(rate)}/s{reasons}"),
        ]

    @property
    def _overflow(self) -> Literal["crop", "ellipsis"]:
        return "crop" if self.ascii else "ellipsis"

    def _line(self) -> Text:
        return Text(no_wrap=True, overflow=self._overflow)

    # --- processes ---

    def _processes(self) -> Table:
        table = _table()
        shown = self._busiest()
        first = "process"
        if len(shown) < len(self.after.processes):
            first = f"{len(shown)} busiest of {len(self.after.processes)}"
        for title, right in (
            *((first, False), ("CPU", False), ("", True), ("RSS", True)),
            *(("fullest ring", False), ("", True), ("most", True), ("restarts", True)),
        ):
            table.add_column(title, justify="right" if right else "left", no_wrap=True)
        for process in shown:
            load = process.cpu_percent / 100
            ring, fill, most = self._ring(process)
            table.add_row(
                Text(process.name if process.pid else f"{process.name} (down)"),
                self._bar(load),
                f"{process.cpu_percent:.0f}%",
                size(process.rss_bytes),
                Text(ring, style="dim"),
                self._bar(fill) if ring else "",
                f"{most:.0%}" if ring else "",
                Text(str(process.restarts), style="bold red" if process.restarts else "dim"),
            )
        return table

    def _busiest(self) -> list[ProcessFigures]:
        """Return the processes there is room for, in their order: half the screen is the peers'."""
        processes = self.after.processes
        if self.height is None:
            return processes
        room = max(1, (self.height - _LINES_BESIDE_ROWS) // 2)
        busiest = sorted(processes, key=lambda process: -process.cpu_percent)[:room]
        return [process for process in processes if process in busiest]

    def _ring(self, process: ProcessFigures) -> tuple[str, float, float]:
        """Return the fullest ring that the process reads: its name, its fill, the most ever."""
        read = [ring for ring in self.after.rings if ring.name.partition(">")[2] in process.roles]
        if not read:
            return "", 0.0, 0.0

        def fullness(ring: RingFigures) -> tuple[float, float]:
            return ring.depth / ring.slots, ring.high_water / ring.slots

        fullest = max(read, key=fullness)
        return fullest.name, *fullness(fullest)

    def _bar(self, share: float) -> Text:
        share = min(1.0, max(0.0, share))
        full, empty = ("#", ".") if self.ascii else ("\u2588", "\u2591")
        count = round(share * _BAR)
        style = "red" if share >= _HOT else "yellow" if share >= _WARM else "green"
        bar = Text(full * count, style=style)
        bar.append(empty * (_BAR - count), style="dim")
        return bar

    # --- peers ---

    def _columns(self) -> list[Column]:
        return [c for c in COLUMNS if self.width >= _WIDE or not c.wide or c is self.view.sort]

    def _peers(self, rows: list[PeerRow], room: int | None) -> Table:
        table = _table(expand=True)
        columns = self._columns()
        down, up = ("v", "^") if self.ascii else ("\u25bc", "\u25b2")
        for column in columns:
            title = Text(column.title)
            if column is self.view.sort:
                descending = column.descending != self.view.inverted
                title = Text(f"{column.title} {down if descending else up}", style="reverse")
            left = column.name in ("peer", "endpoint", "drops", "worker")
            ratios = _WIDE_RATIOS if self.width >= _WIDE else _RATIOS
            table.add_column(
                title,
                justify="left" if left else "right",
                no_wrap=True,
                overflow=self._overflow,
                ratio=ratios.get(column.name),
                # So that the columns stay where they are while figures change.
                min_width={"rx": 10, "tx": 10, "handshake": 7}.get(column.name),
            )
        for row in rows[self.view.first :][:room]:
            table.add_row(*(self._cell(column, row) for column in columns))
        return table

    def _cell(self, column: Column, row: PeerRow) -> Text:
        text = column.show(row)
        style = ""
        if column.name == "drops":
            style = "yellow" if row.dropped else "dim"
        elif column.name == "peer" and row.peer.name:
            style = "bold"
            if self.width >= _WIDE:
                text = f"{row.peer.name}  {row.peer.public_key}"
        elif column.name in ("rx", "tx") and not column.value(row):
            style = "dim"
        return Text(text, style=style)

    def _foot(self, count: int, room: int | None) -> Text:
        view = self.view
        if view.typing:
            return Text(f"filter: {view.filter}_   (enter: keep, escape: all)")
        foot = self._line()
        shown = count if room is None else min(count, room)
        foot.append(f"{shown} of {len(self.after.peers)} peers", style="bold")
        if view.filter:
            foot.append(f" with {view.filter!r}")
        if self.height is not None:
            for key, what in HELP:
                foot.append("  ")
                foot.append(key, style="bold")
                foot.append(f" {what}")
        return foot


def _workers(snapshot: Snapshot) -> str:
    return f"{snapshot.workers_count} worker{'s' * (snapshot.workers_count > 1)}"


def _table(expand: bool = False) -> Table:
    return Table(box=None, padding=(0, 1, 0, 0), expand=expand, header_style="bold", pad_edge=False)
