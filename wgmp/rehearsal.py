"""One turn of all the cryptography there is, before the first role is forked.

Libraries load parts of themselves when something is first used, and a role may open no file by
then. Loaded here, it is also memory that all processes share.
"""

from __future__ import annotations

import os

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgmp.protocol import crypto

_TAG_BYTES = 16


def rehearse() -> None:
    """Use every primitive once, on random input; also the way a forgery takes. Never raises."""
    key, nonce = os.urandom(32), os.urandom(24)
    private = crypto.private_key(key)
    shared = crypto.dh(private, private.public_key().public_bytes_raw())
    crypto.dh(private, bytes(32))
    _, second, third = crypto.kdf3(crypto.hash(key), shared or key)
    crypto.mac(second, nonce)
    crypto.open(second, crypto.seal(second, nonce, key), key)
    crypto.xopen(third, nonce, crypto.xseal(third, nonce, key, b""), b"forged")
    aead, text = ChaCha20Poly1305(key), bytearray(64 + _TAG_BYTES)
    aead.encrypt_into(nonce[:12], bytes(64), None, text)
    aead.decrypt_into(nonce[:12], bytes(text), None, bytearray(64))
