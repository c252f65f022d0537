"""Man pages from the command line's own parser (man(7) for the markup).

Everything that can be asked with --help is in the page, and what the parser does not know: exit
codes, environment, files.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from wgmp import __version__
from wgmp.errors import EXIT_CODES

Entries = Sequence[tuple[str, str]]

ENVIRONMENT: Entries = (
    (
        "WGMP_WORKERS, WGMP_TOPOLOGY, WGMP_TUN_QUEUES, WGMP_CONFIG, WGMP_OFFLOAD, "
        "WGMP_FASTPATH, WGMP_AEAD, WGMP_USER, WGMP_SESSIONS, WGMP_METRICS, WGMP_LOG_FORMAT",
        "what the options of these names say, which go before them",
    ),
    ("WGMP_SANDBOX", "off: as --no-sandbox"),
    ("WG_PROCESS_FOREGROUND", "1: as --foreground"),
    ("LOG_LEVEL", "verbose, info, error (warnings too; the default) or silent"),
    ("WG_TUN_FD, WG_UAPI_FD", "descriptors that are open already, as wireguard-go takes them"),
    ("WG_TUN_NAME_FILE", "on macOS, where `wgmpd utun` writes the name it got"),
    ("WGMP_AGENT_SOCKET", "where commands find the agent"),
    ("WG_HIDE_KEYS, WG_COLOR_MODE", "for `wgmp status`, as in wg(8)"),
)
FILES: Entries = (
    ("/var/run/wireguard/IFACE.sock", "what wg(8) speaks to"),
    ("/run/wgmp/IFACE.sock", "what wgmp's own commands speak to; its owner's alone"),
    ("/etc/wireguard/IFACE.conf", "a wg-quick(8) configuration, for --config"),
    ("/etc/wgmp/agent.toml", "the agent's settings"),
)
SEE_ALSO = "wg(8), wg-quick(8), wireshark(1), tshark(1)"


def page(parser: argparse.ArgumentParser, section: int = 8) -> str:
    """Return the man page of a program and all its subcommands, as roff."""
    return "\n".join(_page(parser, section)) + "\n"


def _page(parser: argparse.ArgumentParser, section: int) -> Iterator[str]:
    name = parser.prog
    yield f'.TH {name.upper()} {section} "" "wgmp {__version__}" "wgmp"'
    yield from (".SH NAME", rf"{name} \- {_text(_first_sentence(parser))}")
    yield from (".SH SYNOPSIS", *_synopsis(parser))
    commands = list(_commands(parser))
    yield from (".SH DESCRIPTION", _text(parser.description or ""))
    if parser.epilog and not commands:
        yield _text(parser.epilog)
    yield from _arguments(parser, ".SH OPTIONS")
    if commands:
        yield ".SH COMMANDS"
    for command, text in commands:
        yield from (f".SS {_text(command.prog)}", *_synopsis(command), ".PP")
        sentence = command.description or text
        yield _text(sentence[:1].upper() + sentence[1:].rstrip(".") + ".")
        yield from _arguments(command, "")
        if command.epilog:
            yield from (".PP", ".nf", *map(_text, command.epilog.splitlines()), ".fi")
    yield from _entries("EXIT STATUS", [(str(code), text) for code, text in EXIT_CODES])
    yield from _entries("ENVIRONMENT", ENVIRONMENT)
    yield from _entries("FILES", FILES)
    yield from (".SH SEE ALSO", _text(SEE_ALSO))


def _first_sentence(parser: argparse.ArgumentParser) -> str:
    return (parser.description or parser.prog).partition(".")[0]


def _synopsis(parser: argparse.ArgumentParser) -> Iterator[str]:
    usage = parser.format_usage().removeprefix("usage: ").split()
    words = " ".join(usage).removeprefix(parser.prog)
    yield rf"\fB{_text(parser.prog)}\fR{_text(words)}"


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """Yield every subcommand's parser with its one line of help."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command in action.choices.items():
                yield command, texts.get(name, "")


def _arguments(parser: argparse.ArgumentParser, head: str) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, (argparse._SubParsersAction, argparse._HelpAction)):
            continue
        if action.help is argparse.SUPPRESS:
            continue
        if head:
            yield head
            head = ""
        yield from (".TP", _signature(action), _text(action.help or ""))


def _signature(action: argparse.Action) -> str:
    choices = "|".join(map(str, action.choices)) if action.choices else ""
    value = action.metavar if isinstance(action.metavar, str) else choices or action.dest.upper()
    if not action.option_strings:
        return rf"\fI{_text(value)}\fR"
    names = ", ".join(rf"\fB{_text(name)}\fR" for name in action.option_strings)
    return names if action.nargs == 0 else rf"{names} \fI{_text(value)}\fR"


def _entries(title: str, entries: Entries) -> Iterator[str]:
    yield f".SH {title}"
    for name, text in entries:
        yield from (".TP", rf"\fB{_text(name)}\fR", _text(text))


def _text(text: str) -> str:
    """Return text that roff takes for nothing else (groff_char(7))."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped
