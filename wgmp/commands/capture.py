"""`wgmp capture`: packets of a running gateway, inside and outside the tunnel, as pcapng."""

from __future__ import annotations

import argparse
import sys
from typing import Any, BinaryIO

from wgmp import progress
from wgmp.errors import ConfigError

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
    with _output(parsed.file) as file, progress.under_way("capturing") as show:
        try:
            written, lost = capture.run(interface, request, file, parsed.keys, *limits, show)
        except BrokenPipeError:
            raise  # whoever read it has seen enough
        except OSError as error:
            raise ConfigError(f"{error.filename or parsed.file}: {error.strerror}") from error
    taps_full = f", {lost} records lost because the taps were full" if lost else ""
    print(f"{written} packets{taps_full}", file=sys.stderr)
    return 0


def _output(path: str) -> BinaryIO:
    if path == "-":
        if sys.stdout.isatty():
            raise ConfigError(
                "a terminal cannot show packets: write -w FILE, or pipe to tshark -r -"
            )
        return sys.stdout.buffer
    try:
        return open(path, "wb")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
