"""The tools in Python run as one types them, whichever Python comes first in the PATH."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = sorted(
    path.name
    for path in (ROOT / "tools").iterdir()
    if path.is_file() and path.read_text().startswith("#!/usr/bin/env python3\n")
)
# Of wgmp's dependencies it has none, unless somebody installed them there.
PYTHON = Path(sys.base_prefix) / "bin" / "python3"


@pytest.mark.skipif(not (ROOT / ".venv").exists(), reason="the checkout has no .venv")
@pytest.mark.parametrize("name", [name for name in TOOLS if name != "shape"])
def test_a_tool_says_how_it_is_used(name: str) -> None:
    arguments = [str(PYTHON), str(ROOT / "tools" / name), "--help"]
    ended = subprocess.run(arguments, cwd="/", capture_output=True, text=True, timeout=60)
    assert "Traceback" not in ended.stderr
    assert name in ended.stdout + ended.stderr


def test_a_tool_without_an_environment_says_what_to_run(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    for name in ("environment.py", "torture"):
        (tmp_path / "tools" / name).write_bytes((ROOT / "tools" / name).read_bytes())
    command = [str(PYTHON), "-S", str(tmp_path / "tools" / "torture")]
    ended = subprocess.run(command, cwd="/", env={}, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "run tools/check" in ended.stderr
