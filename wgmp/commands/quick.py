"""What wg-quick does beside running: `import`, `export` and `strip` files, `undo` a link."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

from wgmp.errors import ConfigError
from wgmp.files import read_text, write_whole


def add_to(commands: Any) -> None:
    """Add the subcommands to the parser's `commands` (what `add_subparsers` returned)."""
    into = commands.add_parser("import", help="make the agent's settings of a wg-quick file")
    into.add_argument("file", metavar="FILE.conf")
    into.add_argument("-o", "--output", metavar="FILE.toml", help="default: print the settings")
    into.add_argument("--keys", metavar="DIR", help="where keys go; else keys/ beside FILE.toml")
    into.set_defaults(command=_import)

    out = commands.add_parser("export", help="make a wg-quick file of one of the agent's networks")
    out.add_argument("network", metavar="NETWORK|FILE.toml")
    out.add_argument("-o", "--output", metavar="FILE.conf", help="change it where need be")
    out.add_argument("--config", metavar="FILE", help="the settings; /etc/wgmp/agent.toml")
    out.set_defaults(command=_export)

    strip = commands.add_parser("strip", help="print what `wg setconf` takes of a wg-quick file")
    strip.add_argument("file", metavar="FILE.conf")
    strip.set_defaults(command=_strip)

    undo = commands.add_parser("undo", help="undo what a killed gateway left on the host")
    undo.add_argument("interface", metavar="IFACE")
    undo.set_defaults(command=_undo)


def _import(parsed: argparse.Namespace) -> int:
    from wgmp import config as quick
    from wgmp.agent.settings import DEFAULT_KEYS
    from wgmp.manage import exchange
    from wgmp.options import check_interface_name

    source = Path(parsed.file)
    output = Path(parsed.output).absolute() if parsed.output else None
    if output and output.exists():
        raise ConfigError("is there already: write to another file, or remove it", str(output))
    directory = output.parent / "keys" if output else DEFAULT_KEYS
    if parsed.keys:
        directory = Path(parsed.keys).absolute()
    imported = exchange.to_settings(
        quick.load(source), check_interface_name(source.stem), directory
    )
    notices = imported.notices
    if output or parsed.keys:
        exchange.write_secrets(imported.secrets)
    elif imported.secrets:
        notices = [*notices, "keys are not written: -o or --keys DIR puts them into files"]
    if output:
        _write(output, imported.text)
    else:
        print(imported.text, end="")
    _tell(source, notices)
    return 0


def _export(parsed: argparse.Namespace) -> int:
    from wgmp.agent import settings_file
    from wgmp.agent.settings import DEFAULT_FILE
    from wgmp.manage import exchange, quick_file

    given = Path(parsed.network)
    is_file = given.suffix in (".toml", ".json")
    file = given if is_file else Path(parsed.config or DEFAULT_FILE)
    settings = settings_file.load(file)
    name, network = exchange.choose_network(
        settings.networks, None if is_file else parsed.network, str(file)
    )
    output = Path(parsed.output) if parsed.output else None
    config, notices = exchange.to_quick(name, network, settings.agent, str(output or file))
    before = read_text(output) if output and output.exists() else ""
    text = quick_file.revise(before, config).lstrip("\n")
    if output:
        _write(output, text)
    else:
        print(text, end="")
    _tell(file, notices)
    return 0


def _strip(parsed: argparse.Namespace) -> int:
    from wgmp import config as quick
    from wgmp.manage import quick_file

    text = read_text(Path(parsed.file), piped=True)
    quick.parse(text, parsed.file)  # for its mistakes
    print(quick_file.strip(text))
    return 0


def _undo(parsed: argparse.Namespace) -> int:
    from wgmp.manage import link
    from wgmp.manage.journal import Journal
    from wgmp.manage.runner import Commands
    from wgmp.options import check_interface_name

    interface = check_interface_name(parsed.interface)
    asyncio.run(link.undo_leftovers(interface, Commands(), Journal.of(interface)))
    return 0


def _write(path: Path, text: str) -> None:
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", str(path)) from error


def _tell(file: Path, notices: list[str]) -> None:
    for notice in notices:
        print(f"wgmp: {file}: {notice}", file=sys.stderr)
