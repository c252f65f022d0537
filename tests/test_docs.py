"""The documents: their links lead somewhere, and their tables are complete."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from wgmp.errors import EXIT_CODES
from wgmp.events import AnyEvent

ROOT = Path(__file__).parent.parent
_LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


def test_the_site_builds_without_a_broken_link(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ARCHITECTURE" / "index.html").exists()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_of_the_documents_outside_the_site_lead_somewhere(name: str) -> None:
    links = [link for link in _LINK.findall((ROOT / name).read_text()) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_event_and_its_fields_are_documented() -> None:
    rows = (ROOT / "docs" / "EVENTS.md").read_text().splitlines()
    documented = {row for row in rows if row.startswith("| `")}
    for event in get_args(AnyEvent):
        tag = event.__struct_config__.tag
        own = [name for name in event.__struct_fields__ if name not in ("time", "source")]
        (row,) = (row for row in documented if row.startswith(f"| `{tag}` |"))
        assert [name for name in own if f"`{name}`" not in row] == []


def test_every_environment_variable_is_documented() -> None:
    code = "".join(path.read_text() for path in (ROOT / "wgmp").rglob("*.py"))
    documents = "".join(path.read_text() for path in (ROOT / "README.md", *ROOT.glob("docs/*.md")))
    names = set(re.findall(r'"((?:WGMP|WG)_[A-Z_]+|LOG_LEVEL)"', code))
    assert len(names) > 15
    # What an upgrade tells the new supervisor is nobody else's business.
    assert {name for name in names if f"`{name}" not in documents} == {"WGMP_HANDOVER"}


def test_every_exit_code_is_documented() -> None:
    text = (ROOT / "docs" / "COMMANDS.md").read_text()
    assert all(f"| {code} | {meaning} |" in text for code, meaning in EXIT_CODES)
