"""The supervisor's side of events: from the roles to the log and to subscribers.

A subscriber has a queue of its own. One that does not read loses events and is told how many;
the others, the log and the roles notice nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping

import msgspec

from wgmp.counters import Counters
from wgmp.events import AnyEvent, ConfigurationChanged, EventsLost, PacketsDropped, ReplayBurst
from wgmp.orders import AddAllowedIP, Order, RemoveAllowedIP, RemovePeer, SetPeer, SetPrivateKey
from wgmp.protocol.outcome import DropReason

log = logging.getLogger("wgmp")

_QUEUED_EVENTS = 1000
SUPERVISOR = "supervisor"

_REPLAYED = DropReason.REPLAYED.name.lower()
# A datagram that the network doubled is no burst.
_BURST_DATAGRAMS = 10


class Subscription:
    """One subscriber's queue, of at most `most` events."""

    def __init__(self, most: int = _QUEUED_EVENTS) -> None:
        self._most = most
        self._queue: deque[AnyEvent] = deque()
        self._lost = 0
        self._closed = False
        self._woken = asyncio.Event()

    def offer(self, event: AnyEvent) -> None:
        """Queue the event, or count it as lost."""
        if len(self._queue) < self._most:
            self._queue.append(event)
        else:
            self._lost += 1
        self._woken.set()

    def close(self) -> None:
        """End the subscription: `take` returns what is queued, and then nothing any more."""
        self._closed = True
        self._woken.set()

    async def take(self) -> list[AnyEvent]:
        """Wait for events and return all there are, the oldest first; [] after the last."""
        await self._woken.wait()
        if not self._closed:
            self._woken.clear()
        events = list(self._queue)
        self._queue.clear()
        if self._lost:
            events.append(EventsLost(time=time.time(), source=SUPERVISOR, count=self._lost))
            self._lost = 0
        return events


class EventHub:
    """Takes events from wherever they happen; hands them on. Never waits."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    def publish(self, event: AnyEvent) -> None:
        """Log the event and queue it for every subscriber."""
        if not event.time:
            event.time = time.time()
        if not event.source:
            event.source = SUPERVISOR
        # The pattern is the kind's, so that one kind's flood suppresses no other.
        pattern = f"%s: %s ({event.__struct_config__.tag})"
        fields = msgspec.to_builtins(event)
        log.log(event.LEVEL, pattern, event.source, event.text(), extra={"fields": fields})
        for subscription in self._subscriptions:
            subscription.offer(event)

    def subscribe(self) -> Subscription:
        """Return a new subscription to all events from now on."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription and forget it."""
        subscription.close()
        self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End all subscriptions: the gateway stops."""
        for subscription in list(self._subscriptions):
            self.unsubscribe(subscription)


def changes_in(orders: list[Order]) -> ConfigurationChanged | None:
    """Return what orders mean for the configuration, None when nothing."""
    change = ConfigurationChanged()
    for order in orders:
        match order:
            case SetPeer():
                change.peers_set += 1
            case RemovePeer():
                change.peers_removed += 1
            case AddAllowedIP() | RemoveAllowedIP():
                change.allowed_ips += 1
            case SetPrivateKey():
                change.private_key = True
    return None if change == ConfigurationChanged() else change


class DropWatch:
    """Looks for drops in the roles' counters, for nobody on the packets' way should.

    What was counted before the watch began, by a predecessor, is not told.
    """

    def __init__(self, counters: Mapping[str, Counters], hub: EventHub) -> None:
        self._counters = counters
        self._hub = hub
        self._before = {role: block.drops() for role, block in counters.items()}

    def look(self) -> None:
        """Publish what came since the last look, which should be a second ago."""
        for role, counters in self._counters.items():
            before, drops = self._before.get(role, {}), counters.drops()
            self._before[role] = drops
            for reason, total in drops.items():
                count = total - before.get(reason, 0)
                if count:
                    self._hub.publish(PacketsDropped(source=role, reason=reason, count=count))
                if reason == _REPLAYED and count >= _BURST_DATAGRAMS:
                    self._hub.publish(ReplayBurst(source=role, count=count))
