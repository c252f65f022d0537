"""The command line's part of the agent: `wgmp agent`, and what asks a running one."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wgmp import logs, platforms
from wgmp.commands.events import in_words
from wgmp.logs import LogLevel
from wgmp.options import log_format_of, log_level

if TYPE_CHECKING:
    from wgmp.agent import api
    from wgmp.agent.client import Client

log = logging.getLogger("wgmp")

_SOCKET_VARIABLE = "WGMP_AGENT_SOCKET"


def add_to(commands: Any) -> None:
    """Add the subcommands to the parser's `commands` (what `add_subparsers` returned)."""
    agent = commands.add_parser("agent", help="run the networks of a settings file")
    agent.add_argument("verb", nargs="?", choices=["run", "stop", "check", "events"], default="run")
    agent.add_argument("--config", metavar="FILE", help="TOML or .json; /etc/wgmp/agent.toml")
    add_socket(agent)
    agent.set_defaults(command=_agent)

    for verb, text, name in (
        ("connect", "start a network of the agent's", "NETWORK"),
        ("disconnect", "stop a network of the agent's", "NETWORK"),
        ("reload", "have the agent read its settings file again", "[NETWORK]"),
    ):
        parser = commands.add_parser(verb, help=text)
        optional = "?" if name.startswith("[") else None
        parser.add_argument("network", metavar=name.strip("[]"), nargs=optional)
        add_socket(parser)
        parser.set_defaults(command=_asking(_VERBS[verb]))

    networks = commands.add_parser("networks", help="list the agent's networks")
    networks.add_argument("--json", action="store_true", help="as one JSON object")
    add_socket(networks)
    networks.set_defaults(command=_asking(_networks))


def add_socket(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where the agent listens."""
    parser.add_argument("--socket", metavar="PATH", help=f"the agent's; else {_SOCKET_VARIABLE}")


def socket_of(parsed: argparse.Namespace) -> Path:
    """Return where the agent listens: the option, the environment, or the default."""
    from wgmp.agent.settings import DEFAULT_SOCKET

    given = parsed.socket or os.environ.get(_SOCKET_VARIABLE)
    return Path(given) if given else DEFAULT_SOCKET


def _agent(parsed: argparse.Namespace) -> int:
    from wgmp.agent import settings_file
    from wgmp.agent.settings import DEFAULT_FILE

    if parsed.verb in _VERBS:
        return _asking(_VERBS[parsed.verb])(parsed)
    file = Path(parsed.config) if parsed.config else DEFAULT_FILE
    settings = settings_file.load(file)
    if parsed.verb == "check":
        print(f"{file}: {len(settings.networks)} networks: {', '.join(settings.networks)}")
        return 0
    platforms.require_linux("the agent")
    level = log_level("LOG_LEVEL", os.environ.get("LOG_LEVEL") or LogLevel.INFO)
    form = log_format_of("WGMP_LOG_FORMAT", os.environ.get("WGMP_LOG_FORMAT", ""))
    logs.set_up(level, form, os.environ)
    logs.name_process("agent")
    if os.environ.get("WGMP_METRICS"):
        log.warning(
            "WGMP_METRICS is one gateway's, and not heeded: write metrics = ... into the settings "
            "of each network"
        )
    return _run_agent(file.absolute(), settings)


def _run_agent(file: Path, settings: Any) -> int:
    import uvloop

    from wgmp.agent.agent import Agent
    from wgmp.manage.runner import Commands
    from wgmp.systemd import Manager

    async def work() -> None:
        await Agent(file, settings, Commands(), Manager(os.environ)).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())
    return 0


def _asking(
    ask: Callable[[Client, argparse.Namespace], Awaitable[int]],
) -> Callable[[argparse.Namespace], int]:
    """Return the command that connects to the agent and asks."""

    async def work(parsed: argparse.Namespace) -> int:
        from wgmp.agent.client import Client

        async with await Client.open(socket_of(parsed)) as client:
            return await ask(client, parsed)

    return lambda parsed: asyncio.run(work(parsed))


def show_status(parsed: argparse.Namespace) -> bool:
    """Print the status of the agent's network `parsed.name`; return whether there is one."""
    if not socket_of(parsed).exists():
        return False
    from wgmp.agent.client import RefusedError  # what asks takes a while to import
    from wgmp.asking import NobodyError

    try:
        return _asking(_status)(parsed) == 0
    except NobodyError:  # an agent that was killed leaves its socket
        return False
    except RefusedError as error:
        if error.code != "no_such_network":
            raise
        return False


async def _connect(client: Client, parsed: argparse.Namespace) -> int:
    print(in_short(await client.connect(parsed.network)))
    return 0


async def _disconnect(client: Client, parsed: argparse.Namespace) -> int:
    print(in_short(await client.disconnect(parsed.network)))
    return 0


async def _reload(client: Client, parsed: argparse.Namespace) -> int:
    done = await client.reload(parsed.network)
    for what in ("added", "removed", "changed", "unchanged"):
        if names := getattr(done, what):
            print(f"{what}: {', '.join(names)}")
    for name, reason in done.failed.items():
        print(f"wgmp: {name}: {reason}", file=sys.stderr)
    return 1 if done.failed else 0


async def _status(client: Client, parsed: argparse.Namespace) -> int:
    import msgspec

    status = await client.status(parsed.name)
    print(msgspec.json.encode(status).decode() if parsed.json else in_full(status))
    return 0


async def _networks(client: Client, parsed: argparse.Namespace) -> int:
    import msgspec

    listing = await client.list()
    if parsed.json:
        print(msgspec.json.encode(listing).decode())
        return 0
    for summary in listing.networks:
        print(in_short(summary))
    if not listing.networks:
        print("no networks: add [network.NAME] to the settings file, then `wgmp reload`")
    return 0


async def _stop(client: Client, parsed: argparse.Namespace) -> int:
    await client.stop_agent()
    return 0


async def _events(client: Client, parsed: argparse.Namespace) -> int:
    async for event in client.subscribe():
        print(in_words(event), flush=True)
    return 0


_VERBS = {
    "connect": _connect,
    "disconnect": _disconnect,
    "events": _events,
    "reload": _reload,
    "stop": _stop,
}


def in_short(summary: api.Summary) -> str:
    """Return a network as one line."""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(summary.changed_at))
    reason = f": {summary.reason}" if summary.reason else ""
    return f"{summary.name}: {summary.state} since {since}, interface {summary.interface}{reason}"


def in_full(status: api.NetworkStatus) -> str:
    """Return a network with its peers, as text for a terminal."""
    lines = [in_short(status.summary)]
    if status.gateway_pid:
        lines.append(f"  gateway: process {status.gateway_pid}, UDP port {status.listen_port}")
    for title, values in (("public key", [status.public_key]), ("addresses", status.addresses)):
        if any(values):
            lines.append(f"  {title}: {', '.join(values)}")
    for peer in status.peers:
        age_s = peer.handshake_age_s
        handshake = "no handshake yet" if age_s is None else f"handshake {age_s:.0f} s ago"
        lines += [
            f"  peer {peer.name or peer.public_key}",
            *([f"    public key: {peer.public_key}"] if peer.name else []),
            f"    endpoint: {peer.endpoint or 'not known'}, {handshake}",
            f"    allowed IPs: {', '.join(peer.allowed_ips) or 'none'}",
            f"    received {peer.rx_bytes} bytes, sent {peer.tx_bytes} bytes",
        ]
    return "\n".join(lines)
