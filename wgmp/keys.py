"""Keys: making them, and their two texts (base64 for people, hex for the UAPI).

The texts are read as strictly as `wg` reads them (wireguard-tools src/encoding.c): 44 base64
characters with one "=" and no stray bits, or 64 hex digits. No key ever appears in an error.
"""

from __future__ import annotations

import base64
import binascii
import secrets

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from wgmp.errors import WgmpError

KEY_BYTES = 32
BASE64_CHARACTERS = 44
ZERO_KEY = bytes(KEY_BYTES)

# isspace() of the C locale, and NUL: what `wg pubkey` allows after the key.
_AFTER_KEY = b" \t\n\v\f\r\0"


class KeyFormatError(WgmpError):
    """A text is not a key. The messages are those of `wg`, and never hold the text."""


def clamp(key: bytes) -> bytes:
    """Return the 32-byte `key` with the bits of an X25519 scalar fixed (RFC 7748 section 5)."""
    return bytes((key[0] & 248,)) + key[1:31] + bytes((key[31] & 127 | 64,))


def generate_private_key() -> bytes:
    """Return a new, clamped 32-byte private key from the system's random source."""
    return clamp(secrets.token_bytes(KEY_BYTES))


def generate_preshared_key() -> bytes:
    """Return a new 32-byte preshared key from the system's random source."""
    return secrets.token_bytes(KEY_BYTES)


def public_key_of(private_key: bytes) -> bytes:
    """Return the 32-byte public key of a 32-byte private key."""
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def to_base64(key: bytes) -> str:
    """Return the key as the 44 characters that configuration files hold."""
    return base64.b64encode(key).decode("ascii")


def from_base64(text: str) -> bytes:
    """Return the 32 bytes of a base64 key; raise KeyFormatError unless it is exactly one."""
    try:
        key = binascii.a2b_base64(text)
    except ValueError:
        key = b""
    # Only the canonical text encodes back to itself: no blanks, no bits beyond the key.
    if len(key) != KEY_BYTES or to_base64(key) != text:
        raise KeyFormatError("Key is not the correct length or format")
    return key


def to_hex(key: bytes) -> str:
    """Return the key as the 64 lower-case hex digits that the UAPI holds."""
    return key.hex()


def from_hex(text: str | bytes) -> bytes:
    """Return the 32 bytes of a hex key (either case); raise KeyFormatError on anything else."""
    try:
        key = binascii.unhexlify(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise KeyFormatError("Key is not the correct length or format")
    return key


def private_key_from_input(data: bytes) -> bytes:
    """Return the key in what `wg pubkey` reads from its standard input.

    `data`: the whole input: 44 characters, then nothing but white space and NULs.
    Raises KeyFormatError with the message `wg pubkey` prints.
    """
    text, rest = data[:BASE64_CHARACTERS], data[BASE64_CHARACTERS:]
    if rest.strip(_AFTER_KEY):
        raise KeyFormatError("Trailing characters found after key")
    return from_base64(text.decode("latin-1"))
