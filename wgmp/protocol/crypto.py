"""The primitives of the handshake, under the whitepaper's names (WP 5.4).

All but XChaCha20-Poly1305 come from hashlib, hmac and `cryptography`; that one is derived
exactly from `cryptography`'s ChaCha20 (see `hchacha20`).
"""

from __future__ import annotations

import hashlib
import hmac as _hmac
import struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from wgmp.protocol.constants import MAC_SIZE

Bytes = bytes | bytearray | memoryview

_ZERO_NONCE: Final = bytes(12)


def hash(*inputs: Bytes) -> bytes:
    """Return the 32-byte BLAKE2s of the concatenated inputs (RFC 7693)."""
    return hashlib.blake2s(b"".join(inputs)).digest()


def mac(key: bytes, message: Bytes) -> bytes:
    """Return the 16-byte keyed BLAKE2s of `message`; `key` is 16 or 32 bytes."""
    return hashlib.blake2s(message, key=key, digest_size=MAC_SIZE).digest()


def hmac(key: bytes, message: bytes) -> bytes:
    """Return the 32-byte HMAC-BLAKE2s of `message` (RFC 2104)."""
    return _hmac.digest(key, message, "blake2s")


def equal(left: bytes, right: bytes) -> bool:
    """Compare two MACs in constant time."""
    return _hmac.compare_digest(left, right)


def kdf1(key: bytes, ikm: bytes) -> bytes:
    """Derive one 32-byte output (HKDF, RFC 5869, over HMAC-BLAKE2s)."""
    return hmac(hmac(key, ikm), b"\x01")


def kdf2(key: bytes, ikm: bytes) -> tuple[bytes, bytes]:
    """Derive two 32-byte outputs."""
    secret = hmac(key, ikm)
    first = hmac(secret, b"\x01")
    return first, hmac(secret, first + b"\x02")


def kdf3(key: bytes, ikm: bytes) -> tuple[bytes, bytes, bytes]:
    """Derive three 32-byte outputs."""
    secret = hmac(key, ikm)
    first = hmac(secret, b"\x01")
    second = hmac(secret, first + b"\x02")
    return first, second, hmac(secret, second + b"\x03")


def private_key(raw: bytes) -> X25519PrivateKey:
    """Return the X25519 key of 32 bytes; they are clamped on use (RFC 7748)."""
    return X25519PrivateKey.from_private_bytes(raw)


def dh(private: X25519PrivateKey, public: bytes) -> bytes | None:
    """Return the 32-byte X25519 shared secret, or None when it is all zeros.

    `public`: 32 bytes. A zero result means a point of low order, which would let a stranger
    know the secret (RFC 7748, 6.1).
    """
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        return None


def seal(key: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """Encrypt with ChaCha20-Poly1305 under counter 0: a handshake's keys are used once."""
    return ChaCha20Poly1305(key).encrypt(_ZERO_NONCE, plaintext, associated)


def open(key: bytes, ciphertext: bytes, associated: bytes) -> bytes | None:
    """Decrypt what `seal` made; None when the tag does not fit."""
    try:
        return ChaCha20Poly1305(key).decrypt(_ZERO_NONCE, ciphertext, associated)
    except InvalidTag:
        return None


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """Return the 32-byte HChaCha20 subkey (draft-irtf-cfrg-xchacha-03, 2.2).

    `key`: 32 bytes; `nonce`: 16. HChaCha20 is ChaCha20's block function without its last
    step, the addition of the initial state. So it is one keystream block with that addition
    undone, in the words HChaCha20 keeps: the constants' four and the nonce's four.
    """
    keystream = Cipher(ChaCha20(key, nonce), mode=None).encryptor().update(bytes(64))
    words = struct.unpack("<16I", keystream)
    initial = struct.unpack("<4I4I", b"expand 32-byte k" + nonce)
    kept = words[:4] + words[12:]
    undone = [(word - start) & 0xFFFF_FFFF for word, start in zip(kept, initial, strict=True)]
    return struct.pack("<8I", *undone)


def xseal(key: bytes, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """Encrypt with XChaCha20-Poly1305; `nonce`: 24 bytes."""
    subkey = hchacha20(key, nonce[:16])
    return ChaCha20Poly1305(subkey).encrypt(bytes(4) + nonce[16:], plaintext, associated)


def xopen(key: bytes, nonce: bytes, ciphertext: bytes, associated: bytes) -> bytes | None:
    """Decrypt with XChaCha20-Poly1305; None when the tag does not fit."""
    subkey = hchacha20(key, nonce[:16])
    try:
        return ChaCha20Poly1305(subkey).decrypt(bytes(4) + nonce[16:], ciphertext, associated)
    except InvalidTag:
        return None
