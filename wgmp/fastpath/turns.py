"""Whole turns of a process's loop, for as long as nothing has to be decided.

A turn is what wgmp/process.py describes: wait for descriptors, let every role step. Here it is the
roles' parts that step (steps.py), one behind the other, on leased sessions (leases.py). As soon as
there is anything else, an order, a timer, a packet that nobody expects, the roles have their turn:
they find everything as if there had been no other.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from typing import Final

from wgmp.fastpath.steps import BUSY, DONE, ROLE, Step, Turn
from wgmp.interest import Interest
from wgmp.ring import Doorbell, RingReader
from wgmp.system import boottime

# So many seconds after the first of such turns the roles have one, and hear of what was done.
_REPORT_AFTER_S: Final = 0.1
_READABLE: Final = int(select.POLLIN)


class Turns:
    """Those of one process. See `interface.Turns`. `captured`: not 0 while somebody captures."""

    def __init__(
        self,
        interest: Interest,
        doorbell: Doorbell,
        steps: Sequence[Step],
        captured: memoryview | None,
    ) -> None:
        self.sleeps = 0
        self._interest = interest
        self._doorbell = doorbell
        self._steps = steps
        self._captured = captured
        self._rings = [ring for step in steps for ring in step.rings]

    def wait(self, busy: bool, until: float, blocked: bool) -> list[tuple[int, int]]:
        """Turn until there is something for the roles; return the descriptors that are ready."""
        captured = self._captured
        while True:
            turn = self._poll(busy, until, blocked)
            now = turn.now
            if blocked or now >= until or (captured is not None and captured[0]):
                break
            if not self._are_ours(turn.ready):
                break
            ended = DONE
            for step in self._steps:
                ended = max(ended, step.take(turn))
            if ended == ROLE:
                break
            busy = ended == BUSY
            until = min(until, now + _REPORT_AFTER_S)
        return list(turn.ready.items())

    def _poll(self, busy: bool, until: float, blocked: bool) -> Turn:
        """Wait for descriptors, at most until the time `until`, and silence the doorbell."""
        bell = self._doorbell
        if busy:
            ready = dict(self._interest.wait(0.0))
        else:
            bell.fall_asleep()
            timeout = 0.0
            # A role that waits for a descriptor to drain leaves its rings as they are.
            if blocked or not any(map(RingReader.waiting, self._rings)):
                self.sleeps += 1
                timeout = max(0.0, until - boottime())
            ready = dict(self._interest.wait(timeout))
            bell.wake_up()
        if ready.pop(bell.descriptor, None) is not None:
            bell.silence()
        return Turn(ready, boottime())

    def _are_ours(self, ready: dict[int, int]) -> bool:
        """Return whether all that is ready is what a part reads from."""
        return all(
            mask == _READABLE and any(step.reads(descriptor) for step in self._steps)
            for descriptor, mask in ready.items()
        )
