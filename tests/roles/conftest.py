"""Every test of roles runs on each fast path that there is, and in its turns."""

from __future__ import annotations

import pytest

from wgmp import fabric
from wgmp.fastpath.choice import Choice, load, native_is_missing

from . import rig

PATHS = {
    f"{path}{', in turns' * turns}": (path, turns)
    for path in (Choice.REFERENCE, Choice.NATIVE)
    for turns in (False, True)
    if path is Choice.REFERENCE or not native_is_missing()
}


@pytest.fixture(params=PATHS, autouse=True)
def fastpath(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a fabric have this fast path unless told otherwise."""
    path, turns = PATHS[request.param]
    monkeypatch.setattr(fabric, "load", lambda choice: load(path))
    monkeypatch.setattr(rig, "IN_TURNS", turns)
