"""`wgmp capture`: packets of a running gateway, inside and outside the tunnel, as pcapng."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, BinaryIO

from wgmp import progress
from wgmp.errors import ConfigError, WgmpError

_WARNING = """\
wgmp: {} gets this gateway's private key: whoever reads it can read its traffic and pose as this
gateway. Delete it when you are done."""

_EPILOG = """\
Read a file with wireshark or tshark, or watch live: wgmp capture wg0 | tshark -r -
Comments say the role that saw a packet, its peer, and the reason if it was dropped.
"""


def add_to(commands: Any) -> None:
    """Add the subcommand to the parser's `commands` (what `add_subparsers` returned)."""
    parser = commands.add_parser(
        "capture",
        help="packets inside and outside the tunnel, as pcapng",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("interface", metavar="IFACE", nargs="?", help="default: the only one")
    sides = parser.add_mutually_exclusive_group()
    for side, text in (
        ("outer", "datagrams between this host and its peers"),
        ("inner", "packets that go through the tunnel"),
        ("both", "both (the default)"),
    ):
        sides.add_argument(f"--{side}", dest="side", action="store_const", const=side, help=text)
    parser.add_argument("--peer", metavar="KEY", default="", help="one peer's packets only")
    parser.add_argument("--count", metavar="N", type=_count, help="stop after N packets")
    parser.add_argument("--seconds", metavar="S", type=_seconds, help="stop after S seconds")
    parser.add_argument("-w", dest="file", metavar="FILE", default="-", help="default: - (stdout)")
    parser.add_argument(
        "--keys", metavar="FILE", help="SECRET keys for wireshark's decryption (wg.keylog_file)"
    )
    parser.set_defaults(command=_capture, side="both")


def _count(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of packets: write 1 or more")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write seconds, such as 10")
    return seconds


def _capture(parsed: argparse.Namespace) -> int:
    from wgmp import capture, control  # numpy takes a while to import
    from wgmp.taphost import Capture

    interface = control.choose_interface(parsed.interface)
    request = Capture(
        inner=parsed.side != "outer",
        outer=parsed.side != "inner",
        peer=parsed.peer,
        secrets=parsed.keys is not None,
    )
    if parsed.keys is not None:
        print(_WARNING.format(parsed.keys), file=sys.stderr)
    limits = parsed.count or sys.maxsize, parsed.seconds
    if parsed.file == "-" and sys.stdout.isatty():
        raise ConfigError("a terminal cannot show packets: write -w FILE, or pipe to tshark -r -")
    with progress.under_way("capturing") as show:
        try:
            written, lost = capture.run(
                interface, request, lambda: _open(parsed.file), parsed.keys, *limits, show
            )
        except BrokenPipeError:
            raise  # whoever read it has seen enough
        except OSError as error:
            output = "standard output" if parsed.file == "-" else parsed.file
            where = error.filename or output
            raise WgmpError(f"{where} cannot be written: {error.strerror}") from error
    taps_full = f", {lost} records lost because the taps were full" if lost else ""
    print(f"{written} packets{taps_full}", file=sys.stderr)
    return 0


def _open(path: str) -> BinaryIO:
    if path == "-":
        return open(os.dup(1), "wb")
    # What goes through the tunnel is nobody else's to read.
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
