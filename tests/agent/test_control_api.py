"""docs/CONTROL_API.md tells the truth: its examples are run against an agent."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .site import Site

pytestmark = pytest.mark.root

DOCUMENT = (Path(__file__).parents[2] / "docs" / "CONTROL_API.md").read_text()
CONVERSATIONS: list[str] = re.findall(r"^```\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
# These are compared to the letter, and all others by their kind.
TELLING = {"id", "event", "code", "message", "state", "name", "network", "api_version", "unchanged"}


def alike(shown: Any, real: Any, name: str = "") -> bool:
    """Tell whether an answer is what the document shows, but for what differs each time."""
    if isinstance(shown, dict) and isinstance(real, dict):
        return shown.keys() == real.keys() and all(alike(shown[k], real[k], k) for k in shown)
    if name in TELLING:
        return bool(shown == real)
    if isinstance(shown, list) and isinstance(real, list):
        return len(shown) == len(real) and all(map(alike, shown, real))
    return type(shown) is type(real) or {type(shown), type(real)} == {type(None), float}


@pytest.fixture
def running(site: Site) -> Site:
    """Give a site whose agent runs the network "home"."""
    site.start(site.head(), site.home())
    site.wait_for_state("running")
    return site


def test_the_conversations_in_the_document_go_as_shown(running: Site) -> None:
    assert len(CONVERSATIONS) == 2
    for conversation in CONVERSATIONS:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(running.socket))
            answers = client.makefile("rb")
            for line in conversation.splitlines():
                if line.startswith("> "):
                    client.sendall(line[2:].encode() + b"\n")
                    continue
                real = json.loads(next(each for each in answers if b"gateway_event" not in each))
                shown = json.loads(line.removeprefix("< "))
                assert alike(shown, real), (shown, real)


def test_the_python_in_the_document_runs(running: Site) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
    opened = f"Client.open(__import__('pathlib').Path({str(running.socket)!r}))"
    code = code.replace("Client.open()", opened)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, env=os.environ
    )
    assert done.stderr == ""
    peer, refusal = done.stdout.splitlines()
    assert peer.startswith(f"peer {running.peer.outer}")
    assert refusal == "no_such_network there is no network hom; there are: home"
