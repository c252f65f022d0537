"""`wgmp log-level`: more or fewer log lines of a running gateway."""

from __future__ import annotations

import argparse
from typing import Any

from wgmp.options import log_level


def add_to(commands: Any) -> None:
    """Add the subcommand to the parser's `commands` (what `add_subparsers` returned)."""
    parser = commands.add_parser("log-level", help="change how much a running gateway logs")
    parser.add_argument("interface", metavar="IFACE")
    parser.add_argument("level", metavar="LEVEL", help="verbose, info, error or silent")
    parser.set_defaults(command=_log_level)


def _log_level(parsed: argparse.Namespace) -> int:
    from wgmp import control  # what it reaches takes a while to import

    control.set_log_level(parsed.interface, log_level("LEVEL", parsed.level))
    return 0
