"""The handshake, Noise IKpsk2, step by step (WP 5.4.2, 5.4.3). Nothing here keeps state.

```
initiator                                      responder
create_initiation  -- initiation ->            open_static          (admission: who is it?)
                                               complete_initiation  (worker: is it fresh?)
consume_response   <- response --              create_response
     SessionKeys                                    SessionKeys
```
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from wgmp.protocol import crypto
from wgmp.protocol.constants import (
    CONSTRUCTION,
    HASH_SIZE,
    IDENTIFIER,
    KEY_SIZE,
    LABEL_COOKIE,
    LABEL_MAC1,
)
from wgmp.protocol.crypto import Bytes
from wgmp.protocol.messages import Initiation, Response
from wgmp.protocol.outcome import DropReason

_INITIAL_CHAINING_KEY: Final = crypto.hash(CONSTRUCTION)
_INITIAL_HASH: Final = crypto.hash(_INITIAL_CHAINING_KEY, IDENTIFIER)


def mac1_key(public_key: bytes) -> bytes:
    """Return the key of mac1 in messages to the owner of `public_key` (WP 5.4.4)."""
    return crypto.hash(LABEL_MAC1, public_key)


def cookie_key(public_key: bytes) -> bytes:
    """Return the key of cookie replies from the owner of `public_key` (WP 5.4.7)."""
    return crypto.hash(LABEL_COOKIE, public_key)


@dataclass(frozen=True, slots=True)
class Identity:
    """A static key and what is derived from it. `private_key`: 32 bytes."""

    private_key: bytes = field(repr=False)
    secret: X25519PrivateKey = field(init=False, repr=False, compare=False)
    public_key: bytes = field(init=False)
    mac1_key: bytes = field(init=False, repr=False)
    cookie_key: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        secret = crypto.private_key(self.private_key)
        public_key = secret.public_key().public_bytes_raw()
        object.__setattr__(self, "secret", secret)
        object.__setattr__(self, "public_key", public_key)
        object.__setattr__(self, "mac1_key", mac1_key(public_key))
        object.__setattr__(self, "cookie_key", cookie_key(public_key))

    def static_static(self, public_key: bytes) -> bytes | None:
        """Return the shared secret of two static keys, or None for a key of low order."""
        return crypto.dh(self.secret, public_key)


class _Transcript:
    """Noise's symmetric state: the chaining key and the running hash."""

    __slots__ = ("chaining_key", "hash")

    def __init__(self, chaining_key: bytes, running_hash: bytes) -> None:
        self.chaining_key = chaining_key
        self.hash = running_hash

    @classmethod
    def towards(cls, responder: bytes) -> _Transcript:
        return cls(_INITIAL_CHAINING_KEY, crypto.hash(_INITIAL_HASH, responder))

    def mix_hash(self, public: bytes) -> None:
        self.hash = crypto.hash(self.hash, public)

    def mix_ephemeral(self, public: bytes) -> None:
        self.chaining_key = crypto.kdf1(self.chaining_key, public)
        self.mix_hash(public)

    def mix_secret(self, shared: bytes) -> None:
        self.chaining_key = crypto.kdf1(self.chaining_key, shared)

    def mix_key(self, shared: bytes) -> bytes:
        self.chaining_key, key = crypto.kdf2(self.chaining_key, shared)
        return key

    def mix_preshared_key(self, preshared_key: bytes) -> bytes:
        self.chaining_key, tau, key = crypto.kdf3(self.chaining_key, preshared_key)
        self.mix_hash(tau)
        return key

    def seal(self, key: bytes, plaintext: bytes) -> bytes:
        ciphertext = crypto.seal(key, plaintext, self.hash)
        self.mix_hash(ciphertext)
        return ciphertext

    def open(self, key: bytes, ciphertext: bytes) -> bytes | None:
        plaintext = crypto.open(key, ciphertext, self.hash)
        self.mix_hash(ciphertext)
        return plaintext


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """What a finished handshake gives one end. `sending`, `receiving`: 32 bytes each."""

    sending: bytes = field(repr=False)
    receiving: bytes = field(repr=False)
    local_index: int
    remote_index: int
    is_initiator: bool


@dataclass(frozen=True, slots=True)
class OutstandingInitiation:
    """What the initiator keeps until the response comes."""

    local_index: int
    ephemeral: X25519PrivateKey = field(repr=False)
    chaining_key: bytes = field(repr=False)
    hash: bytes = field(repr=False)


def create_initiation(
    identity: Identity,
    responder: bytes,
    static_static: bytes,
    ephemeral: bytes,
    timestamp: bytes,
    local_index: int,
) -> tuple[Initiation, OutstandingInitiation] | DropReason:
    """Begin a handshake with the owner of the public key `responder`.

    `ephemeral`: 32 fresh random bytes; `timestamp`: a TAI64N label. The message has no MACs
    yet. BAD_STATIC when the responder's key is of low order.
    """
    secret = crypto.private_key(ephemeral)
    public = secret.public_key().public_bytes_raw()
    transcript = _Transcript.towards(responder)
    transcript.mix_ephemeral(public)
    shared = crypto.dh(secret, responder)
    if shared is None:
        return DropReason.BAD_STATIC
    static = transcript.seal(transcript.mix_key(shared), identity.public_key)
    sealed_timestamp = transcript.seal(transcript.mix_key(static_static), timestamp)
    message = Initiation(local_index, public, static, sealed_timestamp)
    return message, OutstandingInitiation(
        local_index, secret, transcript.chaining_key, transcript.hash
    )


@dataclass(frozen=True, slots=True)
class OpenedInitiation:
    """An initiation whose sender is known but whose freshness is not.

    `public_key`: the sender's static key; `chaining_key`, `hash`: the transcript up to it.
    It crosses a ring as SIZE bytes, and holds no secret that its sender does not know.
    """

    SIZE: ClassVar[int] = KEY_SIZE + 2 * HASH_SIZE + Initiation.SIZE

    public_key: bytes
    chaining_key: bytes = field(repr=False)
    hash: bytes = field(repr=False)
    message: Initiation

    def pack(self) -> bytes:
        """Return SIZE bytes."""
        return self.public_key + self.chaining_key + self.hash + self.message.pack()

    @classmethod
    def unpack(cls, packed: Bytes) -> OpenedInitiation | DropReason:
        """Return what `pack` packed; BAD_LENGTH or BAD_TYPE for other bytes."""
        if len(packed) != cls.SIZE:
            return DropReason.BAD_LENGTH
        whole = bytes(packed)
        message = Initiation.unpack(whole[-Initiation.SIZE :])
        if isinstance(message, DropReason):
            return message
        key_end, chaining_end = KEY_SIZE, KEY_SIZE + HASH_SIZE
        return cls(
            whole[:key_end],
            whole[key_end:chaining_end],
            whole[chaining_end : chaining_end + HASH_SIZE],
            message,
        )


def open_static(identity: Identity, datagram: Bytes) -> OpenedInitiation | DropReason:
    """Responder, first step: find out whose initiation this is. One Diffie-Hellman.

    `datagram`: bytes of any length from the network; never raises. BAD_EPHEMERAL for a point
    of low order, BAD_STATIC when the static key does not decrypt.
    """
    message = Initiation.unpack(datagram)
    if isinstance(message, DropReason):
        return message
    transcript = _Transcript.towards(identity.public_key)
    transcript.mix_ephemeral(message.ephemeral)
    shared = crypto.dh(identity.secret, message.ephemeral)
    if shared is None:
        return DropReason.BAD_EPHEMERAL
    public_key = transcript.open(transcript.mix_key(shared), message.static)
    if public_key is None:
        return DropReason.BAD_STATIC
    return OpenedInitiation(public_key, transcript.chaining_key, transcript.hash, message)


@dataclass(frozen=True, slots=True)
class CompletedInitiation:
    """An initiation that its sender's static key has authenticated."""

    timestamp: bytes
    remote_static: bytes
    remote_ephemeral: bytes
    remote_index: int
    chaining_key: bytes = field(repr=False)
    hash: bytes = field(repr=False)


def complete_initiation(
    opened: OpenedInitiation, static_static: bytes
) -> CompletedInitiation | DropReason:
    """Responder, second step: authenticate the sender and read the timestamp.

    BAD_TIMESTAMP when it does not decrypt. Whether it is newer than the last one is the
    caller's to judge.
    """
    transcript = _Transcript(opened.chaining_key, opened.hash)
    message = opened.message
    timestamp = transcript.open(transcript.mix_key(static_static), message.timestamp)
    if timestamp is None:
        return DropReason.BAD_TIMESTAMP
    return CompletedInitiation(
        timestamp,
        opened.public_key,
        message.ephemeral,
        message.sender,
        transcript.chaining_key,
        transcript.hash,
    )


def create_response(
    initiation: CompletedInitiation, preshared_key: bytes, ephemeral: bytes, local_index: int
) -> tuple[Response, SessionKeys] | DropReason:
    """Responder, third step: answer, and derive the session's keys.

    `ephemeral`: 32 fresh random bytes. The message has no MACs yet. BAD_EPHEMERAL or
    BAD_STATIC for a point of low order.
    """
    secret = crypto.private_key(ephemeral)
    public = secret.public_key().public_bytes_raw()
    transcript = _Transcript(initiation.chaining_key, initiation.hash)
    transcript.mix_ephemeral(public)
    ephemeral_ephemeral = crypto.dh(secret, initiation.remote_ephemeral)
    if ephemeral_ephemeral is None:
        return DropReason.BAD_EPHEMERAL
    ephemeral_static = crypto.dh(secret, initiation.remote_static)
    if ephemeral_static is None:
        return DropReason.BAD_STATIC
    transcript.mix_secret(ephemeral_ephemeral)
    transcript.mix_secret(ephemeral_static)
    empty = transcript.seal(transcript.mix_preshared_key(preshared_key), b"")
    receiving, sending = crypto.kdf2(transcript.chaining_key, b"")
    message = Response(local_index, initiation.remote_index, public, empty)
    return message, SessionKeys(sending, receiving, local_index, initiation.remote_index, False)


def consume_response(
    identity: Identity, outstanding: OutstandingInitiation, response: Response, preshared_key: bytes
) -> SessionKeys | DropReason:
    """Initiator, last step: check the answer, and derive the session's keys.

    BAD_EPHEMERAL for a point of low order, BAD_RESPONSE when it does not authenticate.
    """
    transcript = _Transcript(outstanding.chaining_key, outstanding.hash)
    transcript.mix_ephemeral(response.ephemeral)
    ephemeral_ephemeral = crypto.dh(outstanding.ephemeral, response.ephemeral)
    static_ephemeral = crypto.dh(identity.secret, response.ephemeral)
    if ephemeral_ephemeral is None or static_ephemeral is None:
        return DropReason.BAD_EPHEMERAL
    transcript.mix_secret(ephemeral_ephemeral)
    transcript.mix_secret(static_ephemeral)
    if transcript.open(transcript.mix_preshared_key(preshared_key), response.empty) is None:
        return DropReason.BAD_RESPONSE
    sending, receiving = crypto.kdf2(transcript.chaining_key, b"")
    return SessionKeys(sending, receiving, outstanding.local_index, response.sender, True)
