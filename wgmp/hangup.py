"""Waiting for a client of a stream socket to hang up."""

from __future__ import annotations

import asyncio
import contextlib

_CHUNK_BYTES = 4096


async def hung_up(reader: asyncio.StreamReader) -> None:
    """Wait until the client has hung up; whatever it says until then is not kept."""
    while await reader.read(_CHUNK_BYTES):
        pass


async def see_off(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit_s: float
) -> None:
    """Let a client that was not heard out read what it was told: wait for it to hang up.

    Closed while it still speaks, the connection is reset, and what was written may be lost with it.
    """
    writer.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await hung_up(reader)
