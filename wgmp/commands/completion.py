"""`wgmp completion` and `wgmp man`: what shells and man(1) want to know of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

SHELLS = ("bash", "zsh", "fish")

_EPILOG = """\
bash: wgmp completion bash > /etc/bash_completion.d/wgmp
zsh:  wgmp completion zsh > /usr/local/share/zsh/site-functions/_wgmp
fish: wgmp completion fish > /etc/fish/completions/wgmp.fish
"""

# Interfaces that a gateway runs on, for whoever may see them.
_PREAMBLE = {
    "bash": """_wgmp_interfaces() {
  compgen -W "$(ls /run/wgmp 2>/dev/null | sed -n 's/\\.sock$//p')" -- "$1"
}""",
    "zsh": "_wgmp_interfaces() { compadd -- /run/wgmp/*.sock(N:t:r) }",
    "fish": """function _wgmp_interfaces
  for path in /run/wgmp/*.sock
    basename -s .sock $path
  end
end""",
}
_INTERFACES = {
    "bash": "_wgmp_interfaces",
    "zsh": "_wgmp_interfaces",
    "fish": "(_wgmp_interfaces)",
}


def add_to(commands: Any, parser: argparse.ArgumentParser) -> None:
    """Add the subcommands to the parser's `commands` (what `add_subparsers` returned)."""
    completion = commands.add_parser(
        "completion",
        help="print a shell's completions",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(command=lambda parsed: _print(script(parser, parsed.shell)))
    man = commands.add_parser("man", help="print the manual page: wgmp man | man -l -")
    man.set_defaults(command=lambda parsed: _print(_manual(parser)))


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the completions of a whole command line for one of SHELLS."""
    import shtab  # takes a while to import, and nobody else needs it

    for action in _actions(parser):
        if action.metavar == "IFACE":
            vars(action)["complete"] = _INTERFACES
        elif action.metavar in ("FILE", "PATH"):
            vars(action)["complete"] = shtab.FILE
    text: str = shtab.complete(parser, shell, preamble=_PREAMBLE[shell])
    return text


def _manual(parser: argparse.ArgumentParser) -> str:
    from wgmp import manpage

    return manpage.page(parser)


def _print(text: str) -> int:
    print(text, end="" if text.endswith("\n") else "\n")
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action
