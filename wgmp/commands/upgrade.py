"""`wgmp upgrade`: this program takes a running gateway over from the one that runs it."""

from __future__ import annotations

import argparse
import sys
from typing import Any


def add_to(commands: Any) -> None:
    """Add the subcommand to the parser's `commands` (what `add_subparsers` returned)."""
    parser = commands.add_parser(
        "upgrade", help="let this version take a running gateway over, while traffic flows"
    )
    parser.add_argument("interface", metavar="IFACE", nargs="?", help="default: the only one")
    parser.set_defaults(command=_upgrade)


def _upgrade(parsed: argparse.Namespace) -> int:
    from wgmp import control  # what it reaches takes a while to import

    interface = control.choose_interface(parsed.interface)
    # -P: a module of that name in the gateway's working directory is not meant.
    done = control.upgrade(interface, [sys.executable, "-P", "-m", "wgmp"])
    pause_ms = round(1000 * done.pause_s)
    print(
        f"{interface}: version {done.version} has taken over as process {done.pid}; "
        f"traffic waited for {pause_ms} ms"
    )
    return 0
