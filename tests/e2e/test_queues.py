"""A TUN of several queues: each is read by a process of its own, and a flow keeps to one queue."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from wgmp import control, tun
from wgmp.errors import TunDeviceError
from wgmp.netns import Namespaces, wait_for
from wgmp.traffic import Transfer

from .conftest import MakeTunnel
from .test_recovery import BACK_LIMIT_S
from .tunnel import WGMP, Gateway, Tunnel, transfer
from .wire import inside, udp_socket

pytestmark = pytest.mark.root

READERS = ("tun_reader0", "tun_reader1")
# That a hash sends all of so many flows to one of two queues: one in four million.
FLOWS = 23
DATAGRAMS = 40
PORT = 7007
LIMIT_S = 60.0


def working(tunnel: MakeTunnel, **environment: str) -> Tunnel:
    """Return a tunnel to wireguard-go that has carried a packet; its left end has two queues."""
    environment = {"WGMP_TUN_QUEUES": "2", **environment}
    ends = tunnel("wgmpd", "wireguard-go", environment=environment)
    assert ends.left.ping(ends.right.inner4)
    return ends


class Echoes:
    """UDP flows from the left end to the right one, which sends back what it receives."""

    def __init__(self, ends: Tunnel, stack: ExitStack) -> None:
        left, right = ends.left, ends.right
        self.far = stack.enter_context(udp_socket(right.namespace, right.inner4, PORT))
        self.near = [
            stack.enter_context(udp_socket(left.namespace, left.inner4)) for _ in range(FLOWS)
        ]
        self._there = (right.inner4, PORT)
        for each in (self.far, *self.near):
            each.settimeout(0.3)

    def burst(self, flow: int, numbers: list[bytes]) -> None:
        """Send datagrams of a flow there, and then back; they come in order."""
        near = self.near[flow]
        for number in numbers:
            near.sendto(number, self._there)
        assert [self.far.recv(9) for _ in numbers] == numbers
        for number in numbers:
            self.far.sendto(number, near.getsockname())
        assert [near.recv(9) for _ in numbers] == numbers

    def wait(self, limit_s: float) -> None:
        """Wait until a datagram of each flow has come there and back."""
        for near in self.near:
            wait_for(lambda near=near: self._answers(near), limit_s, "all flows are answered")

    def _answers(self, near: socket.socket) -> bool:
        number = os.urandom(8)
        try:
            near.sendto(number, self._there)
            while self.far.recv(9) != number:
                continue
            self.far.sendto(number, near.getsockname())
            while near.recv(9) != number:
                continue
        except TimeoutError:
            return False
        return True


@contextmanager
def echoing(ends: Tunnel) -> Iterator[Echoes]:
    """Give many small flows through the tunnel."""
    with ExitStack() as stack:
        yield Echoes(ends, stack)


def read_by(gateway: Gateway) -> list[int]:
    """Return how many packets each reader has read."""
    roles = {role.name: role.counters for role in control.ask_stats(gateway.interface).roles}
    return [roles[name]["packets_in"] for name in READERS]


def read_since(gateway: Gateway, before: list[int]) -> list[int]:
    """Return how many packets each reader has read since then."""
    return [now - then for now, then in zip(read_by(gateway), before, strict=True)]


def test_a_flow_keeps_to_one_queue_and_its_order_and_flows_are_spread(tunnel: MakeTunnel) -> None:
    ends = working(tunnel)
    used = set()
    with echoing(ends) as echoes:
        for flow in range(FLOWS):
            before = read_by(ends.left)
            # There and back in turn: what comes in must not draw what goes out to its queue.
            for first in range(0, DATAGRAMS, 10):
                echoes.burst(flow, [bytes([number]) for number in range(first, first + 10)])
            counts = read_since(ends.left, before)
            assert max(counts) >= DATAGRAMS, counts
            assert sum(counts) < DATAGRAMS + 10, counts
            used.add(counts.index(max(counts)))
    assert used == {0, 1}


@pytest.mark.parametrize("offload", ["auto", "off"])
def test_transfers_arrive_intact_in_both_directions_at_once(
    tunnel: MakeTunnel, offload: str
) -> None:
    ends = working(tunnel, WGMP_OFFLOAD=offload)
    assert ends.left.ping(ends.right.inner6)
    running = [
        transfer(*pair, "--bytes", "10000000", family=family, port=port)
        for port, (family, pair) in enumerate(
            ((family, pair) for family in (4, 6) for pair in _both_ways(ends) * 2), start=5201
        )
    ]
    for each in running:
        assert each.finish(LIMIT_S).bytes == 10_000_000


def _both_ways(ends: Tunnel) -> list[tuple[Gateway, Gateway]]:
    return [(ends.left, ends.right), (ends.right, ends.left)]


def _streams(ends: Tunnel, seconds: str) -> list[Transfer]:
    """Begin a transfer in each direction; return when both have got going."""
    running = [
        transfer(*pair, "--seconds", seconds, port=5201 + number)
        for number, pair in enumerate(_both_ways(ends))
    ]
    wait_for(lambda: all(each.received().bytes > 500_000 for each in running), 20, "it flows")
    return running


def test_each_killed_reader_is_replaced_while_traffic_flows(tunnel: MakeTunnel) -> None:
    ends = working(tunnel)
    with echoing(ends) as echoes:
        running = _streams(ends, "4")
        for name in READERS:
            victim = _pid(ends.left, name)
            os.kill(victim, signal.SIGKILL)
            killed = time.monotonic()
            echoes.wait(BACK_LIMIT_S)
            outage = time.monotonic() - killed
            assert outage < BACK_LIMIT_S, f"{name}: no traffic for {outage:.1f} s"
            assert _pid(ends.left, name) not in (0, victim)
    for each in running:
        each.finish(LIMIT_S)


def _pid(gateway: Gateway, name: str) -> int:
    processes = control.ask_stats(gateway.interface).processes
    return next(process.pid for process in processes if process.name == name)


def test_an_upgrade_and_other_workers_keep_all_queues(tunnel: MakeTunnel) -> None:
    ends = working(tunnel)
    left = ends.left
    index = _index(left)
    with echoing(ends) as echoes:
        running = _streams(ends, "4")
        for command in (("upgrade",), ("workers", "3"), ("upgrade",)):
            left.namespace.run(WGMP, *command, left.interface)
            before = read_by(left)
            echoes.wait(BACK_LIMIT_S)
            assert min(read_since(left, before)) > 0, command
    for each in running:
        each.finish(LIMIT_S)
    handshakes = [role["counters"]["handshakes_completed"] for role in left.stats()["roles"]]
    assert sum(handshakes) == 1
    assert _index(left) == index


def _index(gateway: Gateway) -> str:
    shown = gateway.namespace.run("ip", "-o", "link", "show", gateway.interface).stdout
    return shown.partition(":")[0]


def test_a_capture_shows_what_each_reader_drops(tunnel: MakeTunnel) -> None:
    ends = working(tunnel)
    left, file = ends.left, ends.left.log.parent / "capture"
    log = file.with_suffix(".log")
    capture = left.namespace.start(WGMP, "capture", left.interface, "-w", str(file), log=log)
    wait_for(lambda: file.exists() and file.stat().st_size, 10, "the capture begins")
    with echoing(ends) as echoes:
        for near in echoes.near:
            near.sendto(b"lost", ("10.77.0.99", PORT))
        wait_for(lambda: len(_droppers(file)) == 2, 10, "both readers' drops are captured")
    capture.send_signal(signal.SIGINT)
    assert capture.wait(10) == 0, log.read_text()


def _droppers(file: Path) -> set[bytes]:
    return set(re.findall(rb"(tun_reader\d); dropped: no_route", file.read_bytes()))


def test_the_interface_of_a_gateway_with_several_queues_is_taken(namespaces: Namespaces) -> None:
    space = namespaces.add("taken")
    name = space.interface_name("wg")
    with inside(space):
        opened = tun.open_tun(name, 2)
        try:
            assert tun.are_queues(opened, 2)
            assert not tun.are_queues(opened, 3)
            assert not tun.are_queues(opened[:1], 2)
            for queues in (1, 2):
                with pytest.raises(TunDeviceError, match=name):
                    tun.open_tun(name, queues)
        finally:
            for descriptor in opened:
                os.close(descriptor)
    assert name not in space.links()
