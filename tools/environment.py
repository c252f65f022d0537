"""For the tools in Python: go on in the checkout's virtual environment, and find its modules.

tools/environment.bash sets that environment up.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / ".venv" / "bin" / "python"


def enter(*folders: str) -> None:
    """Go on in .venv, if there is one and this is not it; modules are found in `folders` as well.

    `folders`: relative to the checkout. Where wgmp's dependencies are missing the tool ends with
    one line that says so.
    """
    if PYTHON.exists() and Path(sys.prefix).resolve() != PYTHON.parent.parent:
        os.execv(PYTHON, [str(PYTHON), *sys.argv])
    if importlib.util.find_spec("msgspec") is None:
        sys.exit(f"{sys.argv[0]}: wgmp is not installed: run tools/check first, it sets up .venv")
    sys.path[:0] = [str(ROOT / folder) for folder in folders]
