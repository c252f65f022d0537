"""Both AEADs of the native fast path against each other, and libraries that will not do.

RFC 8439's vectors of the whole AEAD have associated data, which transport data has not. Section
2.4.2 encrypts with a nonce of WireGuard's form, from block 1 on, as the AEAD does.
"""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fastpath.ends import Ends
from tests.fastpath.packets import Packet
from wgmp.errors import ConfigError
from wgmp.fastpath import reference, virtio
from wgmp.fastpath.choice import Aead, Choice, ipsec_mb_is_missing, load, native_is_missing
from wgmp.protocol.outcome import DropReason

if native_is_missing():
    pytest.skip("the native fast path was not built: no Rust toolchain", allow_module_level=True)

from wgmp.fastpath.native import IPSEC_MB, Native

WITHOUT = ipsec_mb_is_missing()
needs_ipsec_mb = pytest.mark.skipif(bool(WITHOUT), reason=f"no ipsec-mb: {WITHOUT}")
needs_avx512 = pytest.mark.skipif("AVX-512" in WITHOUT, reason=WITHOUT)
needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")

TAG = 16
AEADS = [
    pytest.param(Aead.RING, id="ring"),
    pytest.param(Aead.IPSEC_MB, id="ipsec-mb", marks=needs_ipsec_mb),
]

SUNSCREEN = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
    b"sunscreen would be it."
)
SUNSCREEN_SEALED = bytes.fromhex(
    "6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0b"
    "f91b65c5524733ab8f593dabcd62b3571639d624e65152ab8f530c359f0861d8"
    "07ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab7793736"
    "5af90bbf74a35be6b40b8eedf2785e42874d"
)


@cache
def native(aead: Aead) -> Native:
    """Return the native fast path with one of the AEADs."""
    return Native(IPSEC_MB if aead is Aead.IPSEC_MB else None)


@pytest.mark.parametrize("aead", AEADS)
def test_a_vector_of_rfc_8439_is_met(aead: Aead) -> None:
    key = bytes(range(32))
    sealed = native(aead).aead.seal(key, 0x4A00_0000, SUNSCREEN)
    assert sealed[:-TAG] == SUNSCREEN_SEALED
    nonce = bytes(4) + (0x4A00_0000).to_bytes(8, "little")
    assert sealed == ChaCha20Poly1305(key).encrypt(nonce, SUNSCREEN, None)
    assert native(aead).aead.open(key, 0x4A00_0000, sealed) == SUNSCREEN


@pytest.mark.parametrize("aead", AEADS)
@given(
    key=st.binary(min_size=32, max_size=32),
    counter=st.integers(0, 2**64 - 1),
    packet=st.binary(max_size=2048) | st.integers(0, 65_500).map(bytes),
    spoil=st.integers(0, 2**20),
)
@settings(max_examples=200, deadline=None)
def test_each_seals_opens_and_refuses_as_cryptography_does(
    aead: Aead, key: bytes, counter: int, packet: bytes, spoil: int
) -> None:
    ours, nonce = native(aead).aead, bytes(4) + counter.to_bytes(8, "little")
    sealed = ours.seal(key, counter, packet)
    assert sealed == ChaCha20Poly1305(key).encrypt(nonce, packet, None)
    assert ours.open(key, counter, sealed) == packet
    wrong = bytearray(sealed)
    wrong[spoil // 8 % len(wrong)] ^= 1 << spoil % 8
    assert ours.open(key, counter, bytes(wrong)) is None
    assert ours.open(key, counter ^ 1, sealed) is None
    assert ours.open(key, counter, sealed[:-1]) is None


@pytest.mark.parametrize("aead", AEADS)
@given(st.lists(st.integers(0, 1380), min_size=1, max_size=40), st.integers(0, 2**63))
@settings(max_examples=50, deadline=None)
def test_what_one_seals_every_other_opens(aead: Aead, sizes: list[int], counter: int) -> None:
    packets = [Packet(bytes([n]) * size, protocol=17).build() for n, size in enumerate(sizes)]
    ours, plain = Ends(native(aead)), Ends(reference)
    for end in (ours, plain):
        end.keypair.send_counter = counter
        end.seal([virtio.PLAIN + packet for packet in packets])
    sealed = [
        [each for *_, record in end.sealed.take() for each in record] for end in (ours, plain)
    ]
    assert sealed[0] == sealed[1]
    for fastpath in (native(Aead.RING), native(aead), reference):
        end = Ends(fastpath, initiator=False)
        end.open(sealed[0])
        assert end.written() == packets


@pytest.mark.parametrize("aead", AEADS)
def test_of_what_does_not_open_nothing_stays_in_memory(aead: Aead) -> None:
    secret = b"what nobody may read " * 10
    sender = Ends(reference)
    datagrams = [bytearray(sender.keypair.seal(Packet(secret).build(), 1420)) for _ in range(3)]
    for datagram in datagrams:
        datagram[-1] ^= 1
    end = Ends(native(aead), initiator=False)
    end.open([bytes(datagram) for datagram in datagrams])
    assert end.counters.inward.dropped(DropReason.BAD_TAG) == 3
    for ring in (end.datagrams, end.opened):
        assert secret[:16] not in bytes(ring.writer.segment.bytes)


# --- a library that will not do ---

# What the extension asks of one; the parts in capitals are each test's.
LIBRARY = """
#include <stdint.h>
#include <string.h>
static uint64_t job[64];
unsigned imb_get_version(void) { return VERSION; }
void *alloc_mb_mgr(uint64_t flags) { return job; }
void init_mb_mgr_avx512(void *manager) {}
int imb_get_errno(void *manager) { return ERROR; }
const char *imb_get_strerror(int number) { return "it is broken"; }
void *get_next_job_avx512(void *manager) { return job; }
void *submit_job_avx512(void *manager) { int done = 3; memcpy(job + 16, &done, 4); return job; }
void FREE(void *manager) {}
"""


@needs_avx512
@needs_cc
@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"VERSION": "0x010200"}, "it is version 1.2.0, not 1.3 or a later 1"),
        ({"VERSION": "0x020001"}, "it is version 2.0.1, not 1.3 or a later 1"),
        ({"ERROR": "2053"}, "it is broken"),
        ({"FREE": "free_manager"}, "it has no function free_mb_mgr"),
        ({}, "it does not seal 0 bytes as ring does"),
    ],
)
def test_a_library_of_that_name_must_do_what_it_should(
    tmp_path: Path, parts: dict[str, str], reason: str
) -> None:
    library = tmp_path / "libIPSec_MB.so.1"
    defines = {"VERSION": "0x010300", "ERROR": "0", "FREE": "free_mb_mgr"} | parts
    options = [f"-D{name}={value}" for name, value in defines.items()]
    command = ["cc", "-shared", "-fPIC", "-w", *options, "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=LIBRARY, text=True, check=True)
    with pytest.raises(ImportError) as caught:
        Native(str(library))
    assert str(caught.value) == reason


@needs_avx512
def test_a_library_that_is_not_there_is_named_with_the_package_that_has_it() -> None:
    with pytest.raises(ImportError, match=r"^libIPSec_MB.so.0: cannot open .*\(.*libipsec-mb1"):
        Native("libIPSec_MB.so.0")


def test_ipsec_mb_is_not_for_the_reference_fast_path() -> None:
    with pytest.raises(ConfigError, match=r"^the AEAD ipsec-mb is for the native fast path: use"):
        load(Choice.REFERENCE, Aead.IPSEC_MB)


@needs_ipsec_mb
def test_ipsec_mb_is_taken_when_it_is_asked_for_and_only_then() -> None:
    assert load(Choice.AUTO).AEAD == "ring"
    asked = load(Choice.AUTO, Aead.IPSEC_MB)
    assert (asked.NAME, asked.AEAD[:11]) == ("native", "ipsec-mb 1.")


def test_what_cannot_be_used_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wgmp.fastpath.native.IPSEC_MB", "libIPSec_MB.so.0")
    assert ipsec_mb_is_missing()
    with pytest.raises(ConfigError, match=r"^the AEAD ipsec-mb cannot be used here: .*: use ring$"):
        load(Choice.AUTO, Aead.IPSEC_MB)
