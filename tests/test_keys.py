"""Keys: made, written and read as `wg` does."""

from __future__ import annotations

import secrets
import shutil
import subprocess

import pytest

from wgmp import keys
from wgmp.keys import KeyFormatError

needs_wg = pytest.mark.skipif(shutil.which("wg") is None, reason="needs wireguard-tools' wg")

# Texts that are nearly a key.
ZEROS = "A" * 43 + "="
NOT_KEYS = [
    "",
    "A" * 43,
    "A" * 44,
    "A" * 42 + "==",
    "A" * 42 + "B=",  # bits beyond the 32nd byte
    "A" * 42 + " =",
    "A" * 42 + "-=",
    "A" * 42 + "_=",
    " " + ZEROS,
    ZEROS + "=",
    "A" * 20 + "\n" + "A" * 22 + "=",
    "A" * 42 + "é=",
]


def wg(command: str, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["wg", command], input=text, capture_output=True, timeout=10)


def test_private_keys_are_clamped_and_differ() -> None:
    made = {keys.generate_private_key() for _ in range(50)}
    assert len(made) == 50
    for key in made:
        assert len(key) == 32
        assert key[0] & 0b0000_0111 == 0
        assert key[31] & 0b1100_0000 == 0b0100_0000


def test_preshared_keys_are_not_clamped() -> None:
    made = [keys.generate_preshared_key() for _ in range(50)]
    assert any(key != keys.clamp(key) for key in made)


def test_the_public_key_is_that_of_the_clamped_scalar() -> None:
    key = secrets.token_bytes(32)
    assert keys.public_key_of(key) == keys.public_key_of(keys.clamp(key))
    zeros = keys.to_base64(keys.public_key_of(bytes(32)))
    assert zeros == "L+V9o0fNYkMVKNqsX7spBzD/9oSvxM/C7ZCZX1jLO3Q="


def test_both_texts_give_the_key_back() -> None:
    for _ in range(50):
        key = secrets.token_bytes(32)
        assert keys.from_base64(keys.to_base64(key)) == key
        assert keys.from_hex(keys.to_hex(key)) == key
        assert keys.from_hex(keys.to_hex(key).upper().encode()) == key


@pytest.mark.parametrize("text", NOT_KEYS)
def test_what_is_not_exactly_a_base64_key_is_refused(text: str) -> None:
    with pytest.raises(KeyFormatError, match=r"^Key is not the correct length or format$"):
        keys.from_base64(text)


@pytest.mark.parametrize(
    "text", ["", "0" * 63, "0" * 65, "0" * 66, "g" * 64, " " + "0" * 63, "0x" + "0" * 62, "é" * 64]
)
def test_what_is_not_exactly_a_hex_key_is_refused(text: str) -> None:
    with pytest.raises(KeyFormatError):
        keys.from_hex(text)


@needs_wg
def test_wg_reads_our_keys_and_finds_the_same_public_keys() -> None:
    for _ in range(5):
        key = keys.generate_private_key()
        answer = wg("pubkey", keys.to_base64(key).encode() + b"\n")
        assert answer.stdout.decode().strip() == keys.to_base64(keys.public_key_of(key))


@needs_wg
def test_we_read_the_keys_wg_makes() -> None:
    private = keys.private_key_from_input(wg("genkey").stdout)
    assert private == keys.clamp(private)
    assert len(keys.from_base64(wg("genpsk").stdout.decode().strip())) == 32


@needs_wg
@pytest.mark.parametrize(
    "text",
    [
        *(text.encode() for text in NOT_KEYS),
        ZEROS.encode(),
        ZEROS.encode() + b" \t\r\n\v\f\0\n",
        ZEROS.encode() + b"\nx",
        ZEROS.encode() + b"\x85",
    ],
)
def test_pubkey_accepts_and_refuses_what_wg_does_with_its_words(text: bytes) -> None:
    theirs = wg("pubkey", text)
    try:
        ours = keys.to_base64(keys.public_key_of(keys.private_key_from_input(text))) + "\n"
        message = ""
    except KeyFormatError as error:
        ours, message = "", f"wg: {error}\n"
    assert (ours, message) == (theirs.stdout.decode(), theirs.stderr.decode())
