"""Another number of workers, while traffic flows: a second generation takes over from the first.

| | the old generation | the new one |
|---|---|---|
| 1 | works | is forked, with rings of its own, and takes the configuration |
| 2 | reads nothing more from TUN and network, works off its rings | waits |
| 3 | ends | waits |
| 4 | | gets the peers (each its owner), finds their sessions in session memory, begins |

Peers, counters and sessions are in memory that both map. From 2 to 4, some tens of milliseconds,
packets wait in the TUN's queue and in the socket buffers. None is lost and none is overtaken:
the new generation reads what the old one left. It is the same for every change of the topology.

Should a process of the new generation not come up, the old one goes on as if nothing had been.
One of the old that dies is replaced up to 1; from 2 on what waits for it is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from wgmp.child import Child
from wgmp.children import Children
from wgmp.errors import ControlError
from wgmp.events import WorkersChanged
from wgmp.fabric import Fabric
from wgmp.orders import Drain
from wgmp.topology import MAX_WORKERS, build

log = logging.getLogger("wgmp")

_READY_LIMIT_S = 15.0
# A link that takes nothing more keeps records in udp_writer's rings.
_DRAIN_LIMIT_S = 1.0
_STOP_LIMIT_S = 1.0
_POLL_S = 0.001


async def reshard(children: Children, workers: int) -> None:
    """Let there be so many workers. Raises ControlError, and nothing has changed.

    Only one at a time; the caller sees to that.
    """
    if not 1 <= workers <= MAX_WORKERS:
        raise ControlError(f"{workers} workers are not possible: write 1 to {MAX_WORKERS}")
    old = children.fabric
    before = old.topology.workers
    if workers == before:
        return
    _refuse_while_captured(old)
    try:
        fabric = old.succeed(build(old.topology.shape, workers, old.topology.queues))
    except OSError as error:
        raise ControlError(f"there is no room for more workers: {error.strerror}") from error
    try:
        newcomers = children.recruit(fabric)
        if not await are_ready(newcomers):
            raise ControlError("a process of the new generation did not start: see the log")
        _refuse_while_captured(old)  # one may have begun meanwhile
    except ControlError:
        await children.dismiss()
        fabric.close()
        raise
    started = asyncio.get_running_loop().time()
    orderly = await leave(children)
    children.begin(fabric, newcomers, orderly)
    old.retire(fabric)
    pause = asyncio.get_running_loop().time() - started
    children.events.publish(WorkersChanged(before=before, workers=workers, pause_s=pause))


def _refuse_while_captured(fabric: Fabric) -> None:
    """Raise ControlError while somebody reads the rings of a generation that is to leave."""
    if fabric.taps.busy:
        raise ControlError("a capture is running: end it, then change the workers")


async def leave(children: Children) -> bool:
    """Let all processes work off what they have and end; return whether all did so in order."""
    leaving = children.hand_over()
    children.send(leaving, [Drain()])
    await _drained(children.fabric, leaving)
    # One that has died and was not replaced may have left anything.
    nobody_missed = len(leaving) == len(children.fabric.topology.processes)
    return await _end(leaving) and nobody_missed


async def are_ready(newcomers: Sequence[Child]) -> bool:
    """Wait until processes wait to begin, or for so long; return whether all of them do."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_READY_LIMIT_S):
            for child in newcomers:
                await child.started.wait()
    return all(child.ready and not child.ended.is_set() for child in newcomers)


async def _drained(fabric: Fabric, leaving: Sequence[Child]) -> None:
    """Wait until nothing is read any more and the rings of the living are empty, or so long."""
    try:
        async with asyncio.timeout(_DRAIN_LIMIT_S):
            for child in leaving:
                await child.drained.wait()
            while fabric.waiting([each.row.name for each in leaving if not each.ended.is_set()]):
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        log.warning("records are left in the rings of the old workers, and lost")


async def _end(leaving: Sequence[Child]) -> bool:
    """End the processes; return whether all of them ended in order."""
    for child in leaving:
        child.stop()
    for child in leaving:
        try:
            async with asyncio.timeout(_STOP_LIMIT_S):
                await child.ended.wait()
        except TimeoutError:
            child.kill()
            await child.ended.wait()
    return all(child.ended_in_order for child in leaving)
