"""The site fixture: an agent's surroundings, taken down after the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from wgmp.netns import Namespaces

from .site import Site


@pytest.fixture
def site(namespaces: Namespaces, tmp_path: Path) -> Iterator[Site]:
    """Give a test a `Site`; the agent's log is printed where pytest shows it on failure."""
    made = Site(namespaces, tmp_path)
    yield made
    print(made.log.read_text() if made.log.exists() else "the agent was not started")
