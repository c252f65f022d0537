"""Run wgmpd with a mistake of its own in it, which shows when the gateway should be made."""

from __future__ import annotations

import sys

from wgmp import cli, opening


def stumble(*_: object, **__: object) -> None:
    """Break an invariant."""
    raise AssertionError("two is\nnot three")


opening.Supervisor = stumble  # type: ignore[assignment, misc]
sys.exit(cli.main_wgmpd())
