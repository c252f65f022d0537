"""`wgmp status`: interfaces and peers, as `wg show` shows them; and networks of the agent."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

import msgspec

from wgmp.commands.agent import add_socket, show_status
from wgmp.errors import ControlError


def add_to(commands: Any) -> None:
    """Add the subcommand to the parser's `commands` (what `add_subparsers` returned)."""
    parser = commands.add_parser(
        "status", help="interfaces as `wg show` has them, or a network of the agent's"
    )
    parser.add_argument(
        "name", metavar="IFACE", nargs="?", help="or a network; default: all interfaces"
    )
    parser.add_argument("--json", action="store_true", help="as JSON: a list, one for a network")
    add_socket(parser)
    parser.set_defaults(command=_status)


def _status(parsed: argparse.Namespace) -> int:
    from wgmp.observe import status  # what these reach takes a while to import
    from wgmp.observe.status_text import StatusText

    if parsed.name and show_status(parsed):
        return 0
    hide_keys = os.environ.get("WG_HIDE_KEYS") != "never"
    devices = [
        status.ask(interface, _names(interface), hide_keys)
        for interface in ([parsed.name] if parsed.name else status.interfaces())
    ]
    if parsed.json:
        print(msgspec.json.encode(devices).decode())
    elif devices:
        print(StatusText(_in_colour(), int(time.time())).devices(devices))
    return 0


def _names(interface: str) -> dict[str, str]:
    """Return the names of an interface's peers: as its gateway knows them, if it is one of ours."""
    from wgmp import control
    from wgmp.observe.names import Names, default_file

    try:
        return {peer.public_key: peer.name for peer in control.ask_stats(interface).peers}
    except ControlError:
        return Names([default_file(interface)]).current()


def _in_colour() -> bool:
    """Decide as `wg` does; NO_COLOR says never where WG_COLOR_MODE says nothing."""
    mode = os.environ.get("WG_COLOR_MODE")
    if mode in ("always", "never"):
        return mode == "always"
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
