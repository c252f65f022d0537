"""Sets of any lines: a refused one has done what the lines before the mistake say, and no more."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from wgmp.device import Device
from wgmp.peertable import RowFigures
from wgmp.uapi import answer_get, answer_set

KEYS = [f"{number:02x}" * 32 for number in (1, 2, 3)]


class Anything:
    """A world in which every port and mark can be had."""

    def open_port(self, port: int) -> int:
        """Grant the port."""
        return port or 51820

    def set_fwmark(self, mark: int) -> None:
        """Grant the mark."""


DEVICE_LINES = st.sampled_from(
    [
        f"private_key={'40' * 32}",
        f"private_key={'00' * 32}",
        "listen_port=7",
        "fwmark=51820",
        "replace_peers=true",
    ]
)
PEER_LINES = st.sampled_from(
    [
        "remove=true",
        "update_only=true",
        f"preshared_key={'05' * 32}",
        "endpoint=192.0.2.1:1",
        "endpoint=[2001:db8::1]:65535",
        "persistent_keepalive_interval=25",
        "persistent_keepalive_interval=0",
        "replace_allowed_ips=true",
        "allowed_ip=10.0.0.0/8",
        "allowed_ip=10.1.0.0/16",
        "allowed_ip=-10.0.0.0/8",
        "allowed_ip=fd00::/64",
        "protocol_version=1",
    ]
)
PEERS = st.builds(
    lambda key, lines: [f"public_key={key}", *lines],
    st.sampled_from(KEYS),
    st.lists(PEER_LINES, max_size=5),
)
SETS = st.builds(
    lambda device, peers: [*device, *(line for peer in peers for line in peer)],
    st.lists(DEVICE_LINES, max_size=3),
    st.lists(PEERS, max_size=4),
)
MISTAKES = st.sampled_from(
    [
        "garbage",
        "=",
        "no_such_key=1",
        "public_key=123",
        f"private_key={'g' * 64}",
        "listen_port=65536",
        "replace_peers=false",
        "remove=yes",
        "update_only=1",
        "endpoint=host:1",
        "persistent_keepalive_interval=-1",
        "allowed_ip=10.0.0.0/33",
        "allowed_ip=10.0.0.0",
        "protocol_version=2",
        " ",
        "\0",
    ]
)


def answer(device: Device, lines: list[str]) -> bytes:
    """Apply lines; return the answer."""
    return answer_set(device, "\n".join(lines).encode())


def told(device: Device) -> bytes:
    """Return what the device says of itself."""
    return answer_get(device, lambda peer: RowFigures(None, 0, 0, 0))


@settings(deadline=None)
@given(SETS, SETS, SETS, MISTAKES)
def test_a_refused_set_has_done_what_stands_before_the_mistake_and_no_more(
    present: list[str], before: list[str], after: list[str], mistake: str
) -> None:
    refused, obeyed = Device(Anything()), Device(Anything())
    for device in (refused, obeyed):
        assert answer(device, present) == b"errno=0\n\n"
    assert answer(refused, [*before, mistake, *after]) != b"errno=0\n\n"
    assert answer(obeyed, before) == b"errno=0\n\n"
    assert told(refused) == told(obeyed)
    assert refused.take_orders() == obeyed.take_orders()


@settings(deadline=None)
@given(SETS, st.booleans())
def test_what_a_device_says_of_itself_makes_another_one_like_it(
    lines: list[str], twice: bool
) -> None:
    device, copy = Device(Anything()), Device(Anything())
    answer(device, lines)
    said = told(device).decode()
    of_figures = ("last_handshake", "tx_bytes", "rx_bytes", "errno")
    again = [line for line in said.split("\n") if line and not line.startswith(of_figures)]
    for _ in range(1 + twice):
        assert answer(copy, again) == b"errno=0\n\n"
    assert told(copy).decode() == said
