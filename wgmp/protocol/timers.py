"""A peer's timers: deadlines in a table, moved by what happens to the peer.

The events have the kernel's names (timers.c). Times are seconds.

| timer | armed by | disarmed by | at its deadline |
|---|---|---|---|
| RETRANSMIT_HANDSHAKE | initiation sent or held back: 5 s + jitter | session works | try again |
| SEND_KEEPALIVE | data received: 10 s | anything sent | send a keepalive |
| NEW_HANDSHAKE | data sent: 15 s + jitter | anything received | begin a handshake |
| ZERO_KEY_MATERIAL | session derived: 540 s | - | forget all keys |
| PERSISTENT_KEEPALIVE | anything sent or received: interval | - | send a keepalive |

"Anything" is any authenticated datagram, handshakes and keepalives included; "data" is a
packet that is not empty. Jitter is 0..333 ms.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Final

from wgmp.protocol.constants import (
    KEEPALIVE_TIMEOUT,
    NEW_HANDSHAKE_TIMEOUT,
    REKEY_TIMEOUT,
    REKEY_TIMEOUT_JITTER,
    ZERO_KEY_MATERIAL_AFTER_TIME,
)

_JITTER_BYTES: Final = 4
_JITTER_STEP: Final = REKEY_TIMEOUT_JITTER / 256**_JITTER_BYTES


class Timer(IntEnum):
    """What can be due."""

    RETRANSMIT_HANDSHAKE = 0
    SEND_KEEPALIVE = 1
    NEW_HANDSHAKE = 2
    ZERO_KEY_MATERIAL = 3
    PERSISTENT_KEEPALIVE = 4


class TimerTable:
    """The deadlines of one peer."""

    __slots__ = ("_deadlines",)

    def __init__(self) -> None:
        self._deadlines: dict[Timer, float] = {}

    def arm(self, timer: Timer, deadline: float) -> None:
        """Let the timer be due at `deadline`, whatever it was before."""
        self._deadlines[timer] = deadline

    def disarm(self, timer: Timer) -> None:
        """Let the timer not be due at all."""
        self._deadlines.pop(timer, None)

    def pending(self, timer: Timer) -> bool:
        """Return whether the timer is armed."""
        return timer in self._deadlines

    def due(self, now: float) -> list[Timer]:
        """Return the timers whose deadline has come, earliest first; they stay armed."""
        deadlines = self._deadlines
        due = [timer for timer, deadline in deadlines.items() if deadline <= now]
        return sorted(due, key=lambda timer: deadlines[timer])

    def take(self, timer: Timer, now: float) -> bool:
        """Disarm the timer if it is due; return whether it was.

        Between `due` and this, acting on another timer may have put it off.
        """
        if self._deadlines.get(timer, now + 1) > now:
            return False
        del self._deadlines[timer]
        return True

    def clear(self) -> None:
        """Disarm all timers."""
        self._deadlines.clear()

    def next(self) -> float | None:
        """Return the earliest deadline, or None when no timer is armed."""
        return min(self._deadlines.values(), default=None)


class PeerTimers(TimerTable):
    """The table, and the events that move it.

    `keepalive`: the persistent keepalive's interval in seconds, 0 for none.
    """

    __slots__ = ("_need_another_keepalive", "_patience", "_randomness", "keepalive")

    def __init__(self, keepalive: int, randomness: Callable[[int], bytes]) -> None:
        super().__init__()
        self.keepalive = keepalive
        self._randomness = randomness
        self._need_another_keepalive = False
        # Drawn at each initiation, for data is sent too often to draw anew each time.
        self._patience = NEW_HANDSHAKE_TIMEOUT + self._jitter()

    def data_sent(self, now: float) -> None:
        """A packet was sent: something should come back.

        The time runs from the first packet that is unanswered, not from the last.
        """
        if not self.pending(Timer.NEW_HANDSHAKE):
            self.arm(Timer.NEW_HANDSHAKE, now + self._patience)

    def data_received(self, now: float) -> None:
        """A packet was received: the peer should hear from us."""
        if self.pending(Timer.SEND_KEEPALIVE):
            self._need_another_keepalive = True
        else:
            self.arm(Timer.SEND_KEEPALIVE, now + KEEPALIVE_TIMEOUT)

    def keepalive_due(self, now: float) -> None:
        """SEND_KEEPALIVE was due: packets that came meanwhile want another one."""
        if self._need_another_keepalive:
            self._need_another_keepalive = False
            self.arm(Timer.SEND_KEEPALIVE, now + KEEPALIVE_TIMEOUT)

    def any_authenticated_packet_sent(self) -> None:
        """Anything was sent, so the peer has heard from us."""
        self.disarm(Timer.SEND_KEEPALIVE)

    def any_authenticated_packet_received(self) -> None:
        """Anything was received, so the peer is there."""
        self.disarm(Timer.NEW_HANDSHAKE)

    def any_authenticated_packet_traversal(self, now: float) -> None:
        """Anything was sent or received: put the persistent keepalive off."""
        if self.keepalive:
            self.arm(Timer.PERSISTENT_KEEPALIVE, now + self.keepalive)

    def handshake_initiated(self, now: float) -> None:
        """An initiation was sent."""
        self.arm(Timer.RETRANSMIT_HANDSHAKE, now + REKEY_TIMEOUT + self._jitter())
        self._patience = NEW_HANDSHAKE_TIMEOUT + self._jitter()

    def handshake_held_back(self, until: float) -> None:
        """An initiation is wanted but may not be sent before `until`."""
        if not self.pending(Timer.RETRANSMIT_HANDSHAKE):
            self.arm(Timer.RETRANSMIT_HANDSHAKE, until + self._jitter())

    def handshake_complete(self) -> None:
        """A session works in both directions."""
        self.disarm(Timer.RETRANSMIT_HANDSHAKE)

    def handshake_given_up(self, now: float) -> None:
        """Nobody answers; what is left of attempts is wiped in time."""
        self.disarm(Timer.SEND_KEEPALIVE)
        if not self.pending(Timer.ZERO_KEY_MATERIAL):
            self.session_derived(now)

    def session_derived(self, now: float) -> None:
        """There are new keys; the wipe's time runs from the newest ones."""
        self.arm(Timer.ZERO_KEY_MATERIAL, now + ZERO_KEY_MATERIAL_AFTER_TIME)

    def _jitter(self) -> float:
        return int.from_bytes(self._randomness(_JITTER_BYTES), "little") * _JITTER_STEP
