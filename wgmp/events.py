"""Events: what happened in a gateway that somebody may want to hear of, as typed messages.

```
role process    emit -> Outbox -> the control socket that also carries Ready and Failed
supervisor      EventHub (eventhub.py) -> the log, and everybody who subscribed
control socket  {"action": "subscribe"} -> one JSON line per event -> `wgmp events`
```

Nobody ever waits for an event to be heard: where one finds no room it is lost, and how many
were lost is an event of its own. Emitting is for the slow path (handshakes, timers, orders);
what happens to packets is counted, and the supervisor looks at the counters once a second.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import ClassVar

import msgspec

_WORD = re.compile(r"(?<!^)(?=[A-Z])")


def _tag(name: str) -> str:
    """Return the class name as it stands in JSON: PeerRoamed is "peer_roamed"."""
    return _WORD.sub("_", name).lower()


class Event(msgspec.Struct, kw_only=True, tag_field="event", tag=_tag):
    """The base of all events. `time`: Unix seconds; `source`: the role or process it is from.

    Both are filled in on the way. A peer is its public key in base64, an endpoint is text.
    `LEVEL`: the log's, WARNING for what is worth an operator's attention. `MOST_PER_SECOND`: of
    one source; more are lost.
    """

    LEVEL: ClassVar[int] = logging.INFO
    MOST_PER_SECOND: ClassVar[int] = 200

    time: float = 0.0
    source: str = ""

    def text(self) -> str:
        """Return what happened in words, without time and source."""
        raise NotImplementedError


class HandshakeCompleted(Event):
    """A session with the peer works now. `initiator`: this gateway began the handshake."""

    peer: str
    endpoint: str
    initiator: bool

    def text(self) -> str:
        """Say with whom, where, and who began."""
        who = "this gateway" if self.initiator else "the peer"
        return f"handshake completed with {self.peer} at {self.endpoint}, begun by {who}"


class HandshakeFailed(Event):
    """A handshake came to nothing. `reason`: a DropReason's lower-case name.

    `peer`: "" when it is not known whose it was, else its key, which need not be configured.
    """

    MOST_PER_SECOND: ClassVar[int] = 20

    reason: str
    peer: str = ""
    endpoint: str = ""

    def text(self) -> str:
        """Say with whom, and why."""
        who = f" with {self.peer}" if self.peer else ""
        where = f" at {self.endpoint}" if self.endpoint else ""
        return f"handshake failed{who}{where}: {self.reason}"


class PeerRoamed(Event):
    """The peer was heard from another endpoint than before. `before`: never "" ."""

    peer: str
    before: str
    endpoint: str

    def text(self) -> str:
        """Say from where to where."""
        return f"{self.peer} moved from {self.before} to {self.endpoint}"


class SessionExpired(Event):
    """The peer's last session is too old, and its keys were forgotten."""

    peer: str

    def text(self) -> str:
        """Say whose."""
        return f"the session with {self.peer} expired"


class PacketsDropped(Event):
    """`count` packets or datagrams were dropped since a second ago, or somewhat longer.

    `reason`: a DropReason's lower-case name. Of one source, there is one per reason and second.
    """

    LEVEL: ClassVar[int] = logging.DEBUG

    reason: str
    count: int

    def text(self) -> str:
        """Say how many, and why."""
        return f"{self.count} dropped: {self.reason}"


class ReplayBurst(Event):
    """`count` replayed datagrams were dropped within a second: too many to be an accident."""

    LEVEL: ClassVar[int] = logging.WARNING

    count: int

    def text(self) -> str:
        """Say how many."""
        return f"{self.count} replayed datagrams dropped within a second"


class UnderLoad(Event):
    """Admission began (`on`) or ceased to ask for cookies, because of a flood of handshakes."""

    LEVEL: ClassVar[int] = logging.WARNING

    on: bool

    def text(self) -> str:
        """Say which."""
        return f"under load {'begins: handshakes need a cookie' if self.on else 'ends'}"


class RoleRestarted(Event):
    """The process `process` ended (`how`, in words); its successor starts in `delay_s`."""

    LEVEL: ClassVar[int] = logging.WARNING

    process: str
    how: str
    delay_s: float

    def text(self) -> str:
        """Say which and how."""
        return f"{self.process} {self.how}: a successor starts in {self.delay_s:.1f} s"


class WorkersChanged(Event):
    """There are `workers` workers instead of `before`. Nobody worked for `pause_s` seconds."""

    before: int
    workers: int
    pause_s: float

    def text(self) -> str:
        """Say from how many to how many."""
        milliseconds = 1000 * self.pause_s
        return f"{self.before} workers became {self.workers}, in {milliseconds:.0f} ms"


class OffloadDisabled(Event):
    """The kernel refused an offload that worked before; the gateway goes on without it."""

    LEVEL: ClassVar[int] = logging.WARNING

    offload: str
    reason: str

    def text(self) -> str:
        """Say which, and the kernel's reason."""
        return f"{self.offload} is off from now on: the kernel says {self.reason}"


class ConfigurationChanged(Event):
    """The configuration changed: how many peers were set or removed, prefixes moved, and more.

    `listen_port`: the new one, None when it stays.
    """

    peers_set: int = 0
    peers_removed: int = 0
    allowed_ips: int = 0
    private_key: bool = False
    listen_port: int | None = None

    def text(self) -> str:
        """Say what changed."""
        parts = [
            f"{count} {what}{'s' * (count > 1)} {verb}"
            for count, what, verb in (
                (self.peers_set, "peer", "set"),
                (self.peers_removed, "peer", "removed"),
                (self.allowed_ips, "allowed IP", "changed"),
            )
            if count
        ]
        parts += ["another private key"] if self.private_key else []
        parts += [] if self.listen_port is None else [f"listen port {self.listen_port}"]
        return f"configuration changed: {', '.join(parts)}"


class EventsLost(Event):
    """`count` events of this source were lost: too many at once, or nobody read them in time."""

    count: int

    def text(self) -> str:
        """Say how many."""
        return f"{self.count} events lost"


AnyEvent = (
    HandshakeCompleted
    | HandshakeFailed
    | PeerRoamed
    | SessionExpired
    | PacketsDropped
    | ReplayBurst
    | UnderLoad
    | RoleRestarted
    | WorkersChanged
    | OffloadDisabled
    | ConfigurationChanged
    | EventsLost
)


class Outbox:
    """A role process's way out for events. `send(event)` returns False when there is no room."""

    def __init__(self, send: Callable[[AnyEvent], bool]) -> None:
        self._send = send
        self._second = 0
        self._sent: dict[tuple[str, type[Event]], int] = {}
        self._lost: dict[str, int] = {}

    def emit(self, source: str, event: AnyEvent) -> None:
        """Send the event, or count it as lost. Never waits, never raises."""
        event.time = time.time()
        event.source = source
        self._send_lost()
        key = source, type(event)
        sent = self._sent[key] = self._sent.get(key, 0) + 1
        if sent > event.MOST_PER_SECOND or not self._send(event):
            self._lost[source] = self._lost.get(source, 0) + 1

    def tick(self) -> None:
        """Tell what was lost. Called now and then, so that it is told without further events."""
        if self._lost:
            self._send_lost()

    def _send_lost(self) -> None:
        second = int(time.monotonic())
        if second == self._second:
            return
        self._second = second
        self._sent.clear()
        for source, count in list(self._lost.items()):
            if self._send(EventsLost(time=time.time(), source=source, count=count)):
                del self._lost[source]
