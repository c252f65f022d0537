"""Run wgmp so that it ends the moment it should work, after its predecessor's roles have ended."""

from __future__ import annotations

import os
import sys

from wgmp import cli, succession


async def faint(predecessor: succession.Predecessor) -> None:
    """End, when the new roles have begun and before anybody is told."""
    os._exit(1)


succession.Predecessor.go = faint  # type: ignore[method-assign]
sys.exit(cli.main())
