"""The tunnel fixture: gateways in namespaces, taken down after the test with logs if it failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wgmp.netns import Namespaces

from .tunnel import Tunnel, build, log_tail

MakeTunnel = Callable[..., Tunnel]


@pytest.fixture
def tunnel(namespaces: Namespaces, tmp_path: Path) -> Iterator[MakeTunnel]:
    """Give `tunnel(left, right, family=, psk=, topology=, ...)`, see `tunnel.build`.

    The gateways' last log lines are printed at the end, where pytest shows them on failure.
    """
    made: list[Tunnel] = []

    def make(*programs: str, **settings: Any) -> Tunnel:
        made.append(build(namespaces, tmp_path, *programs, **settings))
        return made[-1]

    yield make
    for each in made:
        for gateway in (each.left, each.right):
            print(f"--- {gateway.log.name}\n{log_tail(gateway)}")
