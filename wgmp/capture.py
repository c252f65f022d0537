"""`wgmp capture`: from the taps of a running gateway to a pcapng file, and a key log if asked for.

Each packet's comment says the role that had it in hands, its peer, and why it was dropped if it
was.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import BinaryIO

from wgmp import __version__, control, tap
from wgmp.keylog import KeyLog
from wgmp.keys import to_base64
from wgmp.pcapng import Direction, PcapngWriter
from wgmp.protocol.outcome import DropReason
from wgmp.tap import Point
from wgmp.taphost import Capture
from wgmp.tapreader import Captured, TapReader

_POLL_S = 0.01
_SIDES = ("inner", "outer")


def run(
    interface: str,
    request: Capture,
    output: Callable[[], BinaryIO],
    keys: str | None,
    most: int,
    seconds: float | None,
    show: Callable[[str], None],
) -> tuple[int, int]:
    """Capture until there are `most` packets, `seconds` are over, the gateway stops, or SIGINT or
    SIGTERM comes; return how many packets were written and how many records lost.

    `output`: opens the file, once the gateway has agreed. `keys`: the key log's path. `show` is
    told how far it is. Raises ControlError, OSError.
    """
    stopped = _stopped_by_signal()
    with contextlib.ExitStack() as stack:
        client, started, descriptors = control.begin_capture(interface, request)
        stack.enter_context(client)
        reader = TapReader(started, descriptors)
        file = stack.enter_context(output())
        key_log = None
        if keys is not None:
            key_log = stack.enter_context(contextlib.closing(KeyLog(keys, started)))
        names = [(f"{interface} {side}", f"the {side} side of {interface}") for side in _SIDES]
        writer = PcapngWriter(file, f"wgmp {__version__}", names)
        writer.flush()
        end = float("inf") if seconds is None else time.monotonic() + seconds
        written, over = 0, False
        while not over and written < most:
            over = _hung_up(client) or stopped() or time.monotonic() >= end
            for captured in reader.poll(everything=over):
                if captured.note.point is not Point.SECRET:
                    written += write(captured, writer, started.peers, most - written)
                elif key_log is not None:
                    key_log.ephemeral(to_base64(captured.packets[0]), captured.note.peer)
            writer.flush()
            show(f"{written} packets")
        return written, reader.lost


def _stopped_by_signal() -> Callable[[], bool]:
    """Return what tells whether SIGINT or SIGTERM has come since now."""
    came: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: came.append(number))
    return lambda: bool(came)


def _hung_up(client: socket.socket) -> bool:
    """Wait a moment; return whether the gateway has hung up."""
    return bool(select.select([client], [], [], _POLL_S)[0])


def comment_of(captured: Captured, peers: dict[int, str]) -> str:
    """Return what is said of every packet of a record."""
    note = captured.note
    parts = [captured.role]
    if note.peer in peers:
        parts.append(f"peer {peers[note.peer]}")
    if note.dropped:
        try:
            reason = DropReason(note.reason).name.lower()
        except ValueError:
            reason = "for an unknown reason"
        some = note.dropped < captured.count
        how_many = f" ({note.dropped} of the {captured.count} around this one)" if some else ""
        parts.append(f"dropped: {reason}{how_many}")
    return "; ".join(parts)


def write(captured: Captured, writer: PcapngWriter, peers: dict[int, str], most: int) -> int:
    """Write a record's packets, `most` of them at the most; return how many."""
    note = captured.note
    outgoing = note.point in (Point.INNER_OUT, Point.OUTER_OUT)
    direction = Direction.OUTBOUND if outgoing else Direction.INBOUND
    interface = 0 if note.point.side == tap.INNER else 1
    comment = comment_of(captured, peers)
    packets = captured.packets[:most]
    for packet in packets:
        writer.packet(interface, note.time_ns, packet, direction, comment)
    return len(packets)
