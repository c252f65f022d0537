"""What a peer sends: packets, keepalives and initiations, and when it may.

`Peer` (peer.py) is this and what comes in. Staged packets, the endpoint, the keypairs and the
timers live here, for all of them decide about sending.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf

from wgmp.protocol.constants import (
    DEFAULT_MTU,
    MAX_STAGED_PACKETS,
    MAX_TIMER_HANDSHAKES,
    REKEY_TIMEOUT,
    TIMESTAMP_SIZE,
)
from wgmp.protocol.handshake import Handshake, IndexSpace
from wgmp.protocol.keypair import Keypair
from wgmp.protocol.keypairs import Keypairs, SessionStore
from wgmp.protocol.noise import Identity
from wgmp.protocol.outcome import (
    Drop,
    DropReason,
    Endpoint,
    HandshakeCompleted,
    HandshakeGivenUp,
    Outcome,
    SendDatagram,
)
from wgmp.protocol.timers import PeerTimers, Timer


class Outbound:
    """The sending half of a peer. `now` is monotonic seconds everywhere.

    `peer`: the peer id; `endpoint`: where the peer was last seen; `mtu`: the tunnel's, for
    padding; `keypairs`: its sessions; `handshake_attempts`: initiations sent since the last
    reason to send one; `last_session_at`: when a handshake last completed, None for never;
    `running`: the interface is up. A peer that does not run sends nothing.
    """

    __slots__ = (
        "_handshake",
        "_initiate_again_at",
        "_last_minute_handshake_sent",
        "_staged",
        "_timers",
        "endpoint",
        "handshake_attempts",
        "keypairs",
        "last_session_at",
        "mtu",
        "peer",
        "running",
    )

    def __init__(
        self,
        *,
        peer: int,
        identity: Identity | None,
        public_key: bytes,
        preshared_key: bytes,
        keepalive: int,
        endpoint: Endpoint | None,
        indices: IndexSpace,
        randomness: Callable[[int], bytes],
        tai64n: Callable[[], bytes],
        greatest_timestamp: bytes = bytes(TIMESTAMP_SIZE),
        store: SessionStore | None = None,
    ) -> None:
        """Make a peer that does nothing yet.

        `peer`: its id; `public_key`, `preshared_key`: 32 bytes, the latter zeros for none;
        `keepalive`: seconds, 0 for none, runs from the first datagram on (`set_keepalive`
        sends one at once); `randomness(n)`: n bytes from a CSPRNG; `tai64n()`: a label of the
        present; `greatest_timestamp`: the newest one a predecessor consumed; `store`: where
        sessions are kept, private memory by default.
        """
        self.peer = peer
        self.endpoint = endpoint
        self.mtu = DEFAULT_MTU
        self.keypairs = Keypairs(indices.free, store)
        self.handshake_attempts = 0
        self.last_session_at: float | None = None
        self.running = True
        self._handshake = Handshake(
            peer,
            identity,
            public_key,
            preshared_key,
            greatest_timestamp,
            indices,
            randomness,
            tai64n,
        )
        self._timers = PeerTimers(keepalive, randomness)
        self._staged: deque[bytes] | None = None
        self._initiate_again_at = -inf
        self._last_minute_handshake_sent = False

    @property
    def initiate_again_at(self) -> float:
        """Until when the next initiation is held back; -inf when none was sent or answered."""
        return self._initiate_again_at

    @property
    def staged(self) -> int:
        """The number of packets that wait for a session."""
        return len(self._staged) if self._staged else 0

    def send(self, packet: bytes, now: float) -> list[Outcome]:
        """Send one inner packet now, or once there is a session."""
        keypair = self.sending_keypair(now)
        if keypair is None:
            return self.stage(packet, now)
        if self.endpoint is None:
            return [Drop(DropReason.NO_ENDPOINT)]
        datagram = keypair.seal(packet, self.mtu)
        return [SendDatagram(datagram, self.endpoint), *self.packets_sent(keypair, 1, now)]

    def sending_keypair(self, now: float) -> Keypair | None:
        """Return the keypair to seal the next packet with, or None: then `stage` it."""
        current = self.keypairs.current
        return current if current is not None and current.sendable(now) else None

    def packets_sent(self, keypair: Keypair, count: int, now: float) -> list[Outcome]:
        """`count` packets, none of them empty, were sealed with `keypair` and are sent."""
        if count == 0:
            return []
        self._timers.data_sent(now)
        return self._anything_sent(keypair, now)

    def stage(self, packet: bytes, now: float) -> list[Outcome]:
        """Keep a packet until there is a session, and ask for one.

        At most MAX_STAGED_PACKETS are kept; the oldest is dropped first.
        """
        if self.endpoint is None:
            return [Drop(DropReason.NO_ENDPOINT)]
        if self._handshake.identity is None:
            return [Drop(DropReason.NO_IDENTITY)]
        if self._staged is None:
            self._staged = deque()
        self._staged.append(packet)
        outcomes: list[Outcome] = []
        if len(self._staged) > MAX_STAGED_PACKETS:
            self._staged.popleft()
            outcomes.append(Drop(DropReason.STAGED_OVERFLOW))
        return outcomes + self._send_staged(now)

    def begin_handshake(self, now: float) -> list[Outcome]:
        """Ask for a session: send an initiation, or in time, when one was sent just now.

        A reason to ask starts the count of attempts anew (WP 6.4); an initiation that holds
        the next one back is the first of them.
        """
        held_back = now < self._initiate_again_at
        self.handshake_attempts = min(self.handshake_attempts, 1) if held_back else 0
        return self._initiate(now)

    def forget_source(self) -> list[Outcome]:
        """Let the kernel choose the local address to send from anew."""
        if self.endpoint is not None:
            self.endpoint = self.endpoint.without_source()
        return []

    def _initiate(self, now: float) -> list[Outcome]:
        if self.endpoint is None or self._handshake.identity is None or not self.running:
            return []
        if now < self._initiate_again_at:
            self._timers.handshake_held_back(self._initiate_again_at)
            return []
        datagram = self._handshake.initiate(now)
        if isinstance(datagram, DropReason):
            return [Drop(datagram)]
        self._initiate_again_at = now + REKEY_TIMEOUT
        self.handshake_attempts += 1
        self._timers.any_authenticated_packet_traversal(now)
        self._timers.any_authenticated_packet_sent()
        self._timers.handshake_initiated(now)
        return [SendDatagram(datagram, self.endpoint, handshake=True)]

    def _retransmit(self, now: float) -> list[Outcome]:
        if self.handshake_attempts >= MAX_TIMER_HANDSHAKES:
            self._timers.handshake_given_up(now)
            return [HandshakeGivenUp(), *self._drop_staged(DropReason.HANDSHAKE_TIMEOUT)]
        if self.handshake_attempts:
            self.forget_source()  # it may be why nobody answers
        return self._initiate(now)

    def _last_minute_handshake(self, now: float) -> list[Outcome]:
        if self._last_minute_handshake_sent:
            return []
        self._last_minute_handshake_sent = True
        return self.begin_handshake(now)

    def _handshake_complete(self, *, initiator: bool, now: float) -> list[Outcome]:
        self._timers.handshake_complete()
        self.handshake_attempts = 0
        self._last_minute_handshake_sent = False
        self.last_session_at = now
        return [HandshakeCompleted(initiator)]

    def _keepalive(self, now: float) -> list[Outcome]:
        """Send the staged packets, or an empty one, or ask for a session to send it on."""
        keypair = self.sending_keypair(now)
        if keypair is None or self._staged:
            return self._send_staged(now)
        if self.endpoint is None:
            return []
        datagram = keypair.seal(b"", self.mtu)
        return [SendDatagram(datagram, self.endpoint), *self._anything_sent(keypair, now)]

    def _persistent_keepalive(self, now: float) -> list[Outcome]:
        # Armed even when nothing can be sent now; sending puts it off just as far.
        self._timers.arm(Timer.PERSISTENT_KEEPALIVE, now + self._timers.keepalive)
        return self._keepalive(now)

    def _send_staged(self, now: float) -> list[Outcome]:
        keypair = self.sending_keypair(now)
        if keypair is None:
            return self.begin_handshake(now)
        endpoint = self.endpoint
        if not self._staged or endpoint is None:
            return []
        datagrams: list[Outcome] = []
        while self._staged and keypair.sendable(now):
            datagram = keypair.seal(self._staged.popleft(), self.mtu)
            datagrams.append(SendDatagram(datagram, endpoint))
        self._staged = self._staged or None
        return datagrams + self.packets_sent(keypair, len(datagrams), now)

    def _anything_sent(self, keypair: Keypair, now: float) -> list[Outcome]:
        self._timers.any_authenticated_packet_traversal(now)
        self._timers.any_authenticated_packet_sent()
        return self.begin_handshake(now) if keypair.wants_rekey_on_send(now) else []

    def _drop_staged(self, reason: DropReason) -> list[Outcome]:
        count, self._staged = self.staged, None
        return [Drop(reason, count)] if count else []
