"""Fixtures of the protocol core's tests."""

from __future__ import annotations

import pytest

from .pair import Pair


@pytest.fixture
def pair() -> Pair:
    """Two peers that have not spoken yet, on a link of 20 ms that loses nothing."""
    return Pair()


@pytest.fixture
def connected(pair: Pair) -> Pair:
    """Two peers with a session that `pair.a` began, and nothing under way."""
    pair.connect()
    return pair
