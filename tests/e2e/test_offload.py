"""Super-packets and trains change nothing of what arrives: byte for byte, size for size."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from threading import Thread

import pytest

from tests.fastpath.packets import ACK, CWR, ECE, FIN, PSH, SYN, URG, Packet, flow

from .conftest import MakeTunnel
from .tunnel import Tunnel, transfer
from .wire import Tap, udp_socket

pytestmark = pytest.mark.root

OFF = {"WGMP_OFFLOAD": "off"}
REFERENCE = {"WGMP_FASTPATH": "reference"}
LEFT4 = int.from_bytes(bytes([10, 77, 0, 1]), "big")
RIGHT4 = bytes([10, 77, 0, 2])


def _pairs() -> list[object]:
    pairs = itertools.product(["compact", "pipeline"], ["wgmpd", "wireguard-go"], [{}, OFF])
    return [
        pytest.param(topology, right, off, id=f"{topology}-{right}{'-offloads-off' * bool(off)}")
        for topology, right, off in pairs
    ]


@pytest.mark.parametrize(("topology", "right", "off"), _pairs())
def test_every_size_of_udp_datagram_is_echoed(
    tunnel: MakeTunnel, topology: str, right: str, off: dict[str, str]
) -> None:
    ends = tunnel("wgmpd", right, topology=topology, environment=off)
    for here, there in (
        (ends.left.inner4, ends.right.inner4),
        (ends.left.inner6, ends.right.inner6),
    ):
        assert ends.left.ping(there)
        _echo_all(ends, here, there)


def _echo_all(ends: Tunnel, here: str, there: str) -> None:
    """Send datagrams of 0 to 1400 bytes, 50 at a time, and wait for each to come back."""
    with (
        closing(udp_socket(ends.left.namespace, here)) as client,
        closing(udp_socket(ends.right.namespace, there, 7)) as server,
    ):

        def echo() -> None:
            for _ in range(1401):
                payload, sender = server.recvfrom(2000)
                server.sendto(payload, sender)

        thread = Thread(target=echo)
        thread.start()
        for start in range(0, 1401, 50):
            wanted = {os.urandom(size)[:size] for size in range(start, min(start + 50, 1401))}
            for payload in wanted:
                client.sendto(payload, (there, 7))
            assert {client.recv(2000) for _ in wanted} == wanted
        thread.join()


@contextmanager
def _held(pid: int) -> Iterator[None]:
    """Hold the process that reads the TUN, so that what is sent meanwhile is read at one go."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
        time.sleep(0.05)
    finally:
        os.kill(pid, signal.SIGCONT)


def _corner_cases(version: int) -> dict[str, list[bytes]]:
    """Return streams of packets to the right end, each with something special inside."""
    first = Packet(b"", version)

    def stream(change: dict[str, object] | None = None, at: int = 5) -> list[bytes]:
        packets = flow(first, [600] * 12)
        if change:
            packets[at] = replace(packets[at], **change)  # type: ignore[arg-type]
        return [packet.build() for packet in packets]

    udp = replace(first, protocol=17)
    bad = [bytearray(packet) for packet in stream()]
    bad[6][-1] ^= 1
    cases = {
        "plain": stream(),
        "short end": [p.build() for p in flow(first, [600] * 9 + [100], ACK | PSH)],
        "push": stream({"flags": ACK | PSH}),
        "fin": stream({"flags": ACK | FIN}),
        "urgent": stream({"flags": ACK | URG}),
        "syn with data": stream({"flags": SYN}, at=0),
        "congestion": stream({"flags": ACK | ECE}) + stream({"flags": ACK | CWR}),
        "timestamps": stream({"options": b"\x01\x01\x08\x0a" + b"\x07" * 8}),
        "no options": [p.build() for p in flow(replace(first, options=b""), [600] * 8)],
        "pure acks": [replace(first, acknowledgement=n).build() for n in range(20)],
        "reordered": stream()[::-1],
        "repeated": [packet for packet in stream() for _ in range(2)],
        "two flows": [
            packet
            for pair in zip(
                stream(), [p.build() for p in flow(replace(first, port=9), [600] * 12)], strict=True
            )
            for packet in pair
        ],
        "bad checksum": [bytes(packet) for packet in bad],
        "udp": [p.build() for p in flow(udp, [700] * 15)],
        "udp, all sizes": [p.build() for p in flow(udp, list(range(0, 1300, 13)))],
        "odd sizes": [p.build() for p in flow(first, [601] * 10)],
    }
    if version == 4:
        cases["fragments"] = [
            p.build() for p in flow(replace(first, protocol=17, fragment=0x2000), [800] * 6)
        ]
        options = [bytearray(packet) for packet in stream()]
        cases["ip options"] = [_with_options(bytes(packet)) for packet in options]
    else:
        cases["extension headers"] = [_with_hop_by_hop(packet) for packet in stream()]
    return cases


def _with_options(packet: bytes) -> bytes:
    """Return an IPv4 packet with four bytes of options (no operation)."""
    from tests.fastpath.packets import checksum

    header = bytearray(packet[:20] + b"\x01\x01\x01\x01")
    header[0] = 0x46
    header[2:4] = (len(packet) + 4).to_bytes(2, "big")
    header[10:12] = bytes(2)
    header[10:12] = checksum(bytes(header)).to_bytes(2, "big")
    return bytes(header) + packet[20:]


def _with_hop_by_hop(packet: bytes) -> bytes:
    """Return an IPv6 packet with a hop-by-hop header (padding)."""
    extension = bytes([packet[6], 0, 1, 4, 0, 0, 0, 0])
    header = bytearray(packet[:40])
    header[4:6] = (len(packet) - 40 + 8).to_bytes(2, "big")
    header[6] = 0
    return bytes(header) + extension + packet[40:]


def _addressed(packet: bytes) -> bytes:
    """Return a packet between the tunnel's ends; checksums stay as right or wrong as they are."""
    from tests.fastpath.packets import checksum

    changed = bytearray(packet)
    if packet[0] >> 4 == 4:
        changed[12:16], changed[16:20] = bytes([10, 77, 0, 1]), RIGHT4
        length = (packet[0] & 15) * 4
        changed[10:12] = bytes(2)
        changed[10:12] = checksum(bytes(changed[:length])).to_bytes(2, "big")
        old, new, l4, protocol = packet[12:20], bytes(changed[12:20]), length, packet[9]
    else:
        ends = (b"\xfd\x77" + bytes(13) + b"\x01", b"\xfd\x77" + bytes(13) + b"\x02")
        changed[8:24], changed[24:40] = ends
        l4, protocol = (48, packet[40]) if packet[6] == 0 else (40, packet[6])
        old, new = packet[8:40], bytes(changed[8:40])
    field = l4 + (16 if protocol == 6 else 6)
    before = int.from_bytes(packet[field : field + 2], "big") ^ 0xFFFF
    shift = (checksum(old) ^ 0xFFFF, checksum(new) ^ 0xFFFF)
    total = (before - shift[0] + shift[1]) % 0xFFFF
    changed[field : field + 2] = (total ^ 0xFFFF).to_bytes(2, "big")
    return bytes(changed)


@pytest.mark.parametrize(
    ("topology", "environment"),
    [
        ("compact", {}),
        ("compact", OFF),
        ("compact", REFERENCE),
        ("compact", OFF | REFERENCE),
        ("pipeline", {}),
    ],
    ids=["compact", "compact-off", "compact-reference", "compact-off-reference", "pipeline"],
)
def test_nothing_is_changed_or_coalesced_that_must_not_be(
    tunnel: MakeTunnel, topology: str, environment: dict[str, str]
) -> None:
    off = OFF.items() <= environment.items()
    ends = tunnel("wgmpd", "wgmpd", topology=topology, environment=environment)
    assert ends.left.ping(ends.right.inner4)
    pids = ends.left.role_pids()
    reader = pids["tun_reader" if topology == "pipeline" else "gateway"]
    sender = Tap(ends.left.namespace, ends.left.interface)
    receiver = Tap(ends.right.namespace, ends.right.interface)
    with closing(sender), closing(receiver):
        for version in (4, 6):
            for name, packets in _corner_cases(version).items():
                sent = [_addressed(packet) for packet in packets]
                before = receiver.super_packets
                with _held(reader):
                    for packet in sent:
                        sender.send(packet)
                assert receiver.receive(len(sent)) == sent, f"IPv{version}, {name}"
                if name == "plain" and not off:
                    assert receiver.super_packets > before, "a plain flow is coalesced"
        if off:
            assert receiver.super_packets == 0


@pytest.mark.alone
def test_eight_peers_of_20_mbit_each_lose_nothing(tunnel: MakeTunnel) -> None:
    """Eight flows of 1200-byte datagrams, 20 Mbit/s each, for two seconds, from one train-less
    peer: fewer than one in a thousand may be lost."""
    ends = tunnel("wireguard-go", "wgmpd", topology="compact")
    assert ends.left.ping(ends.right.inner4)
    count, gap_s = 4000, 1200 * 8 / 20e6
    sockets = [udp_socket(ends.left.namespace, ends.left.inner4) for _ in range(8)]
    server = udp_socket(ends.right.namespace, ends.right.inner4, 9000)
    received: set[bytes] = set()

    def receive() -> None:
        server.settimeout(2)
        with closing(server):
            try:
                while len(received) < 8 * count:
                    received.add(server.recv(2000)[:8])
            except TimeoutError:
                return

    thread = Thread(target=receive)
    thread.start()
    begun = time.monotonic()
    for number in range(count):
        for which, sock in enumerate(sockets):
            head = number.to_bytes(4, "big") + which.to_bytes(4, "big")
            sock.sendto(head.ljust(1200, b"\0"), (ends.right.inner4, 9000))
        time.sleep(max(0.0, begun + number * gap_s - time.monotonic()))
    thread.join()
    for sock in sockets:
        sock.close()
    assert len(received) > 0.999 * 8 * count


@pytest.mark.alone
def test_much_tcp_both_ways_at_once_arrives_intact(tunnel: MakeTunnel) -> None:
    size = int(os.environ.get("WGMP_TEST_BYTES", "250000000"))
    ends = tunnel("wgmpd", "wgmpd", topology="compact")
    assert ends.left.ping(ends.right.inner4)
    running = [
        transfer(ends.left, ends.right, "--bytes", str(size), port=5201),
        transfer(ends.right, ends.left, "--bytes", str(size), port=5202),
    ]
    for each in running:
        assert each.finish(60 + size / 10e6).bytes == size
