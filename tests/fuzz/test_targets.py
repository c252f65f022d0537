"""Whatever comes from outside, no exception leaves a role's loop and no parser raises."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .house import GATEWAY4, KNOWN4, SILENT4, House, ipv4
from .targets import SEEDS, TARGETS


def changed(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """Return seeds with up to six bytes changed."""
    changes = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 255)), max_size=6)
    return st.builds(_with_changes, st.sampled_from(seeds), changes)


def _with_changes(seed: bytes, changes: list[tuple[int, int]]) -> bytes:
    content = bytearray(seed)
    for at, change in changes:
        content[at % len(content)] ^= change
    return bytes(content)


@pytest.mark.parametrize("name", TARGETS)
def test_the_target_survives_anything(name: str) -> None:
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(st.binary(max_size=400), changed(SEEDS[name])))
    def feed(data: bytes) -> None:
        TARGETS[name](data)

    feed()


@pytest.mark.parametrize("name", TARGETS)
def test_the_target_takes_its_seeds(name: str) -> None:
    for seed in SEEDS[name]:
        TARGETS[name](seed)


def test_the_house_is_a_working_gateway() -> None:
    """So that what the targets feed gets as far as they mean it to."""
    house = House()
    session = house.connect()
    out, back = ipv4(KNOWN4, b"out"), ipv4(GATEWAY4, b"back", source=KNOWN4)
    house.take(out)
    (datagram,) = house.sent()
    opened = session.unseal(datagram)
    assert opened is not None
    assert opened[: len(out)] == out
    house.receive(session.seal(back))
    assert house.written() == [back]
    before = house.drops()
    house.take(ipv4(SILENT4, b"out"))
    assert house.drops()["no_endpoint"] == before["no_endpoint"] + 1
    (error,) = house.written()
    assert error[9] == 1, "an ICMP error"
    house.close()
