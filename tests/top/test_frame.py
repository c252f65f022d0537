"""What each part of a frame of `wgmp top` says, as it can be read there."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from wgmp.observe.snapshot import PeerFigures, ProcessFigures, RingFigures, Snapshot
from wgmp.top.screen import Frame
from wgmp.top.view import View

from .snapshots import peer, snapshot, stage


def shown(
    before: Snapshot,
    after: Snapshot,
    width: int = 80,
    height: int | None = 24,
    view: View | None = None,
    colour: bool | None = None,
) -> list[str]:
    """The lines of a frame."""
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, force_terminal=colour)
    console.print(Frame(before, after, view or View(), width, height).render())
    return [line.rstrip() for line in out.getvalue().splitlines()]


def line_of(lines: list[str], first: str) -> str:
    """The line that begins with a word."""
    (line,) = (line for line in lines if line.startswith(f"{first} "))
    return line


def test_what_comes_in_and_what_goes_out_are_told_apart() -> None:
    before, after = snapshot(1.0, []), snapshot(3.0, [])
    after.stages = [stage("udp_reader", 2000), stage("udp_writer", 60_000)]
    assert shown(before, after)[1] == (
        "in 8.0 Mbit/s 1.0k pkt/s, 10 a record  out 240 Mbit/s 30k pkt/s, 10 a record"
    )
    quiet = shown(before, snapshot(3.0, []))[1]
    assert quiet == "in 0 bit/s 0 pkt/s  out 0 bit/s 0 pkt/s"


def test_the_heading_tells_of_handshakes_load_and_the_three_commonest_drops() -> None:
    before, after = snapshot(1.0, []), snapshot(3.0, [])
    before.drops = {"bad_tag": 5}
    after.drops = {"bad_tag": 5, "no_route": 1, "replayed": 1500, "bad_mac1": 7}
    after.handshakes.completed, after.handshakes.given_up = 11, 4
    lines = shown(before, after)
    assert "UNDER LOAD" not in lines[0]
    assert "PAUSED" not in lines[0]
    assert lines[2] == (
        "handshakes 11  given up 4  dropped 754/s, 1.5k replayed, 7 bad_mac1, 5 bad_tag"
    )
    after.handshakes.under_load, after.workers_count = True, 2
    title = shown(before, after)[0]
    assert title.startswith("wg0  UNDER LOAD: wgmp ")
    assert ", 2 workers, " in title


@pytest.mark.parametrize("width", [60, 80])
def test_a_long_name_and_a_long_life_cut_off_neither_load_nor_pause(width: int) -> None:
    after = snapshot(3.0, [])
    after.interface, after.shape, after.workers_count = "a" * 15, "pipeline", 16
    after.uptime_s, after.handshakes.under_load = 119.0, True
    title = shown(after, after, width=width, view=View(paused=True))[0]
    assert title.startswith("aaaaaaaaaaaaaaa  UNDER LOAD  PAUSED: wgmp ")


def pipeline(*loads: float) -> Snapshot:
    """Processes worker0, worker1 and so on, with so much CPU in percent."""
    made = snapshot(2.0, [])
    made.processes = [
        ProcessFigures(f"worker{number}", [f"worker{number}"], 100 + number, 0, cpu_percent=load)
        for number, load in enumerate(loads)
    ]
    return made


def test_a_process_is_shown_with_the_fullest_of_the_rings_it_reads() -> None:
    after = pipeline(43.0, 0.0)
    after.processes[0].rss_bytes, after.processes[0].restarts = 3 << 20, 2
    after.processes[1].pid = 0
    after.rings = [
        RingFigures("tun_reader>worker0", 16, 2, 0, 16, 0, 0, 0),
        RingFigures("udp_reader>worker0", 16, 4, 0, 8, 0, 0, 0),
        RingFigures("worker0>udp_writer", 16, 16, 0, 16, 0, 0, 0),
    ]
    lines = shown(after, after)
    assert line_of(lines, "worker0").split() == [
        *("worker0", "████░░░░░░", "43%", "3.0", "MiB"),
        *("udp_reader>worker0", "██░░░░░░░░", "50%", "2"),
    ]
    assert line_of(lines, "worker1").split() == [
        *("worker1", "(down)", "░░░░░░░░░░", "0%", "0", "B", "0"),
    ]


def test_bars_are_green_yellow_from_60_percent_and_red_from_90() -> None:
    after = pipeline(59.0, 60.0, 89.0, 90.0, 250.0)
    lines = shown(after, after, colour=True)
    rows = [line for line in lines if "worker" in line and "█" in line]
    colours = [re.findall(r"\x1b\[(\d+)m█+", row)[0] for row in rows]
    assert colours == ["32", "33", "33", "31", "31"]
    assert rows[-1].count("█") == 10


def test_where_there_is_no_room_the_busiest_processes_are_shown_in_their_order() -> None:
    after = pipeline(1.0, 90.0, 2.0, 50.0, 3.0, 4.0)
    lines = shown(after, after, height=14)
    assert lines[4].startswith("3 busiest of 6")
    assert [line.split()[0] for line in lines[5:8]] == ["worker1", "worker3", "worker5"]
    assert line_of(shown(after, after), "process")
    everything = shown(after, after, height=None)
    assert line_of(everything, "process")
    assert line_of(everything, "worker0")


NARROW = ["peer", "endpoint", "rx ▼", "tx", "shake", "drops"]
WIDE = ["peer", "endpoint", "rx ▼", "tx", "received", "sent", "shake", "worker", "drops"]


def busy() -> tuple[Snapshot, Snapshot]:
    """A peer to and from which something went within two seconds, among idle ones."""
    figures = {"name": "office", "endpoint": "192.0.2.1:51820", "handshake_age_s": 61.0}
    rest = [peer(number) for number in range(2, 8)]

    def at(seconds: float, received: int, sent: int) -> Snapshot:
        drops = {"bad_tag": 1, "replayed": 22}
        first: PeerFigures = peer(1, rx_bytes=received, tx_bytes=sent, drops=drops, **figures)
        return snapshot(seconds, [first, *rest])

    return at(1.0, 50_000, 1_000_000), at(3.0, 300_000, 6_000_000)


def test_a_peer_s_figures_stand_under_their_titles() -> None:
    lines = shown(*busy(), width=200)
    (head,) = (line for line in lines if line.startswith("peer "))
    assert head.split() == " ".join(WIDE).split()
    assert line_of(lines, "office").split() == [
        *("office", peer(1).public_key, "192.0.2.1:51820", "1.0", "Mbit/s", "20", "Mbit/s"),
        *("293.0", "KiB", "5.7", "MiB", "61s", "worker0", "22", "replayed,", "1", "bad_tag"),
    ]
    assert line_of(lines, peer(2).public_key).split()[1:] == [
        *("192.0.2.2:51820", "0", "0", "0", "B", "0", "B", "2s", "worker0", "-"),
    ]


@pytest.mark.parametrize("width", [80, 100, 119, 120, 130, 140, 160, 180, 250])
def test_no_width_hides_a_column_or_its_figures(width: int) -> None:
    lines = shown(*busy(), width=width)
    (head,) = (line for line in lines if line.startswith("peer "))
    titles = WIDE if width >= 120 else NARROW
    assert all(re.search(rf"(^| ){title}( |$)", head) for title in titles), head
    row = line_of(lines, "office")
    for figure in ("192.0.2.1", "1.0 Mbit/s", "20 Mbit/s", "61s", "22 replayed"):
        assert figure in row
    if width >= 120:
        assert all(figure in row for figure in ("293.0 KiB", "5.7 MiB", "worker0"))


def test_a_column_that_sorts_is_shown_in_narrow_terminals_too() -> None:
    view = View()
    view.press("R")
    lines = shown(*busy(), view=view)
    assert any(re.search(r" received ▼ ", line) for line in lines)
    assert "293.0 KiB" in line_of(lines, "office")


def test_the_foot_says_how_many_are_shown_of_how_many_and_which_keys_there_are() -> None:
    foot = shown(*busy(), height=17)[-1]
    assert foot.startswith("7 of 7 peers  q quit  space pause  <> sort  i invert  / filter")
    assert shown(*busy(), height=15)[-1].startswith("5 of 7 peers  q quit")
    assert shown(*busy(), height=None)[-1] == "7 of 7 peers"
    view = View(filter="office")
    assert shown(*busy(), view=view)[-1].startswith("1 of 7 peers with 'office'  q quit")
