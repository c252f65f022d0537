"""What is said to systemd, what is taken from it, and a reload's effect on a device."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import cast

import pytest

from wgmp import config, keys, systemd
from wgmp.addresses import parse_endpoint
from wgmp.counters import Counter
from wgmp.device import Device
from wgmp.fabric import Fabric
from wgmp.inheritance import sort
from wgmp.orders import SetPeer
from wgmp.reload import synchronize
from wgmp.service import Service, stale_roles
from wgmp.supervisor import Supervisor
from wgmp.system import boottime
from wgmp.topology import Shape, build


def test_a_message_and_its_descriptors_reach_an_abstract_address() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = f"wgmp-test-{os.getpid()}"
        manager.bind(f"\0{name}")
        service = systemd.Manager({"NOTIFY_SOCKET": f"@{name}"})
        service.keep("udp", [manager.fileno()])
        assert manager.recv(100) == b"FDSTOREREMOVE=1\nFDNAME=udp"
        text, descriptors, _, _ = socket.recv_fds(manager, 100, 4)
        assert text == b"FDSTORE=1\nFDNAME=udp\nFDPOLL=0"
        (descriptor,) = descriptors
        assert os.fstat(descriptor).st_ino == os.fstat(manager.fileno()).st_ino
        os.close(descriptor)


def test_a_manager_that_is_gone_stops_nobody(tmp_path: Path) -> None:
    systemd.Manager({"NOTIFY_SOCKET": str(tmp_path / "nothing")}).ready("up")


def test_a_gateway_that_is_handed_over_is_not_reloaded_and_says_so(tmp_path: Path) -> None:
    class Held:
        holding = True

    held = Held()
    file = tmp_path / "wg0.conf"
    file.write_text("[Interface]\nListenPort = 7\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "manager"))
        told = systemd.Manager({"NOTIFY_SOCKET": str(tmp_path / "manager")})

        async def reload() -> None:
            Service(told, cast(Supervisor, held), file).reload()
            await asyncio.sleep(0)

        asyncio.run(reload())
        assert manager.recv(100).startswith(b"RELOADING=1")
        assert manager.recv(200) == (
            b"READY=1\nSTATUS=not reloaded: the gateway is being handed over: reload it once more"
        )


def test_descriptors_of_another_process_are_not_taken() -> None:
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b", "HOME": "/"}
    assert systemd.take_descriptors(environment) == []
    assert environment == {"HOME": "/"}


@pytest.mark.parametrize(
    ("pid", "expected"),
    [("", 0.5), pytest.param(str(os.getpid()), 0.5, id="ours"), ("1", None)],
)
def test_the_watchdog_of_another_process_is_not_ours(pid: str, expected: float | None) -> None:
    manager = systemd.Manager({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": pid})
    assert manager.watchdog_s == expected


def test_no_time_at_all_is_no_watchdog() -> None:
    assert systemd.Manager({"WATCHDOG_USEC": "0"}).watchdog_s is None


def test_sockets_of_two_ports_are_not_one_gateways() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as first:
        first.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second:
            second.bind(("127.0.0.1", 0))
            named = [("udp", os.dup(first.fileno())), ("udp", os.dup(second.fileno()))]
            found = sort([*named, ("other", os.dup(0))], "wg0")
        (kept,) = found.udp
        assert kept.getsockname() == first.getsockname()
        kept.close()
        assert (found.tun, found.uapi) == ([], None)


def test_a_role_without_a_turn_is_told_from_those_that_turn() -> None:
    fabric = Fabric(build(Shape.PIPELINE, 1))
    for counters in fabric.counters.values():
        counters.store(Counter.HEARTBEAT, int(boottime() * 1e9))
    assert stale_roles(fabric, 5.0) == []
    fabric.counters["worker0"].store(Counter.HEARTBEAT, int((boottime() - 6) * 1e9))
    assert stale_roles(fabric, 5.0) == ["worker0"]


def test_a_worker_that_there_is_no_more_is_not_waited_for() -> None:
    fabric = Fabric(build(Shape.PIPELINE, 3))
    for counters in fabric.counters.values():
        counters.store(Counter.HEARTBEAT, int((boottime() - 60) * 1e9))
    fewer = fabric.succeed(build(Shape.PIPELINE, 1))
    assert "worker2" in fewer.counters
    for row in fewer.topology.roles:
        fewer.counters[row.name].store(Counter.HEARTBEAT, int(boottime() * 1e9))
    assert stale_roles(fewer, 5.0) == []


class _Ports:
    def open_port(self, port: int) -> int:
        return port or 40_000

    def set_fwmark(self, mark: int) -> None:
        pass


A, B, C = (keys.to_base64(bytes([n]) * 32) for n in (1, 2, 3))
BEFORE = f"""
[Interface]
PrivateKey = {keys.to_base64(bytes([7]) * 32)}
[Peer]
PublicKey = {A}
Endpoint = 192.0.2.1:1
AllowedIPs = 10.0.1.0/24
[Peer]
PublicKey = {B}
PresharedKey = {C}
PersistentKeepalive = 25
AllowedIPs = 10.0.2.0/24
"""


def _synchronized(device: Device, text: str) -> list[object]:
    assert synchronize(config.parse(text, "wg0.conf"), device, parse_endpoint) == []
    return list(device.take_orders())


def test_a_file_that_says_the_same_again_is_no_order() -> None:
    device = Device(_Ports())
    device.set_listen_port(0)
    assert _synchronized(device, BEFORE)
    assert _synchronized(device, BEFORE) == []
    assert device.listen_port == 40_000


def test_what_a_file_gives_no_more_is_taken_away() -> None:
    device = Device(_Ports())
    _synchronized(device, BEFORE)
    after = BEFORE.replace(f"PresharedKey = {C}\nPersistentKeepalive = 25\n", "")
    (order,) = _synchronized(device, after)
    assert isinstance(order, SetPeer)
    assert (order.public_key, order.preshared_key, order.keepalive) == (
        bytes([2]) * 32,
        keys.ZERO_KEY,
        0,
    )
    _synchronized(device, BEFORE.partition("[Peer]\nPublicKey = " + B)[0])
    assert list(device.peers) == [bytes([1]) * 32]
