"""`wgmp top`: a gateway live in a terminal."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from wgmp.errors import ConfigError

# The names of COLUMNS in wgmp/top/peers.py, which takes a while to import.
SORTS = ("peer", "endpoint", "rx", "tx", "received", "sent", "handshake", "worker", "drops")


def add_to(commands: Any) -> None:
    """Add the subcommand to the parser's `commands` (what `add_subparsers` returned)."""
    parser = commands.add_parser("top", help="a gateway live: processes, rings, peers by rate")
    parser.add_argument("interface", metavar="IFACE", nargs="?", help="default: the only one")
    parser.add_argument("--once", action="store_true", help="print one frame, with every peer")
    parser.add_argument("--sort", metavar="COLUMN", choices=SORTS, default="rx", help="else rx")
    parser.add_argument("--filter", metavar="TEXT", default="", help="peers that have it")
    parser.add_argument(
        "--interval", metavar="S", type=float, default=1.0, help="seconds between frames, 0.1..60"
    )
    parser.set_defaults(command=_top)


def _top(parsed: argparse.Namespace) -> int:
    from wgmp import control  # what these reach takes a while to import
    from wgmp.top import terminal
    from wgmp.top.view import View, column_named

    if not 0.1 <= parsed.interval <= 60:
        raise ConfigError(f"--interval: {parsed.interval:g} is not possible: write 0.1 to 60")
    interface = control.choose_interface(parsed.interface)
    view = View(sort=column_named(parsed.sort), filter=parsed.filter)
    if parsed.once:
        terminal.once(interface, view, parsed.interval)
        return 0
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("there is no terminal for a live view: use --once")
    terminal.run(interface, view, parsed.interval)
    return 0
