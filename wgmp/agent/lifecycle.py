"""The life of a network, as a table: which state follows on which event.

```
stopped            --connect-->    starting --up--> running
starting, running  --failure-->    failed   --connect--> starting
starting, running  --disconnect--> stopping --down--> stopped
failed             --disconnect--> stopped
```

`connect` and `disconnect` come from people and programs, at any time; where the table has no row
for them there is nothing to do. The others tell what came of it, and each has its row.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class State(StrEnum):
    """Where a network is. Only `running` carries traffic."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    FAILED = "failed"


class Event(StrEnum):
    """What happens to a network."""

    CONNECT = "connect"
    DISCONNECT = "disconnect"
    UP = "up"
    DOWN = "down"
    FAILURE = "failure"


TRANSITIONS: Mapping[tuple[State, Event], State] = {
    (State.STOPPED, Event.CONNECT): State.STARTING,
    (State.FAILED, Event.CONNECT): State.STARTING,
    (State.STARTING, Event.UP): State.RUNNING,
    (State.STARTING, Event.FAILURE): State.FAILED,
    (State.STARTING, Event.DISCONNECT): State.STOPPING,
    (State.RUNNING, Event.FAILURE): State.FAILED,
    (State.RUNNING, Event.DISCONNECT): State.STOPPING,
    (State.STOPPING, Event.DOWN): State.STOPPED,
    (State.FAILED, Event.DISCONNECT): State.STOPPED,
}


def after(state: State, event: Event) -> State | None:
    """Return the state that follows; None when there is nothing to do.

    An event that is not of a person or a program and has no row is a broken invariant.
    """
    follows = TRANSITIONS.get((state, event))
    assert follows is not None or event in (Event.CONNECT, Event.DISCONNECT), (state, event)
    return follows
