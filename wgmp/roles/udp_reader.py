"""udp_reader: datagrams from the UDP sockets to admission and to the workers.

1. Receive datagrams, or trains of them, straight into records.
2. Transport data goes to the worker that owns its receiver index; datagrams of one endpoint share
   a record. That is the fast path's `DatagramIntake`, and most of what there is.
3. Handshake messages come back from it, those with a valid mac1. A sender that does not know our
   public key costs two hashes, less than handing its message on. Initiations and responses go to
   admission, cookie replies to the worker that owns their receiver index.
4. Messages for admission share a record whoever they are from, so that a flood from many sources
   costs little more than one from a single source, and wait for it to fill for as long as
   admission has others to look at.
"""

from __future__ import annotations

import socket

from wgmp.fastpath import reference
from wgmp.orders import Order, SetPrivateKey, SetSockets
from wgmp.protocol import messages
from wgmp.protocol.cookie import mac1_ok
from wgmp.protocol.messages import MessageType
from wgmp.protocol.noise import Identity
from wgmp.protocol.outcome import DropReason, Endpoint
from wgmp.record import Kind, unpack_endpoint
from wgmp.role import Role, RoleContext
from wgmp.stream import Label, RecordStream
from wgmp.tap import Point


class UdpReader(Role):
    """Receives. Each drop is counted: bad type or length, bad mac1, unknown index, ring full."""

    def __init__(self, context: RoleContext) -> None:
        super().__init__(context)
        self._peers = context.peers
        self._indices = context.indices
        self._admission = RecordStream(context.outputs["admission"], self.counters)
        self._admission.start(Label(Kind.ADDRESSED_MESSAGES))
        rings = [context.outputs[f"worker{n}"] for n in range(context.workers)]
        self._workers = [RecordStream(ring, self.counters) for ring in rings]
        parts = rings, context.peers, context.indices, self.counters
        self._intake = context.fastpath.datagram_intake(*parts)
        self._watched = reference.datagram_intake(*parts, self._watch)  # while somebody captures
        self._use(context.devices.sockets)
        self.part = self._intake
        self._mac1_key: bytes | None = None
        self._gathering = False  # messages for admission wait for more

    def descriptors(self) -> list[int]:
        """Both sockets."""
        return [sock.fileno() for sock in self._sockets]

    def obey(self, order: Order, now: float, sockets: list[socket.socket]) -> None:
        """Change over to new sockets; keep the key of mac1."""
        match order:
            case SetSockets():
                self._use(sockets)
                self.readable = True
            case SetPrivateKey(private_key):
                self._mac1_key = Identity(private_key).mac1_key if private_key else None
            case _:
                return

    def step(self, now: float) -> bool:
        """Receive a burst from each socket into records."""
        if not self.readable:
            if self._gathering:
                self._admission.flush()
                self._gathering = False
            return False
        captured = self.tap is not None and self.tap.on and not self._intake.has_messages
        intake = self._watched if captured else self._intake
        self.readable, admitted = intake.burst(self._admit)
        for message, endpoint in admitted:
            if messages.message_type(message) is MessageType.COOKIE_REPLY:
                self._hand_to_worker(message, endpoint)
            else:
                self._admission.append(endpoint + message, [len(endpoint) + len(message)])
        self._gathering = self._admission.waiting() > 0
        if not self._gathering:
            self._admission.flush()
        return self.readable

    def deadline(self) -> float | None:
        """At once, while messages wait for more that may not come."""
        return 0.0 if self._gathering else None

    def _use(self, sockets: list[socket.socket]) -> None:
        self._sockets = sockets
        self._intake.use(sockets)
        self._watched.use(sockets)

    def _admit(self, message: bytes) -> DropReason | None:
        """Return why a handshake message is not for us, None if it is."""
        if messages.message_type(message) is MessageType.COOKIE_REPLY:
            known = self._indices.row(messages.receiver_index(message)) is not None
            return None if known else DropReason.UNKNOWN_INDEX
        if self._mac1_key is None:
            return DropReason.NO_IDENTITY
        return None if mac1_ok(self._mac1_key, message) else DropReason.BAD_MAC1

    def _watch(
        self,
        reason: DropReason,
        datagrams: bytes | memoryview,
        lengths: list[int],
        endpoint: Endpoint,
    ) -> None:
        """Let a capture see what is dropped."""
        if self.tap is not None:
            place = Kind.DATAGRAMS, datagrams, lengths, Point.OUTER_IN
            self.tap.packets(*place, endpoint=endpoint, reason=reason)

    def _hand_to_worker(self, message: bytes, endpoint: bytes) -> None:
        """Hand a cookie reply to the worker that owns its receiver index."""
        row = self._indices.row(messages.receiver_index(message))
        if row is None:
            self.counters.drop(DropReason.UNKNOWN_INDEX)
            return
        stream = self._workers[self._peers.owner(row)]
        stream.start(Label(Kind.HANDSHAKE_MESSAGES, endpoint=unpack_endpoint(endpoint)))
        stream.append(message, [len(message)])
        stream.flush()
