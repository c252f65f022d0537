"""Which role processes hang: alive, but their loops do not turn.

Each turn of a loop stores a heartbeat, and the longest sleep is 1 s. A process whose heartbeat
stays the same for HANG_LIMIT_S while this watch looks at it several times a second hangs, be
it in an endless loop, in a system call, or stopped by a signal.

What counts is the time that the watch itself saw pass. It does not count while the machine is
suspended (CLOCK_MONOTONIC), and begins anew when a look comes late, for then everybody may have
been kept from running: a frozen control group, a paused virtual machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from wgmp.child import Child
from wgmp.counters import Counter, Counters

HANG_LIMIT_S = 2.0
LOOK_EVERY_S = 0.25
# Between being told to abort, with its stack written down, and being killed.
ABORT_GRACE_S = 0.25

# A process gets its configuration before its loop turns: thousands of peers, maybe.
_START_LIMIT_S = 15.0
_LATE_S = 4 * LOOK_EVERY_S


class HangWatch:
    """Looks at the heartbeats in `counters`, by role."""

    def __init__(self, counters: Mapping[str, Counters]) -> None:
        self._counters = counters
        self._last_look = 0.0
        # By process id: the heartbeat, and since when it has been the same.
        self._seen: dict[int, tuple[int, float]] = {}

    def look(self, children: Iterable[Child], now: float) -> list[Child]:
        """Return those of `children` that hang, each once. `now`: monotonic seconds."""
        late = now - self._last_look > _LATE_S
        self._last_look = now
        before, self._seen = self._seen, {}
        hanging = []
        for child in children:
            beats = [self._counters[role].value(Counter.HEARTBEAT) for role in child.row.roles]
            beat = max(beats) if child.ready else 0
            last, since = before.get(child.pid, (-1, now))
            if beat != last or late:
                since = now
            self._seen[child.pid] = (beat, since)
            limit = HANG_LIMIT_S if child.ready else _START_LIMIT_S
            if child.hung_s is None and now - since >= limit:
                child.hung_s = now - since
                hanging.append(child)
        return hanging
