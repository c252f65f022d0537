"""The primitives against published vectors and a second implementation."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from wgmp.protocol import crypto

keys = st.binary(min_size=32, max_size=32)

SUNSCREEN = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the "
    b"future, sunscreen would be it."
)


def test_hash_matches_rfc_7693_appendix_b() -> None:
    digest = "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"
    assert crypto.hash(b"abc").hex() == digest
    assert crypto.hash(b"a", b"", b"bc").hex() == digest


@given(keys, st.binary(max_size=200))
def test_hmac_matches_cryptographys(key: bytes, message: bytes) -> None:
    other = HMAC(key, hashes.BLAKE2s(32))
    other.update(message)
    assert crypto.hmac(key, message) == other.finalize()


@given(keys, st.binary(max_size=64))
def test_kdfs_are_the_first_outputs_of_rfc_5869s_hkdf(key: bytes, ikm: bytes) -> None:
    expected = HKDF(hashes.BLAKE2s(32), 96, salt=key, info=b"").derive(ikm)
    assert crypto.kdf1(key, ikm) == expected[:32]
    assert b"".join(crypto.kdf2(key, ikm)) == expected[:64]
    assert b"".join(crypto.kdf3(key, ikm)) == expected


def test_mac_is_blake2s_with_a_key_and_16_bytes() -> None:
    # Distinct from a truncated digest: the output length is part of BLAKE2's parameters.
    key = bytes(range(32))
    whole = "48a8997da407876b3d79c0d92325ad3b89cbb754d86ab71aee047ad345fd2c49"
    assert len(crypto.mac(key, b"")) == 16
    assert crypto.mac(key, b"") != bytes.fromhex(whole)[:16]
    assert crypto.mac(key, b"") != crypto.mac(bytes(16), b"")


@pytest.mark.parametrize(
    ("scalar", "point", "shared"),
    [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ],
)
def test_dh_matches_rfc_7748(scalar: str, point: str, shared: str) -> None:
    result = crypto.dh(crypto.private_key(bytes.fromhex(scalar)), bytes.fromhex(point))
    assert result is not None
    assert result.hex() == shared


@pytest.mark.parametrize(
    "point",
    [
        "00" * 32,
        "01" + "00" * 31,
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    ],
)
def test_dh_with_a_point_of_low_order_gives_nothing(point: str) -> None:
    assert crypto.dh(crypto.private_key(b"\x42" * 32), bytes.fromhex(point)) is None


def test_hchacha20_matches_the_drafts_section_2_2_1() -> None:
    key = bytes(range(32))
    nonce = bytes.fromhex("000000090000004a0000000031415927")
    subkey = "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"
    assert crypto.hchacha20(key, nonce).hex() == subkey


def test_xchacha20_poly1305_matches_the_drafts_appendix_a_3_1() -> None:
    key = bytes(range(0x80, 0xA0))
    nonce = bytes(range(0x40, 0x58))
    associated = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    sealed = bytes.fromhex(
        "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb"
        "731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452"
        "2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
        "21f9664c97637da9768812f615c68b13b52e"
        "c0875924c1c7987947deafd8780acf49"
    )
    assert crypto.xseal(key, nonce, SUNSCREEN, associated) == sealed
    assert crypto.xopen(key, nonce, sealed, associated) == SUNSCREEN


@given(keys, st.binary(max_size=100), st.binary(max_size=50), st.integers(min_value=0))
def test_a_changed_bit_is_found(key: bytes, plaintext: bytes, associated: bytes, at: int) -> None:
    sealed = bytearray(crypto.seal(key, plaintext, associated))
    assert crypto.open(key, bytes(sealed), associated) == plaintext
    sealed[at % len(sealed)] ^= 1
    assert crypto.open(key, bytes(sealed), associated) is None


def test_a_changed_cookie_is_found() -> None:
    sealed = bytearray(crypto.xseal(bytes(32), bytes(24), b"cookie", b"mac1"))
    assert crypto.xopen(bytes(32), bytes(24), bytes(sealed), b"mac2") is None
    sealed[0] ^= 1
    assert crypto.xopen(bytes(32), bytes(24), bytes(sealed), b"mac1") is None
