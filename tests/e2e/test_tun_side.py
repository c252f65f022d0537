"""What the TUN side is owed: errors at once, ECN, padding within the MTU, and the link's state."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from hostile.wire import Wire, inside
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment

from wgmp import datagrams, udp
from wgmp.netns import Namespaces, wait_for

from .capture import Capture
from .conftest import MakeTunnel
from .tunnel import MTU, WGMP, Gateway, Tunnel

pytestmark = pytest.mark.root

# Addresses in the tunnel's subnet that no peer has.
NOBODY4, NOBODY6 = "10.77.0.99", "fd77::99"
AT_ONCE_S = 1.0
TRANSPORT_OVERHEAD = 32
UDP_HEADER = 8
INITIATION, TRANSPORT = 1, 4

CONNECT = """
import errno, socket, sys, time
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family) as client:
    client.settimeout(5)
    started = time.monotonic()
    try:
        client.connect((sys.argv[1], 80))
    except OSError as error:
        name = errno.errorcode.get(error.errno, repr(error))
        print(name, time.monotonic() - started)
"""

ROUTER = """
for filter in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $filter; done
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
"""

Look = Callable[[Gateway, str], Capture]


@pytest.fixture
def look() -> Iterator[Look]:
    """Give `look(gateway, interface)`, a capture there; "veth" means the outer interface."""
    captures: list[Capture] = []

    def start(gateway: Gateway, interface: str) -> Capture:
        if interface == "veth":
            interface = gateway.outer_interface()
        captures.append(Capture(gateway.namespace, interface))
        return captures[-1]

    yield start
    for capture in captures:
        capture.close()


def outer_datagrams(capture: Capture, seconds: float = 0.2) -> list[Any]:
    """Return the UDP datagrams that the capture saw."""
    return [packet for packet in capture.packets(seconds) if UDP in packet]


def message_type(packet: Any) -> int:
    return bytes(packet[UDP].payload)[0]


def pinged(gateway: Gateway, address: str, *options: str) -> tuple[str, float]:
    """Ping once; return what was printed and how many seconds it took."""
    started = time.monotonic()
    done = gateway.namespace.run("ping", "-n", "-c1", "-W5", *options, address, check=False)
    return done.stdout, time.monotonic() - started


def connected(tunnel: MakeTunnel, right: str = "wgmpd", **settings: Any) -> Tunnel:
    """Return a tunnel that has carried a packet."""
    ends = tunnel("wgmpd", right, **settings)
    assert ends.left.ping(ends.right.inner4)
    return ends


# Nowhere to go


@pytest.mark.parametrize("topology", ["pipeline", "compact"])
def test_an_address_without_a_peer_is_unreachable_at_once(
    tunnel: MakeTunnel, topology: str
) -> None:
    ends = tunnel("wgmpd", "wireguard-go", topology=topology)
    gateway = ends.left
    printed, seconds = pinged(gateway, NOBODY4)
    assert f"From {NOBODY4} icmp_seq=1 Destination Host Unreachable" in printed
    assert seconds < AT_ONCE_S
    printed, seconds = pinged(gateway, NOBODY6)
    assert f"From {NOBODY6} icmp_seq=1 Destination unreachable: Address unreachable" in printed
    assert seconds < AT_ONCE_S
    for address in (NOBODY4, NOBODY6):
        assert_connect_fails_at_once(gateway, address)
    assert gateway.drops()["no_route"] >= 4
    assert gateway.total("icmp_errors") >= 4


@pytest.mark.parametrize("topology", ["pipeline", "compact"])
def test_a_peer_without_an_endpoint_is_unreachable_at_once(
    tunnel: MakeTunnel, topology: str
) -> None:
    ends = tunnel("wireguard-go", "wgmpd", topology=topology)
    gateway = ends.right
    printed, seconds = pinged(gateway, ends.left.inner4)
    assert "Destination Host Unreachable" in printed
    assert seconds < AT_ONCE_S
    printed, _ = pinged(gateway, ends.left.inner6)
    assert "Destination unreachable: Address unreachable" in printed
    assert_connect_fails_at_once(gateway, ends.left.inner4)
    assert gateway.drops()["no_endpoint"] >= 3
    assert ends.left.ping(gateway.inner4), "what comes in makes the endpoint known"
    assert gateway.ping(ends.left.inner4)


def assert_connect_fails_at_once(gateway: Gateway, address: str) -> None:
    printed = gateway.namespace.run(sys.executable, "-c", CONNECT, address).stdout
    name, seconds = printed.split()
    assert name == "EHOSTUNREACH"
    assert float(seconds) < AT_ONCE_S


def test_unreachable_errors_are_limited(tunnel: MakeTunnel) -> None:
    gateway = tunnel("wgmpd", "wireguard-go").left
    gateway.namespace.run(
        "ping", "-q", "-n", "-f", "-c3000", "-w1", NOBODY4, check=False, timeout_s=10
    )
    errors = gateway.total("icmp_errors")
    assert 0 < errors <= 50 + 1000 * 3


def test_a_packet_longer_than_the_mtu_is_answered_with_the_mtu(tunnel: MakeTunnel) -> None:
    ends = connected(tunnel)
    gateway, peer = ends.left, ends.right
    # A route's MTU above the link's lets the kernel hand over packets that are too long.
    for address in (peer.inner4, peer.inner6):
        gateway.namespace.run(
            *("ip", "route", "add", address, "dev", gateway.interface, "mtu", "3000")
        )
    printed, _ = pinged(gateway, peer.inner4, "-Mdo", "-s2000")
    assert f"From {peer.inner4} icmp_seq=1 Frag needed and DF set (mtu = {MTU})" in printed
    printed, _ = pinged(gateway, peer.inner6, "-Mdo", "-s2000")
    assert f"From {peer.inner6} icmp_seq=1 Packet too big: mtu={MTU}" in printed
    assert gateway.drops()["packet_too_big"] == 2
    assert gateway.ping(peer.inner4, "-s2000"), "the kernel has learned, and fragments"
    # The sender asks again with each try until its kernel has learned the MTU.
    assert gateway.ping(peer.inner6, "-s2000")


def test_a_larger_mtu_that_no_order_has_told_yet_is_no_reason_to_complain(
    tunnel: MakeTunnel,
) -> None:
    """The kernel would believe the complaint for ten minutes."""
    ends = connected(tunnel)
    gateway, peer = ends.left, ends.right
    peer.namespace.run("ip", "link", "set", peer.interface, "mtu", "3000")
    gateway.process.send_signal(signal.SIGSTOP)
    try:
        gateway.namespace.run("ip", "link", "set", gateway.interface, "mtu", "3000")
        assert gateway.ping(peer.inner4, "-Mdo", "-s2900", wait_s=3)
    finally:
        gateway.process.send_signal(signal.SIGCONT)
    assert "packet_too_big" not in gateway.drops()


# ECN


@pytest.mark.parametrize("family", [4, 6])
def test_ecn_goes_through_the_tunnel_as_rfc_6040_says(
    tunnel: MakeTunnel, look: Look, family: int
) -> None:
    ends = connected(tunnel, family=family)
    outside = look(ends.right, "veth")
    inside = look(ends.right, ends.right.interface)
    mark_ce, unmark = marker(ends.left, ends.right.port, family)
    for inner, dscp in ((2, 0), (1, 0), (0, 0), (3, 0), (2, 0xB8)):
        assert ping_marked(ends, dscp | inner)
        outer = {traffic_class(packet) for packet in sent_to(outside, ends.right)}
        assert outer == {inner}, "the field is copied, the DSCP is not"
        assert dscp | inner in {traffic_class(packet) for packet in inside.packets()}
    mark_ce()
    for inner, expected in ((2, 3), (1, 3), (3, 3)):
        assert ping_marked(ends, inner)
        assert {traffic_class(packet) for packet in sent_to(outside, ends.right)} == {3}
        requests = [p for p in inside.packets() if p.dst in (ends.right.inner4, ends.right.inner6)]
        assert {traffic_class(packet) for packet in requests} == {expected}
    assert not ping_marked(ends, 0, wait_s=1), "congestion on what cannot say so is a loss"
    assert ends.right.drops()["congestion_not_ect"] >= 1
    unmark()
    assert ping_marked(ends, 0)


def ping_marked(ends: Tunnel, inner: int, wait_s: int = 5) -> bool:
    addresses = (ends.right.inner4, ends.right.inner6)
    return all(ends.left.ping(each, f"-Q{inner:#x}", wait_s=wait_s) for each in addresses)


def traffic_class(packet: Any) -> int:
    return int(packet.tos if isinstance(packet, IP) else packet.tc)


def sent_to(capture: Capture, gateway: Gateway) -> list[Any]:
    """Return the transport data that a capture saw on its way to a gateway."""
    return [
        packet
        for packet in outer_datagrams(capture)
        if packet[UDP].dport == gateway.port and message_type(packet) == TRANSPORT
    ]


def marker(gateway: Gateway, port: int, family: int) -> tuple[Callable[[], None], ...]:
    """Return what marks the datagrams of a gateway as a congested router would, and its end."""
    ip = "ip" if family == 4 else "ip6"

    def nft(*words: str) -> Callable[[], None]:
        def apply() -> None:
            for line in words:
                gateway.namespace.run("nft", line)

        return apply

    return (
        nft(
            "add table inet congested",
            "add chain inet congested out { type filter hook output priority mangle; }",
            f"add rule inet congested out udp dport {port} {ip} ecn set ce",
        ),
        nft("delete table inet congested"),
    )


def test_handshakes_are_marked_and_data_is_not(tunnel: MakeTunnel, look: Look) -> None:
    ends = tunnel("wgmpd", "wgmpd")
    outside = look(ends.left, "veth")
    assert ends.left.ping(ends.right.inner4)
    classes = {message_type(each): traffic_class(each) for each in outer_datagrams(outside)}
    assert classes == {1: 0x88, 2: 0x88, 4: 0}


# Sizes


@pytest.mark.parametrize("family", [4, 6])
def test_datagrams_longer_than_the_path_are_fragmented(
    tunnel: MakeTunnel, look: Look, family: int
) -> None:
    ends = tunnel("wgmpd", "wgmpd", family=family)
    for end in (ends.left, ends.right):
        interface = end.outer_interface()
        end.namespace.run("ip", "link", "set", interface, "mtu", "1280")
    outside = look(ends.left, "veth")
    assert ends.left.ping(ends.right.inner4)
    assert ends.left.ping_all(ends.right.inner4, 20, MTU - 28)
    assert ends.left.ping_all(ends.right.inner6, 20, MTU - 48)
    fragments = [packet for packet in outside.packets() if is_fragment(packet)]
    assert len(fragments) >= 160, "each of 80 datagrams is two"
    assert max(map(len, fragments)) <= 1280


def is_fragment(packet: Any) -> bool:
    if isinstance(packet, IPv6):
        return IPv6ExtHdrFragment in packet
    return bool(packet.flags.MF or packet.frag)


def test_padding_follows_the_mtu_live_and_never_passes_it(tunnel: MakeTunnel, look: Look) -> None:
    ends = connected(tunnel)
    outside = look(ends.right, "veth")
    for mtu, size, padded in (
        (1420, 1405, 1408),
        (1420, 1413, 1420),
        (1420, 1420, 1420),
        (1001, 990, 992),
        (1001, 993, 1001),
        (1001, 1001, 1001),
        (1420, 1001, 1008),
    ):
        ends.left.namespace.run("ip", "link", "set", ends.left.interface, "mtu", str(mtu))
        time.sleep(0.1)  # the order overtakes no packet, but the roles must have heard it
        outside.packets(0.05)
        assert ends.left.ping(ends.right.inner4, f"-s{size - 28}")
        lengths = {packet[UDP].len for packet in sent_to(outside, ends.right)}
        assert lengths == {padded + TRANSPORT_OVERHEAD + UDP_HEADER}, (mtu, size)


# The link's state


def test_before_the_link_is_up_nothing_is_sent_and_then_at_once(
    tunnel: MakeTunnel, look: Look
) -> None:
    ends = tunnel("wgmpd", "wireguard-go")
    gateway, peer = ends.left, ends.right
    set_link(gateway, "down")
    outside = look(gateway, "veth")
    gateway.set("peer", peer.public_key, "persistent-keepalive", "25")
    assert outer_datagrams(outside, 0.7) == []
    set_link(gateway, "up")
    datagrams = outer_datagrams(outside, AT_ONCE_S)
    assert message_type(datagrams[0]) == INITIATION
    wait_for(lambda: gateway.peers()[peer.public_key].handshake, 2, "the session works")


@pytest.mark.parametrize("topology", ["pipeline", "compact"])
def test_a_link_that_goes_down_ends_sessions_and_timers(
    tunnel: MakeTunnel, look: Look, topology: str
) -> None:
    ends = connected(tunnel, "wireguard-go", topology=topology)
    gateway, peer = ends.left, ends.right
    gateway.set("peer", peer.public_key, "persistent-keepalive", "1")
    outside = look(gateway, "veth")
    assert outer_datagrams(outside, 1.5), "the keepalive works"
    processes = gateway.role_pids()
    set_link(gateway, "down")
    outer_datagrams(outside)
    assert not peer.ping(gateway.inner4, wait_s=2)
    from_gateway = [
        packet for packet in outer_datagrams(outside) if packet[UDP].sport == gateway.port
    ]
    assert from_gateway == [], "neither keepalives nor answers"
    assert gateway.drops()["unknown_index"] > 0, "the sessions are gone"
    assert gateway.peers()[peer.public_key].endpoint == peer.endpoint(4)
    set_link(gateway, "up")
    assert message_type(outer_datagrams(outside, AT_ONCE_S)[0]) == INITIATION
    restore_addresses(gateway)
    assert gateway.ping(peer.inner4)
    assert peer.ping(gateway.inner4)
    assert gateway.role_pids() == processes


def test_an_initiation_to_a_link_that_is_down_is_not_answered(tunnel: MakeTunnel) -> None:
    ends = tunnel("wgmpd-short", "wgmpd")
    set_link(ends.right, "down")
    assert not ends.left.ping(ends.right.inner4, wait_s=1)
    assert ends.right.drops()["link_down"] >= 1
    set_link(ends.right, "up")
    restore_addresses(ends.right)
    assert ends.left.ping(ends.right.inner4, wait_s=12), "its peer tries again"


@pytest.mark.parametrize("topology", ["pipeline", "compact"])
def test_a_deleted_link_keeps_nobody_busy_until_the_gateway_ends(
    tunnel: MakeTunnel, topology: str
) -> None:
    gateway = connected(tunnel, "wireguard-go", topology=topology).left
    roles = [psutil.Process(pid) for pid in gateway.role_pids().values()]
    gateway.process.send_signal(signal.SIGSTOP)  # a supervisor that is late to hear of it
    try:
        gateway.namespace.run("ip", "link", "delete", gateway.interface)
        before = cpu_seconds(roles)
        time.sleep(1)
        assert cpu_seconds(roles) - before < 0.5
    finally:
        gateway.process.send_signal(signal.SIGCONT)
    assert gateway.process.wait(5) == 0
    assert not gateway.socket.exists()


def test_a_link_that_is_renamed_goes_on(tunnel: MakeTunnel) -> None:
    ends = connected(tunnel, "wireguard-go", topology="compact")
    gateway, other = ends.left, ends.left.namespace.interface_name("wr")
    gateway.namespace.run("ip", "link", "set", gateway.interface, "name", other)
    wait_for(lambda: f"is called {other} now" in gateway.log.read_text(), 5, "it is noticed")
    assert gateway.ping(ends.right.inner4)
    gateway.namespace.run("ip", "link", "set", other, "down", "mtu", "1300")
    gateway.namespace.run("ip", "link", "set", other, "up")
    wait_for(lambda: gateway.ping(ends.right.inner4, "-s1200", wait_s=2), 10, "it is up again")
    assert gateway.peers(), "`wg` asks at the path that there was at first"
    gateway.namespace.run(WGMP, "upgrade", gateway.interface)
    assert gateway.ping(ends.right.inner4)
    gateway.namespace.run("ip", "link", "delete", other)
    wait_for(lambda: not gateway.socket.exists(), 5, "it ends with its link")


def test_a_link_in_another_namespace_goes_on_and_its_datagrams_stay(
    tunnel: MakeTunnel, namespaces: Namespaces
) -> None:
    ends = connected(tunnel, "wireguard-go", topology="pipeline")
    gateway, room = ends.left, namespaces.add("inside")
    gateway.namespace.run("ip", "link", "set", gateway.interface, "netns", room.name)
    wait_for(lambda: "another network namespace now" in gateway.log.read_text(), 5, "it is noticed")
    room.add_address(gateway.interface, f"{gateway.inner4}/24")
    room.set_up(gateway.interface)
    room.run("ping", "-c1", "-i0.2", "-w5", ends.right.inner4)
    os.kill(gateway.role_pids()["tun_reader"], signal.SIGKILL)
    room.run("ping", "-c1", "-i0.2", "-w5", ends.right.inner4)
    assert gateway.peer().endpoint == ends.right.endpoint(4)
    handshake = gateway.peer().handshake
    for _ in range(2):
        gateway.namespace.run(WGMP, "upgrade", gateway.interface)
        room.run("ping", "-c1", "-i0.2", "-w5", "-s1200", ends.right.inner4)
    assert gateway.peer().handshake == handshake
    room.run("ip", "link", "delete", gateway.interface)
    wait_for(lambda: not gateway.socket.exists(), 5, "it ends with its link")


def cpu_seconds(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def set_link(gateway: Gateway, state: str) -> None:
    gateway.namespace.run("ip", "link", "set", gateway.interface, state)


def restore_addresses(gateway: Gateway) -> None:
    """Give the interface its IPv6 address back, which went when the link did."""
    gateway.namespace.run(
        *("ip", "address", "replace", f"{gateway.inner6}/64", "dev", gateway.interface, "nodad")
    )


# Sources


@pytest.mark.parametrize("change", ["route", "fwmark"])
def test_the_source_address_is_chosen_anew_after(
    tunnel: MakeTunnel, look: Look, change: str
) -> None:
    ends = tunnel("wgmpd", "wireguard-go")
    gateway, peer = ends.left, ends.right
    second = "192.0.2.77"
    veth = gateway.outer_interface()
    gateway.namespace.add_address(veth, f"{second}/24")
    peer.set("peer", gateway.public_key, "endpoint", f"{second}:{gateway.port}")
    assert peer.ping(gateway.inner4)
    outside = look(peer, "veth")

    def source_of_next() -> str:
        """Whence the gateway sends when it sends of itself: a packet that is not answered."""
        outside.packets(0.05)
        gateway.namespace.run("ping", "-c1", "-W1", "10.77.0.2", "-t1", check=False)
        (first, *_) = [
            packet for packet in outer_datagrams(outside) if packet[UDP].dport == peer.port
        ]
        return str(first.src)

    assert source_of_next() == second, "it answers from where it was asked"
    # Nothing more comes from the peer, which would say again where it wants to be answered from.
    peer.namespace.run("nft", "add table ip silence")
    peer.namespace.run(
        "nft", "add chain ip silence out { type filter hook output priority 0; policy drop; }"
    )
    assert source_of_next() == second, "the silence alone changes nothing"
    if change == "route":
        gateway.namespace.run("ip", "route", "add", "203.0.113.0/24", "dev", veth)
    else:
        gateway.set("fwmark", "77")
    time.sleep(0.2)
    assert source_of_next() == gateway.outer4


@pytest.mark.parametrize("family", [4, 6])
def test_answers_go_out_by_the_route_and_not_where_the_question_came_in(
    namespaces: Namespaces, family: int
) -> None:
    """The way to a peer need not be the way from it; wireguard-go's answers get lost here."""
    gateway, router, peer = (namespaces.add(name) for name in ("gateway", "router", "peer"))
    asked, answered = (namespaces.connect(gateway, router, net) for net in (2, 3))
    link = namespaces.connect(peer, router, 4)
    for space in (gateway, router, peer):
        space.run("sh", "-c", ROUTER)
    peer.run("ip", "route", "add", "default", "via", link.right4)
    peer.run("ip", "route", "add", "default", "via", link.right6)
    gateway.run("ip", "route", "add", "192.0.4.0/24", "via", answered.right4)
    gateway.run("ip", "route", "add", "2001:db8:4::/64", "via", answered.right6)
    target, here = {4: (asked.left4, link.left4), 6: (asked.left6, link.left6)}[family]
    wait_for(lambda: peer.run("ping", "-c1", "-W1", target, check=False).returncode == 0, 5, "IP")
    with inside(gateway):
        port, sockets = udp.open_sockets(0, 0)
    wire = Wire(peer, here, (target, port))
    wire.send(b"question")
    ready, _, _ = select.select(sockets, [], [], 2)
    received = datagrams.Receiver().receive(ready[0], [memoryview(bytearray(100))])
    assert received is not None
    assert received[1] is not None
    datagrams.Sender(sockets, segments=False).send(memoryview(b"answer"), received[1].endpoint)
    assert wire.receive() == b"answer"
    for sock in (*sockets, wire.socket):
        sock.close()
