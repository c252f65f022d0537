"""Every test of roles runs on both fast paths where the native one was built, and in its turns."""

from __future__ import annotations

import pytest

from wgmp import fabric
from wgmp.fastpath.choice import Choice, load, native_is_missing

from . import rig

PATHS = {"reference": (Choice.REFERENCE, False)}
if not native_is_missing():
    PATHS |= {"native": (Choice.NATIVE, False), "turns": (Choice.NATIVE, True)}


@pytest.fixture(params=PATHS, autouse=True)
def fastpath(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a fabric have this fast path unless told otherwise."""
    path, turns = PATHS[request.param]
    monkeypatch.setattr(fabric, "load", lambda choice: load(path))
    monkeypatch.setattr(rig, "IN_TURNS", turns)
