"""Two devices with one peer each, a fake link between them, and a clock moved by hand.

A `Node` does with datagrams what the roles do: type, mac1, load and cookies, the first
Diffie-Hellman, then the peer. The link loses, delays, reorders and duplicates as told, from a
seed. `Pair.run` goes from one event (an arrival or a deadline) to the next.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple, assert_never

from wgmp.protocol import ip, messages, noise, tai64n
from wgmp.protocol.allowedips import AllowedIPs
from wgmp.protocol.constants import ZERO_KEY
from wgmp.protocol.cookie import CookieChecker, mac1_ok
from wgmp.protocol.messages import MessageType
from wgmp.protocol.noise import Identity
from wgmp.protocol.outcome import (
    Drop,
    DropReason,
    Endpoint,
    HandshakeCompleted,
    HandshakeGivenUp,
    Outcome,
    SendDatagram,
    SessionExpired,
    WritePacket,
)
from wgmp.protocol.peer import Peer
from wgmp.protocol.ratelimiter import RateLimiter

PEER = 7
STRANGER = 8
UNIX_START_NS = 1_700_000_000_000_000_000


def ipv4_packet(
    payload: bytes = b"", source: bytes = b"\x0a\0\0\1", destination: bytes = b"\x0a\0\0\2"
) -> bytes:
    """Return a whole IPv4 packet; the checksum is not looked at by the core."""
    length = 20 + len(payload)
    header = b"\x45\0" + length.to_bytes(2, "big") + bytes(8) + source + destination
    return header + payload


class Indices:
    """An index space that knows who holds what, and minds double frees."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.held: set[int] = set()

    def draw(self, peer: int) -> int:
        """Draw a random u32 that is not held."""
        assert peer == PEER
        index = self._random.getrandbits(32)
        assert index not in self.held
        self.held.add(index)
        return index

    def free(self, index: int) -> None:
        """Give it back; KeyError when nobody holds it."""
        self.held.remove(index)


@dataclass
class Conditions:
    """How bad the link is. `latency`, `jitter`: seconds one way; the others: 0..1."""

    latency: float = 0.02
    jitter: float = 0.0
    loss: float = 0.0
    duplication: float = 0.0


class Sent(NamedTuple):
    """A datagram that left a node."""

    at: float
    kind: MessageType | DropReason
    datagram: bytes
    endpoint: Endpoint

    @property
    def is_keepalive(self) -> bool:
        """Whether it is transport data without a packet."""
        return self.kind is MessageType.TRANSPORT and len(self.datagram) == 32


@dataclass
class Node:
    """One device and its one peer, whose public key is `remote_key`."""

    identity: Identity
    remote_key: bytes
    preshared_key: bytes
    address: Endpoint
    random: Random
    peer: Peer = field(init=False)
    unix_shift_ns: int = 0
    under_load: bool = False
    packets: list[bytes] = field(default_factory=list)
    drops: Counter[DropReason] = field(default_factory=Counter)
    completed: list[bool] = field(default_factory=list)
    told: list[Outcome] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    allowed_ips: AllowedIPs = field(default_factory=AllowedIPs)
    limiter: RateLimiter = field(default_factory=RateLimiter)

    def __post_init__(self) -> None:
        self.indices = Indices(self.random)
        self.checker = CookieChecker(self.identity, self.random.randbytes)
        self.allowed_ips.insert(bytes(4), 0, PEER)
        self.allowed_ips.insert(bytes(16), 0, PEER)

    def of_kind(self, kind: MessageType) -> list[Sent]:
        """Return what was sent of one type."""
        return [sent for sent in self.sent if sent.kind is kind]

    def deliver(self, datagram: bytes, source: Endpoint, now: float) -> list[Outcome]:
        """Take a datagram in as the roles do; return what the peer answers."""
        kind = messages.message_type(datagram)
        match kind:
            case DropReason():
                return [Drop(kind)]
            case MessageType.TRANSPORT:
                return self._check_sources(self.peer.receive(datagram, source, now))
            case MessageType.COOKIE_REPLY:
                return self.peer.consume_cookie_reply(datagram, now)
            case MessageType.INITIATION | MessageType.RESPONSE:
                return self._admit(kind, datagram, source, now)
            case _:
                assert_never(kind)

    def _admit(
        self, kind: MessageType, datagram: bytes, source: Endpoint, now: float
    ) -> list[Outcome]:
        if not mac1_ok(self.identity.mac1_key, datagram):
            return [Drop(DropReason.BAD_MAC1)]
        if self.under_load:
            if not self.checker.mac2_ok(datagram, source, now):
                reply = self.checker.reply(datagram, source, now)
                return [Drop(DropReason.COOKIE_REQUIRED), SendDatagram(reply, source, True)]
            if not self.limiter.allow(source.address, now):
                return [Drop(DropReason.RATE_LIMITED)]
        if kind is MessageType.RESPONSE:
            return self.peer.consume_response(datagram, source, now)
        opened = noise.open_static(self.identity, datagram)
        if isinstance(opened, DropReason):
            return [Drop(opened)]
        if opened.public_key != self.peer.public_key:
            return [Drop(DropReason.UNKNOWN_PEER)]
        return self.peer.consume_initiation(opened, source, now)

    def _check_sources(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Ask the device-wide table about inner sources, as whoever calls `receive` must."""
        return [self._check_source(outcome) for outcome in outcomes]

    def _check_source(self, outcome: Outcome) -> Outcome:
        if not isinstance(outcome, WritePacket):
            return outcome
        source = ip.source(outcome.packet)
        assert isinstance(source, bytes)
        if self.allowed_ips.lookup(source) == PEER:
            return outcome
        return Drop(DropReason.SOURCE_NOT_ALLOWED)


class Pair:
    """Nodes `a` and `b`, the link and the clock. `a` knows where `b` is, not the reverse."""

    def __init__(self, seed: int = 1, preshared_key: bytes = ZERO_KEY) -> None:
        self.now = 1000.0
        self.random = Random(seed)
        self.conditions = Conditions()
        self.intercept: Callable[[Node, bytes], bool] | None = None
        self._arrivals: list[tuple[float, int, Node, bytes, Endpoint]] = []
        self._order = itertools.count()
        one, two = (Identity(self.random.randbytes(32)) for _ in range(2))
        here, there = (Endpoint(bytes([192, 0, 2, n]), 51820 + n) for n in (1, 2))
        self.a = self._node(one, two.public_key, preshared_key, here)
        self.b = self._node(two, one.public_key, preshared_key, there)
        self.a.peer.set_endpoint(there)

    def _node(
        self, identity: Identity, remote_key: bytes, preshared_key: bytes, address: Endpoint
    ) -> Node:
        random = Random(self.random.random())
        node = Node(identity, remote_key, preshared_key, address, random)
        node.peer = self._peer(node, None, bytes(12))
        return node

    def _peer(self, node: Node, endpoint: Endpoint | None, greatest_timestamp: bytes) -> Peer:
        return Peer(
            peer=PEER,
            identity=node.identity,
            public_key=node.remote_key,
            preshared_key=node.preshared_key,
            keepalive=0,
            endpoint=endpoint,
            indices=node.indices,
            randomness=node.random.randbytes,
            tai64n=lambda: self.label(node),
            greatest_timestamp=greatest_timestamp,
        )

    def restart(self, node: Node) -> None:
        """Let a node's peer die with its sessions, and give it a successor."""
        dead = node.peer
        dead.close()
        node.peer = self._peer(node, dead.endpoint, dead.greatest_timestamp)

    def label(self, node: Node) -> bytes:
        """Return the TAI64N label of a node's wall clock."""
        return tai64n.label(UNIX_START_NS + int(self.now * 1e9) + node.unix_shift_ns)

    def other(self, node: Node) -> Node:
        """Return the other end."""
        return self.b if node is self.a else self.a

    def send(self, node: Node, packet: bytes) -> None:
        """Let a node send one inner packet now."""
        self.act(node, node.peer.send(packet, self.now))

    def act(self, node: Node, outcomes: list[Outcome]) -> None:
        """Do what a node's peer answered."""
        for outcome in outcomes:
            match outcome:
                case SendDatagram(datagram, endpoint):
                    kind = messages.message_type(datagram)
                    node.sent.append(Sent(self.now, kind, datagram, endpoint))
                    self._transmit(node, datagram, endpoint)
                case WritePacket(packet):
                    node.packets.append(packet)
                case Drop(reason, count):
                    node.drops[reason] += count
                case HandshakeGivenUp() | SessionExpired():
                    node.told.append(outcome)
                case HandshakeCompleted(initiator):
                    node.completed.append(initiator)
                case _:
                    assert_never(outcome)

    def _transmit(self, node: Node, datagram: bytes, endpoint: Endpoint) -> None:
        other = self.other(node)
        if endpoint[:2] != other.address[:2]:
            return
        if self.intercept is not None and self.intercept(node, datagram):
            return
        conditions = self.conditions
        if self.random.random() < conditions.loss:
            return
        for _ in range(2 if self.random.random() < conditions.duplication else 1):
            at = self.now + conditions.latency + self.random.random() * conditions.jitter
            entry = (at, next(self._order), other, datagram, node.address)
            heapq.heappush(self._arrivals, entry)

    def run(self, seconds: float) -> None:
        """Let the time pass, with everything that happens in it."""
        end = self.now + seconds
        steps = 0
        while (event := self._next_event()) is not None and event <= end:
            self.now = max(self.now, event)
            self._happen()
            steps += 1
            assert steps < 1_000_000, "something spins"
        self.now = end

    def _next_event(self) -> float | None:
        times = [self.a.peer.deadline(), self.b.peer.deadline()]
        times += [self._arrivals[0][0]] if self._arrivals else []
        return min((time for time in times if time is not None), default=None)

    def _happen(self) -> None:
        arrivals: deque[tuple[Node, bytes, Endpoint]] = deque()
        while self._arrivals and self._arrivals[0][0] <= self.now:
            arrivals.append(heapq.heappop(self._arrivals)[2:])
        for node, datagram, source in arrivals:
            self.act(node, node.deliver(datagram, source, self.now))
        for node in (self.a, self.b):
            deadline = node.peer.deadline()
            if deadline is not None and deadline <= self.now:
                self.act(node, node.peer.due(self.now))
                after = node.peer.deadline()
                assert after is None or after > self.now, "a timer stays due"

    def connect(self) -> None:
        """Make a session that `a` began, confirmed at both ends."""
        self.send(self.a, ipv4_packet())
        self.run(0.2)
        assert self.a.completed == [True]
        assert self.b.completed == [False]
        for node in (self.a, self.b):
            node.packets.clear()
            node.sent.clear()
            node.completed.clear()
