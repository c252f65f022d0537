"""The device: what is configured, and the orders that a change becomes."""

from __future__ import annotations

import errno
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wgmp.device import Device, DeviceFullError
from wgmp.keys import ZERO_KEY, clamp, public_key_of
from wgmp.orders import (
    AddAllowedIP,
    EndpointOrder,
    ForgetSources,
    Order,
    RemoveAllowedIP,
    RemovePeer,
    SetPeer,
    SetPrivateKey,
    row_of,
)
from wgmp.peerentry import PeerEntry
from wgmp.protocol.outcome import Endpoint

NET_A = (bytes([10, 0, 0, 0]), 8)
NET_B = (bytes([10, 1, 0, 0]), 16)
NET_6 = (bytes.fromhex("fd00") + bytes(14), 8)
ENDPOINT = Endpoint(bytes([192, 0, 2, 1]), 51820)


class Sockets:
    """The outside: ports can be taken, and what was asked for is remembered."""

    def __init__(self) -> None:
        self.taken: set[int] = set()
        self.opened: list[int] = []
        self.marks: list[int] = []

    def open_port(self, port: int) -> int:
        if port in self.taken:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        self.opened.append(port)
        return port or 40000 + len(self.opened)

    def set_fwmark(self, mark: int) -> None:
        if mark == 0xDEAD:
            raise OSError(errno.EPERM, "Operation not permitted")
        self.marks.append(mark)


class Role:
    """What a role would know: the orders, applied in the plainest way."""

    def __init__(self) -> None:
        self.private_key = b""
        self.peers: dict[int, SetPeer] = {}
        self.endpoints: dict[int, EndpointOrder] = {}
        self.owners: dict[tuple[bytes, int], int] = {}

    def take(self, orders: list[Order]) -> None:
        for order in orders:
            match order:
                case SetPrivateKey():
                    self.private_key = order.private_key
                case SetPeer():
                    rows = {row_of(peer) for peer in self.peers if peer != order.peer}
                    assert row_of(order.peer) not in rows, "a row has two tenants"
                    self.peers[order.peer] = order
                    if order.endpoint is not None:
                        self.endpoints[order.peer] = order.endpoint
                case RemovePeer():
                    self.peers.pop(order.peer, None)
                    self.endpoints.pop(order.peer, None)
                    for prefix in [p for p, owner in self.owners.items() if owner == order.peer]:
                        del self.owners[prefix]
                case AddAllowedIP():
                    assert order.peer in self.peers, "a prefix for an unknown peer"
                    self.owners[order.network, order.length] = order.peer
                case RemoveAllowedIP():
                    if self.owners.get((order.network, order.length)) == order.peer:
                        del self.owners[order.network, order.length]
                case _:
                    assert isinstance(order, ForgetSources)

    def state(self) -> object:
        peers = {
            peer: (order.public_key, order.preshared_key, order.keepalive)
            for peer, order in self.peers.items()
        }
        return self.private_key, peers, self.endpoints, self.owners


@pytest.fixture
def sockets() -> Sockets:
    return Sockets()


@pytest.fixture
def device(sockets: Sockets) -> Device:
    return Device(sockets)


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def add(device: Device, number: int) -> PeerEntry:
    entry = device.add_peer(key(number))
    assert entry is not None
    return entry


def test_many_changes_of_one_peer_become_one_order(device: Device) -> None:
    entry = add(device, 1)
    device.set_preshared_key(entry, key(9))
    device.set_endpoint(entry, ENDPOINT)
    device.set_keepalive(entry, 25)
    device.add_allowed_ip(entry, NET_A)
    endpoint = EndpointOrder(ENDPOINT.address, 51820, serial=1)
    assert device.take_orders() == [
        SetPeer(entry.peer, key(1), key(9), 25, endpoint),
        AddAllowedIP(*NET_A, entry.peer),
    ]
    assert device.take_orders() == []


def test_saying_the_present_values_again_orders_nothing(device: Device) -> None:
    device.set_private_key(key(77))
    device.set_listen_port(5000)
    device.set_fwmark(7)
    entry = add(device, 1)
    device.set_preshared_key(entry, key(9))
    device.set_keepalive(entry, 25)
    device.add_allowed_ip(entry, NET_A)
    device.add_allowed_ip(entry, NET_B)
    device.take_orders()

    device.set_private_key(key(77))
    device.set_listen_port(5000)
    device.set_fwmark(7)
    assert add(device, 1) is entry
    device.set_preshared_key(entry, key(9))
    device.set_keepalive(entry, 25)
    device.replace_allowed_ips(entry)
    device.add_allowed_ip(entry, NET_B)
    device.add_allowed_ip(entry, NET_A)
    assert device.take_orders() == []
    assert list(entry.allowed_ips) == [NET_B, NET_A]


def test_an_endpoint_is_sent_on_even_if_it_is_the_present_one(device: Device) -> None:
    entry = add(device, 1)
    device.set_endpoint(entry, ENDPOINT)
    device.take_orders()
    device.set_endpoint(entry, ENDPOINT)
    order = EndpointOrder(ENDPOINT.address, 51820, serial=2)
    assert device.take_orders() == [SetPeer(entry.peer, key(1), ZERO_KEY, 0, order)]


def test_another_change_does_not_set_a_roamed_peer_back_to_its_endpoint(device: Device) -> None:
    entry = add(device, 1)
    device.set_endpoint(entry, ENDPOINT)
    device.take_orders()
    device.set_keepalive(entry, 25)
    assert device.take_orders() == [SetPeer(entry.peer, key(1), ZERO_KEY, 25, None)]


def test_a_prefix_moves_to_whoever_names_it_last(device: Device) -> None:
    one, two = add(device, 1), add(device, 2)
    device.add_allowed_ip(one, NET_A)
    device.add_allowed_ip(one, NET_6)
    device.take_orders()
    device.add_allowed_ip(two, NET_A)
    assert (list(one.allowed_ips), list(two.allowed_ips)) == ([NET_6], [NET_A])
    assert device.take_orders() == [AddAllowedIP(*NET_A, two.peer)]
    device.remove_allowed_ip(one, NET_A)
    assert device.take_orders() == []
    device.remove_allowed_ip(two, NET_A)
    assert device.take_orders() == [RemoveAllowedIP(*NET_A, two.peer)]


def test_a_removed_peer_takes_its_prefixes_along(device: Device) -> None:
    one, two = add(device, 1), add(device, 2)
    device.add_allowed_ip(one, NET_A)
    device.add_allowed_ip(one, NET_B)
    device.take_orders()
    device.remove_peer(one)
    device.add_allowed_ip(two, NET_B)
    assert device.take_orders() == [RemovePeer(one.peer), AddAllowedIP(*NET_B, two.peer)]
    assert list(device.peers) == [key(2)]


def test_a_prefix_that_moves_to_a_peer_that_is_then_removed_is_nobodys(device: Device) -> None:
    one, two, role = add(device, 1), add(device, 2), Role()
    device.add_allowed_ip(one, NET_A)
    role.take(device.take_orders())
    device.add_allowed_ip(two, NET_A)
    device.remove_peer(two)
    orders = device.take_orders()
    assert orders == [RemovePeer(two.peer), RemoveAllowedIP(*NET_A, one.peer)]
    role.take(orders)
    assert role.owners == {}
    device.add_allowed_ip(one, NET_A)
    assert device.take_orders() == [AddAllowedIP(*NET_A, one.peer)]


def test_a_prefix_that_is_named_again_keeps_its_place(device: Device) -> None:
    entry = add(device, 1)
    for prefix in (NET_A, NET_B, NET_A):
        device.add_allowed_ip(entry, prefix)
    assert entry.allowed_ips == [NET_A, NET_B]


def test_our_own_key_is_no_peer(device: Device) -> None:
    ourselves = public_key_of(key(77))
    entry = device.add_peer(ourselves)
    assert entry is not None
    device.add_allowed_ip(entry, NET_A)
    device.take_orders()

    device.set_private_key(key(77))
    assert device.take_orders() == [RemovePeer(entry.peer), SetPrivateKey(clamp(key(77)))]
    assert device.peers == {}
    assert device.add_peer(ourselves) is None
    assert device.take_orders() == []


def test_private_keys_are_clamped_and_zeros_clear(device: Device) -> None:
    device.set_private_key(b"\xff" * 32)
    assert device.private_key == clamp(b"\xff" * 32)
    device.set_private_key(bytes(32))
    assert (device.private_key, device.public_key) == (b"", b"")
    assert device.take_orders() == [SetPrivateKey(b"")]


def test_a_taken_port_leaves_everything_as_it_was(device: Device, sockets: Sockets) -> None:
    device.set_listen_port(5000)
    device.take_orders()
    sockets.taken.add(6000)
    with pytest.raises(OSError, match="in use"):
        device.set_listen_port(6000)
    assert device.listen_port == 5000
    assert device.take_orders() == []


def test_port_zero_picks_one_each_time(device: Device, sockets: Sockets) -> None:
    device.set_listen_port(0)
    first = device.listen_port
    device.set_listen_port(0)
    assert first
    assert device.listen_port not in (0, first)
    assert sockets.opened == [0, 0]


def test_port_and_mark_make_the_roles_forget_their_sources_once(
    device: Device, sockets: Sockets
) -> None:
    device.set_listen_port(5000)
    device.set_fwmark(7)
    device.set_listen_port(5000)
    device.set_fwmark(7)
    assert device.take_orders() == [ForgetSources()]
    assert (sockets.opened, sockets.marks) == ([5000], [7])
    with pytest.raises(PermissionError):
        device.set_fwmark(0xDEAD)
    assert device.fwmark == 7
    assert device.take_orders() == []
    for change in (lambda: device.set_listen_port(5001), lambda: device.set_fwmark(0)):
        change()
        assert device.take_orders() == [ForgetSources()]


def test_a_full_table_says_so_and_frees_rows_oldest_first(sockets: Sockets) -> None:
    device = Device(sockets, capacity=3)
    one, two, three = (add(device, number) for number in (1, 2, 3))
    with pytest.raises(DeviceFullError, match="no room for more than 3 peers") as caught:
        device.add_peer(key(4))
    assert caught.value.errno == errno.ENOSPC
    assert add(device, 3) is three

    device.remove_peer(two)
    device.remove_peer(one)
    four, five = add(device, 4), add(device, 5)
    assert [row_of(entry.peer) for entry in (four, five)] == [row_of(two.peer), row_of(one.peer)]
    assert len({entry.peer for entry in (one, two, three, four, five)}) == 5


def test_a_peer_removed_and_made_again_is_another_peer(device: Device) -> None:
    former = add(device, 1)
    device.set_preshared_key(former, key(9))
    device.take_orders()
    device.replace_peers()
    entry = add(device, 1)
    assert entry.peer != former.peer
    orders = device.take_orders()
    assert orders == [RemovePeer(former.peer), SetPeer(entry.peer, key(1), ZERO_KEY, 0, None)]


def test_each_of_a_peers_values_is_told_when_nothing_else_changes(device: Device) -> None:
    entry = add(device, 1)
    device.take_orders()
    device.set_preshared_key(entry, key(9))
    assert device.take_orders() == [SetPeer(entry.peer, key(1), key(9), 0, None)]
    device.set_keepalive(entry, 25)
    assert device.take_orders() == [SetPeer(entry.peer, key(1), key(9), 25, None)]
    device.set_preshared_key(entry, ZERO_KEY)
    assert device.take_orders() == [SetPeer(entry.peer, key(1), ZERO_KEY, 25, None)]


def test_a_snapshot_is_the_whole_state(device: Device) -> None:
    device.set_private_key(key(77))
    one, two = add(device, 1), add(device, 2)
    device.set_endpoint(one, ENDPOINT)
    device.set_preshared_key(two, key(9))
    device.add_allowed_ip(one, NET_A)
    device.add_allowed_ip(two, NET_6)
    follower, successor = Role(), Role()
    follower.take(device.take_orders())
    successor.take(list(device.snapshot()))
    assert successor.state() == follower.state()
    assert len(successor.owners) == 2


def test_no_repr_shows_a_key(device: Device) -> None:
    device.set_private_key(b"\x5a" * 32)
    entry = add(device, 0x6B6B6B6B)
    device.set_preshared_key(entry, b"\x7c" * 32)
    device.set_endpoint(entry, ENDPOINT)
    text = f"{device!r} {entry!r} {device} {entry}"
    assert text.count("192.0.2.1:51820") == 2
    for secret in (device.private_key, device.public_key, entry.public_key, b"\x7c" * 32):
        assert repr(secret)[2:-1] not in text
        assert secret.hex() not in text


# One step: (method, peer number, argument).
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "add",
                "remove",
                "psk",
                "keepalive",
                "endpoint",
                "ip",
                "no ip",
                "no ips",
                "clear",
                "flush",
                "key",
            ]
        ),
        st.integers(0, 3),
        st.integers(0, 3),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_a_role_that_follows_the_orders_knows_what_a_successor_is_told(
    steps: list[tuple[str, int, int]],
) -> None:
    device, role = Device(Sockets(), capacity=3), Role()
    publics = [key(1), key(2), key(3), public_key_of(key(77))]
    for what, number, argument in steps:
        entry = device.peers.get(publics[number])
        prefix = (bytes([10, argument, 0, 0]), 16)
        if what == "add" and (entry is not None or len(device.peers) < 3):
            device.add_peer(publics[number])
        elif what == "clear":
            device.replace_peers()
        elif what == "key":
            device.set_private_key(key(77 if argument else 0))
        elif what == "flush":
            role.take(device.take_orders())
        elif entry is not None:
            change_peer(device, entry, what, prefix, argument)
    role.take(device.take_orders())
    successor = Role()
    successor.take(list(device.snapshot()))
    assert role.state() == successor.state()


def change_peer(
    device: Device, entry: PeerEntry, what: str, prefix: tuple[bytes, int], argument: int
) -> None:
    if what == "remove":
        device.remove_peer(entry)
    elif what == "psk":
        device.set_preshared_key(entry, key(argument))
    elif what == "keepalive":
        device.set_keepalive(entry, argument)
    elif what == "endpoint":
        device.set_endpoint(entry, ENDPOINT._replace(port=1 + argument))
    elif what == "ip":
        device.add_allowed_ip(entry, prefix)
    elif what == "no ip":
        device.remove_allowed_ip(entry, prefix)
    elif what == "no ips":
        device.replace_allowed_ips(entry)


def test_ten_thousand_peers_are_set_told_and_removed_within_a_second(sockets: Sockets) -> None:
    device = Device(sockets)
    start = time.process_time()
    for number in range(10_000):
        entry = add(device, number + 1)
        device.set_endpoint(entry, ENDPOINT)
        for block in range(3):
            device.add_allowed_ip(entry, (bytes([10, block, *number.to_bytes(2, "big")]), 32))
    assert len(device.take_orders()) == 40_000
    assert sum(1 for _ in device.snapshot()) == 40_001
    device.replace_peers()
    assert len(device.take_orders()) == 10_000
    assert time.process_time() - start < 1.0
