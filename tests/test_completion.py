"""Completions and man pages say what the parser says, to the shells and to man themselves."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from wgmp.cli import make_parser, make_wgmpd_parser
from wgmp.commands.completion import SHELLS, script
from wgmp.errors import EXIT_CODES
from wgmp.manpage import page

# What each shell is told in order to say what it would offer.
ASK = {
    "bash": 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_wgmp; '
    'printf "%s\\n" "${COMPREPLY[@]}"',
    "fish": "source $argv[1]; complete -C (string join ' ' -- $argv[2..])",
}


def offered(shell: str, file: Path, *words: str) -> set[str]:
    """Return what a shell offers for the last of the words."""
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    name = ["bash"] if shell == "bash" else []  # $0
    command = [shell, "-c", ASK[shell], *name, str(file), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    return {line.partition("\t")[0] for line in done.stdout.splitlines()}


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_a_shell_offers_commands_and_their_options(shell: str, tmp_path: Path) -> None:
    file = tmp_path / "completions"
    file.write_text(script(make_parser(), shell))
    assert offered(shell, file, "wgmp", "log") == {"log-level"}
    assert {"--inner", "--outer", "--both"} <= offered(shell, file, "wgmp", "capture", "--")
    assert set(SHELLS) == offered(shell, file, "wgmp", "completion", "")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_understands_its_completions(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    file = tmp_path / "completions"
    file.write_text(script(make_parser(), shell))
    done = subprocess.run([shell, "-n", str(file)], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("make", [make_parser, make_wgmpd_parser])
def test_man_shows_the_page_without_complaint(make: object, tmp_path: Path) -> None:
    if shutil.which("groff") is None:
        pytest.skip("needs groff")
    assert callable(make)
    source = page(make())
    command = ["groff", "-man", "-Tutf8", "-ww", "-P-cbou"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, timeout=20)
    assert done.stderr == ""
    shown = " ".join(done.stdout.split())
    for _, text in EXIT_CODES:
        assert text in shown
    assert "--foreground" in shown


def shown(source: str) -> str:
    """Return a page as man shows it, in lines of any length."""
    if shutil.which("groff") is None:
        pytest.skip("needs groff")
    command = ["groff", "-man", "-Tutf8", "-P-cbou", "-rLL=1000n"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, timeout=20)
    return re.sub(" +", " ", done.stdout)


def test_the_page_has_the_sections_that_man_pages_have_each_with_its_text() -> None:
    parser = argparse.ArgumentParser(
        "tool", description="Does a thing. And more.", epilog="Told at the end."
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help="'quoted' -- and \\backslashed")
    parser.add_argument("-n", "--number", type=int, help=".dotted")
    parser.add_argument("--quiet", action="store_true", help="say nothing")
    parser.add_argument("--hidden", help=argparse.SUPPRESS)
    sections = dict(re.findall(r"^([A-Z ]+)\n((?: .*\n|\n)+)", shown(page(parser)), re.MULTILINE))
    text = {name: content.strip() for name, content in sections.items()}
    assert text["NAME"] == "tool - Does a thing"
    assert text["SYNOPSIS"].startswith("tool [-h] [-n NUMBER] [--quiet]")
    assert "hidden" not in text["OPTIONS"]
    assert text["DESCRIPTION"] == "Does a thing. And more. Told at the end."
    assert [line.strip() for line in text["OPTIONS"].splitlines() if line.strip()] == [
        *("FILE 'quoted' -- and \\backslashed", "-n, --number NUMBER", ".dotted"),
        *("--quiet", "say nothing"),
    ]
    assert "/run/wgmp/IFACE.sock" in text["FILES"]
    assert "wg-quick(8)" in text["SEE ALSO"]
    assert re.search(r"^ 130\b.*Ctrl-C", "\n" + text["EXIT STATUS"], re.MULTILINE)


def test_a_command_has_its_help_as_a_sentence_and_its_examples_line_by_line() -> None:
    text = shown(page(make_parser()))
    assert "\n Packets inside and outside the tunnel, as pcapng.\n" in text
    assert "\n fish: wgmp completion fish > /etc/fish/completions/wgmp.fish\n" in text


def test_the_page_has_every_variable_that_the_documents_have() -> None:
    root = Path(__file__).parents[1]
    tables = (root / "README.md").read_text() + (root / "docs/COMMANDS.md").read_text()
    rows = "".join(re.findall(r"^\|.*\|$", tables, re.MULTILINE))
    variables = set(re.findall(r"`((?:WGMP|WG)_\w+|LOG_LEVEL)(?:=\w+)?`", rows))
    assert len(variables) > 15
    text = shown(page(make_parser()))
    assert {variable for variable in variables if variable not in text} == set()


def test_the_page_has_every_command_and_every_option() -> None:
    parser = make_parser()
    text = page(parser).replace(r"\-", "-")
    (commands,) = (action for action in parser._actions if action.metavar == "COMMAND")
    assert commands.choices
    for name in commands.choices:
        assert f".SS wgmp {name}\n" in text
        options = commands.choices[name]._option_string_actions  # type: ignore[index]
        assert all(
            rf"\fB{option}\fR" in text for option in options if option not in ("-h", "--help")
        )
