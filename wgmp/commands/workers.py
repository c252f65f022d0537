"""`wgmp workers`: another number of workers for a running gateway."""

from __future__ import annotations

import argparse
from typing import Any


def add_to(commands: Any) -> None:
    """Add the subcommand to the parser's `commands` (what `add_subparsers` returned)."""
    parser = commands.add_parser("workers", help="change the number of workers while traffic flows")
    parser.add_argument("count", metavar="N", type=int, help="crypto workers, 1..64")
    parser.add_argument("interface", metavar="IFACE", nargs="?", help="default: the only one")
    parser.set_defaults(command=_workers)


def _workers(parsed: argparse.Namespace) -> int:
    from wgmp import control  # what it reaches takes a while to import

    control.set_workers(control.choose_interface(parsed.interface), parsed.count)
    return 0
