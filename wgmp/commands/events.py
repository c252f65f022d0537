"""`wgmp events`: what happens in a gateway, as it happens."""

from __future__ import annotations

import argparse
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from wgmp.events import Event


def add_to(commands: Any) -> None:
    """Add the subcommand to the parser's `commands` (what `add_subparsers` returned)."""
    parser = commands.add_parser("events", help="what happens in a gateway, as it happens")
    parser.add_argument("interface", metavar="IFACE", nargs="?", help="default: the only one")
    parser.add_argument("--json", action="store_true", help="a JSON object per line")
    parser.set_defaults(command=_events)


def _events(parsed: argparse.Namespace) -> int:
    from wgmp import control  # what it reaches takes a while to import

    for event in control.follow_events(control.choose_interface(parsed.interface)):
        if parsed.json:
            print(msgspec.json.encode(event).decode(), flush=True)
        else:
            print(in_words(event), flush=True)
    return 0


def in_words(event: Event) -> str:
    """Return an event, a gateway's or the agent's, as a line for people."""
    when = datetime.fromtimestamp(event.time).isoformat(" ", "milliseconds")
    return f"{when} {event.source}: {event.text()}"
