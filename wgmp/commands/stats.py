"""`wgmp stats`: what a gateway's processes, rings, stages, workers and peers are doing."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import msgspec

_FIRST_INTERVAL_S = 0.5
_INTERVAL_S = 1.0


def add_to(commands: Any) -> None:
    """Add the subcommand to the parser's `commands` (what `add_subparsers` returned)."""
    parser = commands.add_parser("stats", help="what a gateway's processes and peers are doing")
    parser.add_argument("interface", metavar="IFACE", nargs="?", help="default: the only one")
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    parser.add_argument("--watch", action="store_true", help="again each second, until Ctrl-C")
    parser.set_defaults(command=_stats)


def _stats(parsed: argparse.Namespace) -> int:
    from wgmp import control  # what these reach takes a while to import
    from wgmp.observe.processes import Meter
    from wgmp.observe.rates import stage_rates
    from wgmp.observe.report import report

    interface = control.choose_interface(parsed.interface)
    # Once, everything; again and again, without what is dear to find out.
    meter = Meter(memory=not parsed.watch)
    before = control.ask_stats(interface)
    meter.measure(before.processes)
    interval_s = _FIRST_INTERVAL_S
    while True:
        time.sleep(interval_s)
        snapshot = control.ask_stats(interface)
        meter.measure(snapshot.processes)
        snapshot.rates = stage_rates(before, snapshot)
        if parsed.json:
            print(msgspec.json.encode(snapshot).decode(), flush=True)
        else:
            clear = "\033[H\033[2J" if parsed.watch and sys.stdout.isatty() else ""
            print(clear + report(snapshot), flush=True)
        if not parsed.watch:
            return 0
        before, interval_s = snapshot, _INTERVAL_S
