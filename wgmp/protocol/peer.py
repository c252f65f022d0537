"""One peer of the device: its sessions, timers, staged packets and endpoint.

```
outgoing   send: sending_keypair -> seal -> packets_sent        (or stage -> begin_handshake)
incoming   receive: keypair -> age -> open (tag, then replay) -> datagrams_received
handshake  begin_handshake -> initiation ... consume_response -> staged packets flushed
           consume_initiation -> response ... first packet on next -> staged packets flushed
time       deadline says when to call due
```
Every method returns what is to be done, in order. Nothing moves before a message has
authenticated: endpoint, timers, replay window and the promotion of a keypair alike.
A batch path does the sealing and opening itself and calls the parts instead of the wholes.
"""

from __future__ import annotations

from math import inf

from wgmp.protocol import ip
from wgmp.protocol.constants import REKEY_TIMEOUT
from wgmp.protocol.crypto import Bytes
from wgmp.protocol.keypair import Keypair
from wgmp.protocol.messages import TransportHeader
from wgmp.protocol.noise import Identity, OpenedInitiation, SessionKeys
from wgmp.protocol.outbound import Outbound
from wgmp.protocol.outcome import (
    Drop,
    DropReason,
    Endpoint,
    Outcome,
    SendDatagram,
    SessionExpired,
    WritePacket,
)
from wgmp.protocol.timers import Timer


class Peer(Outbound):
    """A peer: what it sends (`Outbound`), what it takes in, its timers and configuration."""

    __slots__ = ()

    @property
    def public_key(self) -> bytes:
        """The peer's static public key, 32 bytes."""
        return self._handshake.public_key

    @property
    def greatest_timestamp(self) -> bytes:
        """The 12-byte label of the newest initiation consumed."""
        return self._handshake.greatest_timestamp

    # Configuration

    def set_identity(self, identity: Identity | None, now: float) -> list[Outcome]:
        """Change the device's key. Sessions made with the old one seal nothing any more."""
        self._handshake.set_identity(identity)
        self.keypairs.retire()
        self._initiate_again_at = now
        return []

    def set_preshared_key(self, preshared_key: bytes) -> list[Outcome]:
        """Change the preshared key (32 bytes); the next handshake message uses it."""
        self._handshake.preshared_key = preshared_key
        return []

    def set_endpoint(self, endpoint: Endpoint | None) -> list[Outcome]:
        """Let the peer be at `endpoint`, until it is heard from elsewhere."""
        self.endpoint = endpoint
        return []

    def set_keepalive(self, seconds: int, now: float) -> list[Outcome]:
        """Change the persistent keepalive's interval; turned on, it sends one at once."""
        before = self._timers.keepalive
        self._timers.keepalive = seconds
        if seconds == 0 or not self.running:
            self._timers.disarm(Timer.PERSISTENT_KEEPALIVE)
        elif before == 0:
            return self._persistent_keepalive(now)
        elif before != seconds:
            self._timers.arm(Timer.PERSISTENT_KEEPALIVE, now + seconds)
        return []

    def start(self, now: float) -> list[Outcome]:
        """The interface came up: a persistent keepalive is due at once (kernel wg_open)."""
        self.running = True
        if self._timers.keepalive:
            self._timers.arm(Timer.PERSISTENT_KEEPALIVE, now)
        return []

    def stop(self) -> list[Outcome]:
        """The interface went down: no sessions, no timers, nothing staged (kernel wg_stop).

        Endpoint and configuration stay. Nothing may come in until `start`.
        """
        self.running = False
        self._zero_key_material()
        self._timers.clear()
        self._initiate_again_at = -inf
        return self._drop_staged(DropReason.LINK_DOWN)

    def resume(self, initiate_again_at: float, attempts: int, now: float) -> list[Outcome]:
        """Go on where a predecessor stopped, with the sessions that are in the store.

        `initiate_again_at`, `attempts`: as the predecessor had them (`handshake_attempts`). What
        it held in its own memory is lost: staged packets, an initiation that awaits its
        response, and which keepalives are owed. So an initiation is sent again when one may be,
        and a keepalive goes as if data had been received just now.
        """
        self._initiate_again_at = initiate_again_at
        self.handshake_attempts = attempts
        self.keypairs.resume()
        created = [keypair.created_at for keypair in self.keypairs]
        if created:
            self._timers.session_derived(max(created))
        if self.sending_keypair(now) is not None:
            self._timers.data_received(now)
        if attempts:
            self._timers.handshake_held_back(max(now, initiate_again_at))
        return []

    def close(self) -> list[Outcome]:
        """The peer is removed: give back its indices and drop its keys and packets."""
        self._zero_key_material()
        self._handshake.set_identity(None)
        self._timers.clear()
        return self._drop_staged(DropReason.PEER_REMOVED)

    # Incoming

    def keypair(self, local_index: int) -> Keypair | None:
        """Return the session that `local_index` names to the peer, or None."""
        return self.keypairs.find(local_index)

    def receive(self, datagram: Bytes, endpoint: Endpoint, now: float) -> list[Outcome]:
        """Take one transport datagram of any content that came from `endpoint`.

        Whether the packet's source may come from this peer is the caller's to check.
        """
        header = TransportHeader.unpack(datagram)
        if isinstance(header, DropReason):
            return [Drop(header)]
        keypair = self.keypair(header.receiver)
        if keypair is None:
            return [Drop(DropReason.UNKNOWN_INDEX)]
        if keypair.expired(now):
            return [Drop(DropReason.KEYPAIR_EXPIRED)]
        padded = keypair.open(datagram)
        if isinstance(padded, DropReason):
            return [Drop(padded)]
        if not padded:
            return self.datagrams_received(keypair, endpoint, 0, 1, now)
        outcomes = self.datagrams_received(keypair, endpoint, 1, 0, now)
        packet = ip.trim(padded)
        return [*outcomes, Drop(packet) if isinstance(packet, DropReason) else WritePacket(packet)]

    def datagrams_received(
        self, keypair: Keypair, endpoint: Endpoint, data: int, keepalives: int, now: float
    ) -> list[Outcome]:
        """Datagrams on `keypair` have authenticated and were no replays, at least one.

        `data` of them held a packet, `keepalives` did not; the last came from `endpoint`.
        """
        assert data + keepalives > 0
        if endpoint != self.endpoint:
            self.endpoint = endpoint
        self._anything_received(now)
        if data:
            self._timers.data_received(now)
        outcomes: list[Outcome] = []
        if keypair is self.keypairs.next:
            self.keypairs.promote()
            outcomes += self._handshake_complete(initiator=False, now=now)
            outcomes += self._send_staged(now)
        current = self.keypairs.current
        if current is not None and current.wants_rekey_on_receive(now):
            outcomes += self._last_minute_handshake(now)
        return outcomes

    def consume_initiation(
        self, opened: OpenedInitiation, endpoint: Endpoint, now: float
    ) -> list[Outcome]:
        """Answer an initiation whose static key is this peer's, if it is fresh.

        Answering counts as our last handshake sent: our own is held back for 5 s.
        """
        answer = self._handshake.answer(opened, now)
        if isinstance(answer, DropReason):
            return [Drop(answer)]
        datagram, keys = answer
        self.endpoint = endpoint
        self._install(keys, now)
        self._initiate_again_at = now + REKEY_TIMEOUT
        self._anything_received(now)
        self._timers.any_authenticated_packet_sent()
        return [SendDatagram(datagram, endpoint, handshake=True)]

    def consume_response(self, datagram: Bytes, endpoint: Endpoint, now: float) -> list[Outcome]:
        """Take the response to our initiation; its mac1 has been checked.

        The session works at once: staged packets go, or a keepalive to confirm it.
        """
        keys = self._handshake.finish(datagram)
        if isinstance(keys, DropReason):
            return [Drop(keys)]
        self.endpoint = endpoint
        self._install(keys, now)
        self._anything_received(now)
        return self._handshake_complete(initiator=True, now=now) + self._keepalive(now)

    def consume_cookie_reply(self, datagram: Bytes, now: float) -> list[Outcome]:
        """Keep the cookie for our next handshake messages; nothing else moves."""
        wrong = self._handshake.keep_cookie(datagram, now)
        return [] if wrong is None else [Drop(wrong)]

    # Time

    def deadline(self) -> float | None:
        """Return when `due` must be called next, or None."""
        return self._timers.next()

    def due(self, now: float) -> list[Outcome]:
        """Act on every timer that is due."""
        outcomes: list[Outcome] = []
        # After the machine was suspended much is due at once. Old keys are forgotten first, or
        # that would end the handshake that another timer has just begun.
        due = self._timers.due(now)
        for timer in sorted(due, key=lambda timer: timer is not Timer.ZERO_KEY_MATERIAL):
            if self._timers.take(timer, now):
                outcomes += self._act(timer, now)
        return outcomes

    def _act(self, timer: Timer, now: float) -> list[Outcome]:
        match timer:
            case Timer.RETRANSMIT_HANDSHAKE:
                return self._retransmit(now)
            case Timer.SEND_KEEPALIVE:
                outcomes = self._keepalive(now)
                self._timers.keepalive_due(now)
                return outcomes
            case Timer.NEW_HANDSHAKE:
                self.forget_source()
                return self.begin_handshake(now)
            case Timer.ZERO_KEY_MATERIAL:
                had_session = self.keypairs.current is not None
                self._zero_key_material()
                return [SessionExpired()] if had_session else []
            case Timer.PERSISTENT_KEEPALIVE:
                return self._persistent_keepalive(now)

    # Parts

    def _install(self, keys: SessionKeys, now: float) -> None:
        keypair = Keypair(keys, now)
        identity = self._handshake.identity
        crossed = keys.is_initiator and self.keypairs.next is not None
        if crossed and identity is not None and identity.public_key < self.public_key:
            # Both ends began a handshake at once, so both are initiators and would rekey at
            # once forever. One of them, by a rule both know, leaves the next to the other.
            keypair.rekey_at += REKEY_TIMEOUT
        self.keypairs.install(keypair)
        self._timers.session_derived(now)

    def _anything_received(self, now: float) -> None:
        self._timers.any_authenticated_packet_received()
        self._timers.any_authenticated_packet_traversal(now)

    def _zero_key_material(self) -> None:
        """Let go of all keys. Python cannot overwrite them; the last reference is dropped."""
        self._handshake.abandon()
        self.keypairs.clear()
