"""admission: the first step of every handshake message, for the whole device.

An initiation does not show whose it is until its static key is decrypted, so that step cannot
be sharded by peer. It is done here, apart from the data path:

1. Under load (the queue is above an eighth of its capacity, or was within the last second):
   a valid mac2, or a cookie reply instead of an answer; then the limiter per source.
2. Response: to the worker that owns its receiver index.
3. Initiation: the first Diffie-Hellman opens the static key; its peer's worker gets the opened
   initiation and goes on from there.

Whoever does not know our public key has been turned away by udp_reader, which checks mac1.

A flood of handshakes fills this role's ring and drops there; established sessions do not wait
behind it.
"""

from __future__ import annotations

import os
import socket

from wgmp.addresses import format_endpoint
from wgmp.counters import Counter
from wgmp.events import HandshakeFailed, UnderLoad
from wgmp.keys import to_base64
from wgmp.orders import Order, RemovePeer, SetPeer, SetPrivateKey, row_of
from wgmp.peertable import ROWS
from wgmp.protocol import messages, noise
from wgmp.protocol.constants import UNDER_LOAD_FRACTION, UNDER_LOAD_HOLD
from wgmp.protocol.cookie import CookieChecker
from wgmp.protocol.messages import MessageType
from wgmp.protocol.noise import Identity
from wgmp.protocol.outcome import DropReason, Endpoint
from wgmp.protocol.ratelimiter import RateLimiter
from wgmp.record import ENDPOINT_BYTES, HANDSHAKE, Kind, Record, unpack_endpoint
from wgmp.role import Role, RoleContext
from wgmp.tap import NOBODY, Point

# Messages looked at in one step, or a few more. A Diffie-Hellman, or the cookie that is asked for
# in its place, costs as much as a record of data.
_BURST = 8

# What is told of: whoever sent it knows our public key. What is asked for under load is not.
_FAILURES = frozenset({DropReason.BAD_EPHEMERAL, DropReason.BAD_STATIC})


class Admission(Role):
    """Admits handshake messages. Each drop is counted, from missing cookie to unknown peer."""

    def __init__(self, context: RoleContext) -> None:
        super().__init__(context)
        (self._queue,) = self.inputs
        self._udp_writer = context.outputs["udp_writer"]
        self._workers = [context.outputs[f"worker{n}"] for n in range(context.workers)]
        self._peers = context.peers
        self._indices = context.indices
        self._identity: Identity | None = None
        self._checker: CookieChecker | None = None
        self._limiter = RateLimiter()
        self._by_public_key: dict[bytes, int] = {}
        self._public_keys: list[bytes] = [b""] * ROWS
        self._loaded_until = 0.0
        self._loaded = False

    def obey(self, order: Order, now: float, sockets: list[socket.socket]) -> None:
        """Keep the device's key, and whose public key is whose."""
        match order:
            case SetPrivateKey(private_key):
                self._identity = Identity(private_key) if private_key else None
                self._checker = (
                    CookieChecker(self._identity, os.urandom) if self._identity else None
                )
            case SetPeer(peer, public_key):
                self._by_public_key[public_key] = peer
                self._public_keys[row_of(peer)] = public_key
            case RemovePeer(peer):
                public_key, self._public_keys[row_of(peer)] = self._public_keys[row_of(peer)], b""
                if self._by_public_key.get(public_key) == peer:
                    del self._by_public_key[public_key]
            case _:
                return

    def step(self, now: float) -> bool:
        """Look at some records of handshake messages."""
        waiting = self._queue.waiting()
        if not (waiting or self._loaded):
            return False
        if waiting > self._queue.slots * UNDER_LOAD_FRACTION:
            self._loaded_until = now + UNDER_LOAD_HOLD
            self.counters.store(Counter.LOADED_UNTIL, int(self._loaded_until * 1e9))
        if self._loaded != (now < self._loaded_until):
            self._loaded = not self._loaded
            self.emit(UnderLoad(on=self._loaded))
        looked_at = 0
        while looked_at < _BURST:
            record = self._queue.peek()
            if record is None:
                break
            self.counters.record_in(record.count, record.used)
            for addressed in record.packets():
                reason = self._admit(addressed, now)
                if reason is not None:
                    self.counters.drop(reason)
                    self._show(addressed, reason)
            looked_at += record.count
            self._queue.release()
        return self._queue.waiting() > 0

    def _admit(self, addressed: memoryview, now: float) -> DropReason | None:
        """Hand one message on, or return why not. `addressed`: it lies behind its endpoint."""
        datagram = addressed[ENDPOINT_BYTES:]
        kind = messages.message_type(datagram)
        if isinstance(kind, DropReason):
            return kind
        endpoint = unpack_endpoint(addressed)
        if endpoint is None:
            return DropReason.RING_CORRUPT
        if self._identity is None or self._checker is None:
            return DropReason.NO_IDENTITY
        if self._loaded:
            if not self._checker.mac2_ok(datagram, endpoint, now):
                self._send_cookie(self._checker.reply(datagram, endpoint, now), endpoint)
                return DropReason.COOKIE_REQUIRED
            if not self._limiter.allow(endpoint.address, now):
                return DropReason.RATE_LIMITED
        if kind is MessageType.RESPONSE:
            return self._hand_response(datagram, endpoint)
        return self._open_initiation(datagram, endpoint, self._identity)

    def _hand_response(self, datagram: memoryview, endpoint: Endpoint) -> DropReason | None:
        row = self._indices.row(messages.receiver_index(datagram))
        if row is None:
            return DropReason.UNKNOWN_INDEX
        return self._hand_over(row, Kind.HANDSHAKE_MESSAGES, 0, datagram, endpoint)

    def _open_initiation(
        self, datagram: memoryview, endpoint: Endpoint, identity: Identity
    ) -> DropReason | None:
        opened = noise.open_static(identity, bytes(datagram))
        if isinstance(opened, DropReason):
            if opened in _FAILURES:
                self._tell_failure(opened, endpoint)
            return opened
        if opened.public_key not in self._by_public_key:
            self.catch_up()
        peer = self._by_public_key.get(opened.public_key)
        if peer is None:
            self._tell_failure(DropReason.UNKNOWN_PEER, endpoint, to_base64(opened.public_key))
            return DropReason.UNKNOWN_PEER
        row = row_of(peer)
        self._show_message(datagram, endpoint, 0, peer)
        return self._hand_over(row, Kind.OPENED_INITIATION, peer, opened.pack(), endpoint)

    def _hand_over(
        self, row: int, kind: Kind, peer: int, message: bytes | memoryview, endpoint: Endpoint
    ) -> DropReason | None:
        """Give one message to the worker that owns the row's peer."""
        ring = self._workers[self._peers.owner(row)]
        record = ring.reserve()
        if record is None:
            return DropReason.RING_FULL
        self._fill(record, kind, peer, message, endpoint)
        ring.publish()
        return None

    def _tell_failure(self, reason: DropReason, endpoint: Endpoint, peer: str = "") -> None:
        where = format_endpoint(endpoint)
        self.emit(HandshakeFailed(reason=reason.name.lower(), peer=peer, endpoint=where))

    def _send_cookie(self, reply: bytes, endpoint: Endpoint) -> None:
        self.counters.add(Counter.COOKIES_SENT)
        record = self._udp_writer.reserve()
        if record is None:
            self.counters.drop(DropReason.RING_FULL)
            return
        self._show_message(reply, endpoint, 0, NOBODY, Point.OUTER_OUT)
        self._fill(record, Kind.DATAGRAMS, 0, reply, endpoint, HANDSHAKE)
        self._udp_writer.publish()

    def _show(self, addressed: memoryview, reason: DropReason) -> None:
        """Let a capture see a message that was dropped."""
        if self.tap is None or not self.tap.on or len(addressed) < ENDPOINT_BYTES:
            return
        endpoint = unpack_endpoint(addressed)
        if endpoint is not None:
            self._show_message(addressed[ENDPOINT_BYTES:], endpoint, reason)

    def _show_message(
        self,
        message: bytes | memoryview,
        endpoint: Endpoint,
        reason: int,
        peer: int = NOBODY,
        point: Point = Point.OUTER_IN,
    ) -> None:
        """Let a capture see a message that comes or goes."""
        if self.tap is not None and self.tap.on:
            lengths = [len(message)]
            kind = Kind.HANDSHAKE_MESSAGES
            self.tap.packets(
                kind, message, lengths, point, peer=peer, endpoint=endpoint, reason=reason
            )

    def _fill(
        self,
        record: Record,
        kind: Kind,
        peer: int,
        message: bytes | memoryview,
        endpoint: Endpoint,
        flags: int = 0,
    ) -> None:
        record.begin(kind, peer, flags)
        record.set_endpoint(endpoint)
        record.append(message)
        self.counters.add(Counter.RECORDS_OUT)
        self.counters.add(Counter.PACKETS_OUT)
        self.counters.add(Counter.BYTES_OUT, record.used)
