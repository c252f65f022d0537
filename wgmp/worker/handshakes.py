"""Handshake messages for a worker's peers: initiations that admission has opened, answers.

```
opened initiation       -> its peer -> response
response, cookie reply  -> the peer of its receiver index -> session, or better macs next time
```
"""

from __future__ import annotations

from wgmp.counters import Counter
from wgmp.protocol import messages, noise
from wgmp.protocol.messages import MessageType
from wgmp.protocol.outcome import Drop, DropReason, Endpoint, Outcome
from wgmp.record import Record
from wgmp.worker.actions import Actions
from wgmp.worker.configuration import Configuration
from wgmp.worker.indices import Indices
from wgmp.worker.tenants import Tenant


class Handshakes:
    """Takes handshake messages to the state machines of the peers of `configuration`."""

    def __init__(self, configuration: Configuration, indices: Indices, actions: Actions) -> None:
        self._configuration = configuration
        self._indices = indices
        self._actions = actions
        self._counters = actions.counters.inward

    def answer_initiation(self, record: Record, now: float) -> None:
        """Let its peer answer an initiation, which admission found to be the peer's."""
        tenant = self._configuration.find(record.peer, now)
        endpoint = record.endpoint()
        if tenant is None or endpoint is None:
            self._counters.drop(DropReason.PEER_REMOVED, record.count)
            return
        if not self._configuration.up:
            self._actions.drop_inward(tenant, DropReason.LINK_DOWN, record.count)
            return
        opened = noise.OpenedInitiation.unpack(b"".join(record.packets()))
        if record.count != 1 or isinstance(opened, DropReason):
            self._counters.drop(DropReason.RING_CORRUPT, record.count)
            return
        outcomes = tenant.peer.consume_initiation(opened, endpoint, now)
        self._take(tenant, outcomes, messages.Initiation.SIZE)

    def consume(self, record: Record, now: float) -> None:
        """Let the peers of their receiver indices consume responses and cookie replies."""
        endpoint = record.endpoint()
        for datagram in record.packets():
            self._consume(bytes(datagram), endpoint, now)

    def _consume(self, datagram: bytes, endpoint: Endpoint | None, now: float) -> None:
        kind = messages.message_type(datagram)
        if kind not in (MessageType.RESPONSE, MessageType.COOKIE_REPLY):
            self._counters.drop(DropReason.RING_CORRUPT)
            return
        peer = self._indices.peer(messages.receiver_index(datagram))
        tenant = self._configuration.get(peer, now)
        if tenant is None or endpoint is None:
            self._counters.drop(DropReason.UNKNOWN_INDEX)
            return
        if kind is MessageType.RESPONSE:
            outcomes = tenant.peer.consume_response(datagram, endpoint, now)
            self._take(tenant, outcomes, len(datagram))
            return
        outcomes = tenant.peer.consume_cookie_reply(datagram, now)
        # It does not count as received, as with the kernel (receive.c).
        if self._take(tenant, outcomes, 0):
            self._counters.add(Counter.COOKIES_TAKEN)

    def _take(self, tenant: Tenant, outcomes: list[Outcome], length: int) -> bool:
        """Do what a handshake message of `length` bytes leads to; return whether it was taken."""
        match outcomes:
            case [Drop(reason, count)]:
                self._actions.drop_inward(tenant, reason, count)
                return False
            case _:
                self._counters.add(Counter.MESSAGES_TAKEN)
                tenant.row.add_received(length)
                self._actions.act(tenant, outcomes)
                return True
