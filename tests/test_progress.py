"""What is shown of long work is for terminals, and gets into no file and no pipe."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from wgmp.progress import under_way
with under_way("counting sheep") as show:
    show("counting goats")
    print("result")
"""


def run(stdout: int, stderr: int) -> None:
    """Do some long work."""
    subprocess.run([sys.executable, "-c", SCRIPT], stdout=stdout, stderr=stderr, timeout=20)


def test_progress_is_on_the_terminal_and_the_result_in_the_file(tmp_path: Path) -> None:
    ours, terminal = pty.openpty()
    try:
        with open(tmp_path / "out", "wb") as out:
            run(out.fileno(), terminal)
        assert b"counting" in os.read(ours, 10_000)
    finally:
        os.close(terminal)
        os.close(ours)
    assert (tmp_path / "out").read_text() == "result\n"


def test_without_a_terminal_nothing_is_shown(tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as out, open(tmp_path / "err", "wb") as err:
        run(out.fileno(), err.fileno())
    assert (tmp_path / "err").read_bytes() == b""
