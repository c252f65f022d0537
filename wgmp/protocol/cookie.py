"""Cookies: how a responder under load makes a sender prove its address (WP 5.4.4, 5.4.7).

The responder keeps no state but one secret. A cookie is a MAC under that secret of the
sender's address and port; it travels encrypted, bound to the mac1 of the message it answers.
The sender puts a MAC under the cookie (mac2) into its next messages.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from wgmp.protocol import crypto
from wgmp.protocol.constants import (
    COOKIE_NONCE_SIZE,
    COOKIE_SECRET_LATENCY,
    COOKIE_SECRET_MAX_AGE,
    KEY_SIZE,
    MAC_SIZE,
)
from wgmp.protocol.crypto import Bytes
from wgmp.protocol.messages import CookieReply, macs, sender_index
from wgmp.protocol.noise import Identity, cookie_key, mac1_key
from wgmp.protocol.outcome import Endpoint


def mac1_ok(key: bytes, datagram: Bytes) -> bool:
    """Return whether the sender knows our public key, from which `key` is (`noise.mac1_key`).

    `datagram`: an initiation or a response that `message_type` accepted.
    """
    covers, mac1, _, _ = macs(datagram)
    return crypto.equal(crypto.mac(key, covers), mac1)


class CookieChecker:
    """The responder's side, one for a device.

    Every `datagram` is an initiation or a response that `message_type` accepted.
    `randomness(n)` returns n bytes from a CSPRNG.
    """

    __slots__ = ("_identity", "_randomness", "_secret", "_secret_expires_at")

    def __init__(self, identity: Identity, randomness: Callable[[int], bytes]) -> None:
        self._identity = identity
        self._randomness = randomness
        self._secret = b""
        self._secret_expires_at = -inf

    def mac2_ok(self, datagram: Bytes, endpoint: Endpoint, now: float) -> bool:
        """Return whether the sender has received a fresh cookie at this address and port."""
        parts = macs(datagram)
        expected = crypto.mac(self._cookie(endpoint, now), parts.mac2_covers)
        return crypto.equal(expected, parts.mac2)

    def reply(self, datagram: Bytes, endpoint: Endpoint, now: float) -> bytes:
        """Return the 64-byte cookie reply to a datagram that came from `endpoint`."""
        nonce = self._randomness(COOKIE_NONCE_SIZE)
        cookie = self._cookie(endpoint, now)
        sealed = crypto.xseal(self._identity.cookie_key, nonce, cookie, macs(datagram).mac1)
        return CookieReply(sender_index(datagram), nonce, sealed).pack()

    def _cookie(self, endpoint: Endpoint, now: float) -> bytes:
        if now >= self._secret_expires_at:
            self._secret = self._randomness(KEY_SIZE)
            self._secret_expires_at = now + COOKIE_SECRET_MAX_AGE
        return crypto.mac(self._secret, endpoint.address + endpoint.port.to_bytes(2, "big"))


class CookieJar:
    """The sender's side, one for each peer: its last cookie and the mac1 last sent."""

    __slots__ = ("_cookie", "_expires_at", "_mac1")

    def __init__(self) -> None:
        self._cookie = b""
        self._expires_at = -inf
        self._mac1: bytes | None = None

    def add_macs(self, datagram: bytes, receiver: bytes, now: float) -> bytes:
        """Return an initiation or response to the public key `receiver` with its MACs set.

        mac2 stays zero unless there is a fresh cookie.
        """
        covered = macs(datagram).mac1_covers
        mac1 = crypto.mac(mac1_key(receiver), covered)
        fresh = now < self._expires_at
        mac2 = crypto.mac(self._cookie, covered + mac1) if fresh else bytes(MAC_SIZE)
        self._mac1 = mac1
        return covered + mac1 + mac2

    def accept(self, reply: CookieReply, sender: bytes, now: float) -> bool:
        """Keep the cookie of a reply from the public key `sender`; False when it is not one.

        One message is answered by at most one reply, so a second one is not believed.
        """
        if self._mac1 is None:
            return False
        cookie = crypto.xopen(cookie_key(sender), reply.nonce, reply.cookie, self._mac1)
        if cookie is None:
            return False
        self._cookie = cookie
        self._expires_at = now + COOKIE_SECRET_MAX_AGE - COOKIE_SECRET_LATENCY
        self._mac1 = None
        return True
