"""Frames of `wgmp top`: for narrow and wide terminals, with and without colour."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from wgmp.top.screen import Frame
from wgmp.top.view import View, column_named

from .snapshots import peer, snapshot

PEERS = [
    peer(1, name="office [Wien]", rx_bytes=125_000_000, drops={"source_not_allowed": 12}),
    peer(2, endpoint="[2001:db8:1234:5678:9abc:def0:1234:5678]:51820", handshake_age_s=None),
    *(peer(number) for number in range(3, 40)),
]


def render(
    width: int,
    height: int | None,
    view: View | None = None,
    *,
    ascii: bool = False,
    colour: bool | None = None,
) -> list[str]:
    """The lines of a frame, one second after a quiet one."""
    quiet = [peer(number) for number in range(1, 40)]
    before, after = snapshot(1.0, quiet), snapshot(2.0, PEERS, packets=10_000)
    frame = Frame(before, after, view or View(), width, height, ascii)
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, force_terminal=colour)
    console.print(frame.render())
    return out.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50), (60, 15), (80, 10), (300, 90)])
def test_a_frame_fits_its_terminal(width: int, height: int) -> None:
    lines = render(width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("width", [80, 200])
def test_a_frame_tells_of_device_processes_and_peers(width: int) -> None:
    text = "\n".join(render(width, 50))
    for word in (
        *("wg0: wgmp 1.2.3, compact, 1 worker, native, port 51820", "80 Mbit/s", "10 a record"),
        *("gateway", "98%", "worker0>udp_writer", "100%", "1.0 GiB"),
        *("office [Wien]", "1.0 Gbit/s", "never", "12 sou", "39 of 39 peers"),
    ):
        assert word in text


def test_a_narrow_frame_has_what_one_needs_and_a_wide_one_all() -> None:
    assert "received" not in "".join(render(80, 24))
    wide = "\n".join(render(200, 50))
    assert "received" in wide
    assert "12 source_not_allowed" in wide
    assert PEERS[0].public_key in wide
    assert PEERS[1].endpoint in wide


def test_what_colour_says_characters_say_too() -> None:
    plain = render(80, 24)
    assert not any("\x1b" in line for line in plain)
    assert any("\u2588" * 10 in line for line in plain), "a bar that is full"
    assert any("rx \u25bc" in line for line in plain), "the column that sorts"
    assert "rx \u25b2" in "\n".join(render(80, 24, View(inverted=True)))
    coloured = "\n".join(render(80, 24, colour=True))
    assert "\x1b[31m" in coloured


def test_a_terminal_without_blocks_gets_plain_characters() -> None:
    lines = render(80, 24, ascii=True)
    assert "\n".join(lines).isascii()
    assert any("##########" in line for line in lines)


def test_filter_pause_and_typing_show() -> None:
    view = View(filter="office", paused=True)
    text = "\n".join(render(80, 24, view))
    assert "PAUSED" in text
    assert "1 of 39 peers with 'office'" in text
    view.typing = True
    assert "filter: office_" in "\n".join(render(80, 24, view))


def test_without_a_height_every_peer_is_there() -> None:
    text = "\n".join(render(80, None, View(sort=column_named("peer"))))
    assert all(f"{number:04}k" in text for number in range(2, 40))


def test_scrolling_ends_with_the_last_peer() -> None:
    view = View(sort=column_named("peer"), first=1000)
    text = "\n".join(render(80, 24, view))
    assert "0039k" in text
    assert "0002k" not in text
    view.press("up")
    assert "\n".join(render(80, 24, view)) != text, "a key up moves at once"
