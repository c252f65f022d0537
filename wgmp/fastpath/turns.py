"""The reference fast path's turns of a loop: each is Python's, so here it only waits."""

from __future__ import annotations

from wgmp.interest import Interest
from wgmp.protocol.keypair import Keypair
from wgmp.ring import Doorbell, RingReader
from wgmp.system import boottime


class Turns:
    """Waits. See `interface.Turns`. `rings`: what the process consumes."""

    def __init__(self, interest: Interest, doorbell: Doorbell, rings: list[RingReader]) -> None:
        self.sleeps = 0
        self._interest = interest
        self._doorbell = doorbell
        self._rings = rings

    def wait(self, busy: bool, until: float, blocked: bool) -> list[tuple[int, int]]:
        """Return the descriptors that are ready, at the latest when the time `until` has come."""
        if busy:
            return self._heard(self._interest.wait(0.0))
        self._doorbell.fall_asleep()
        timeout = 0.0
        # A role that waits for a descriptor to drain leaves its rings as they are.
        if blocked or not any(map(RingReader.waiting, self._rings)):
            self.sleeps += 1
            timeout = max(0.0, until - boottime())
        events = self._interest.wait(timeout)
        self._doorbell.wake_up()
        return self._heard(events)

    def _heard(self, events: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Silence the doorbell, if it is among them."""
        bell = self._doorbell.descriptor
        others = [event for event in events if event[0] != bell]
        if len(others) < len(events):
            self._doorbell.silence()
        return others


class Leases:
    """Grants nothing. See `interface.Leases`."""

    def grant(self, keypair: Keypair, peer: int, endpoint: bytes, mtu: int, until: float) -> None:
        """Leave it, for nobody would make use of it."""

    def revoke(self, peer: int) -> None:
        """Leave it: the peer has none."""

    def clear(self) -> None:
        """Leave it: there are none."""

    def settle(self) -> list[tuple[int, int, int, int, bool]]:
        """Return nothing, for nothing happened."""
        return []
