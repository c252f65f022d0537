"""Every test of roles runs on both fast paths, where the native one was built."""

from __future__ import annotations

import pytest

from wgmp import fabric
from wgmp.fastpath.choice import Choice, load, native_is_missing

PATHS = [Choice.REFERENCE] if native_is_missing() else [Choice.NATIVE, Choice.REFERENCE]


@pytest.fixture(params=PATHS, autouse=True)
def fastpath(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a fabric have this fast path unless told otherwise."""
    monkeypatch.setattr(fabric, "load", lambda choice: load(request.param))
