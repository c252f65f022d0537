"""The configuration protocol's grammar: what is taken, refused, and answered."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wgmp.addresses import parse_endpoint, parse_prefix
from wgmp.device import Device
from wgmp.keys import clamp, public_key_of
from wgmp.orders import SetPeer
from wgmp.peertable import RowFigures
from wgmp.uapi import LINE_BYTES_MAX, answer_get, answer_set, apply_set
from wgmp.uapi_keys import UapiError
from wgmp.uapi_server import socket_path

KEY = bytes([7]) * 32
ONE, TWO = "01" * 32, "02" * 32
PEER = f"public_key={ONE}"
NOTHING = RowFigures(None, 0, 0, 0)


class Sockets:
    """The outside: port 99 is not ours to open, port 5353 is taken."""

    def open_port(self, port: int) -> int:
        if port in (99, 5353):
            code = errno.EACCES if port == 99 else errno.EADDRINUSE
            raise OSError(code, "no")
        return port or 40000

    def set_fwmark(self, mark: int) -> None:
        if mark == 0xDEAD:
            raise OSError(errno.EPERM, "no")


@pytest.fixture
def device() -> Device:
    return Device(Sockets(), capacity=2)


def set_lines(device: Device, *lines: str) -> int:
    """Apply the lines; return the (positive) errno of the answer."""
    answer = answer_set(device, "\n".join(lines).encode("latin-1"))
    assert answer.startswith(b"errno=")
    assert answer.endswith(b"\n\n")
    return -int(answer[6:-2])


def peer(device: Device, public_key: str = ONE) -> object:
    entry = device.peers[bytes.fromhex(public_key)]
    return entry.keepalive, entry.endpoint, [*entry.allowed_ips]


def get(device: Device, figures: RowFigures = NOTHING) -> list[str]:
    return answer_get(device, lambda peer: figures).decode().split("\n")


# Lines that fail, and with what errno.
BAD_LINES: list[tuple[list[str], int]] = [
    (["private_key"], errno.EPROTO),
    (["garbage"], errno.EPROTO),
    ([PEER, "garbage"], errno.EPROTO),
    (["\xff\x00"], errno.EPROTO),
    (["="], errno.EINVAL),
    (["no_such_key=1"], errno.EINVAL),
    (["Listen_port=1"], errno.EINVAL),
    (["allowed_ip=10.0.0.0/8"], errno.EINVAL),
    ([PEER, "listen_port=1"], errno.EINVAL),
    (["private_key="], errno.EINVAL),
    ([f"private_key={ONE[:-1]}"], errno.EINVAL),
    ([f"private_key={ONE}0"], errno.EINVAL),
    ([f"public_key={'g' * 64}"], errno.EINVAL),
    ([f"public_key= {ONE}"], errno.EINVAL),
    (["listen_port=65536"], errno.EINVAL),
    (["listen_port=-1"], errno.EINVAL),
    (["listen_port=+1"], errno.EINVAL),
    (["listen_port=1_0"], errno.EINVAL),
    (["listen_port= 1"], errno.EINVAL),
    (["listen_port=\xb2"], errno.EINVAL),
    (["listen_port=" + "1" * 5000], errno.EINVAL),
    (["listen_port=5353"], errno.EADDRINUSE),
    (["listen_port=99"], errno.EACCES),
    (["fwmark=4294967296"], errno.EINVAL),
    (["fwmark=0x1"], errno.EINVAL),
    ([f"fwmark={0xDEAD}"], errno.EPERM),
    (["replace_peers=false"], errno.EINVAL),
    (["replace_peers=1"], errno.EINVAL),
    ([PEER, "remove=TRUE"], errno.EINVAL),
    ([PEER, "update_only="], errno.EINVAL),
    ([PEER, "replace_allowed_ips=yes"], errno.EINVAL),
    ([PEER, "protocol_version=2"], errno.EINVAL),
    ([PEER, "preshared_key=00"], errno.EINVAL),
    ([PEER, "persistent_keepalive_interval=65536"], errno.EINVAL),
    ([PEER, "persistent_keepalive_interval=off"], errno.EINVAL),
    ([PEER, "endpoint=example.org:1"], errno.EINVAL),
    ([PEER, "endpoint=192.0.2.1"], errno.EINVAL),
    ([PEER, "endpoint=192.0.2.1:0"], errno.EINVAL),
    ([PEER, "endpoint=192.0.2.1:65536"], errno.EINVAL),
    ([PEER, "endpoint=192.0.2.256:1"], errno.EINVAL),
    ([PEER, "endpoint=2001:db8::1:1"], errno.EINVAL),
    ([PEER, "endpoint=[192.0.2.1]:1"], errno.EINVAL),
    ([PEER, "endpoint=[fe80::1%no-such-zone]:1"], errno.EINVAL),
    ([PEER, "endpoint=[fe80::1%]:1"], errno.EINVAL),
    ([PEER, "endpoint=192.0.2.1%1:1"], errno.EINVAL),
    ([PEER, "allowed_ip=10.0.0.0"], errno.EINVAL),
    ([PEER, "allowed_ip=10.0.0.0/33"], errno.EINVAL),
    ([PEER, "allowed_ip=::/129"], errno.EINVAL),
    ([PEER, "allowed_ip=10.0.0.0/08"], errno.EINVAL),
    ([PEER, "allowed_ip=10.0.0/8"], errno.EINVAL),
    ([PEER, "allowed_ip=010.0.0.0/8"], errno.EINVAL),
    ([PEER, "allowed_ip=fe80::1%1/64"], errno.EINVAL),
    ([PEER, "allowed_ip=--10.0.0.0/8"], errno.EINVAL),
    ([PEER, "allowed_ip=\x00/8"], errno.EINVAL),
    ([PEER, f"public_key={TWO}", f"public_key={'03' * 32}"], errno.ENOSPC),
    (["fwmark=" + "1" * LINE_BYTES_MAX], errno.EIO),
]


def test_all_keys_are_set_and_told_again(device: Device) -> None:
    lines = [
        f"private_key={KEY.hex()}",
        "listen_port=51820",
        "fwmark=4294967295",
        "replace_peers=true",
        f"public_key={ONE}",
        f"preshared_key={TWO}",
        "protocol_version=1",
        "endpoint=192.0.2.1:1",
        "persistent_keepalive_interval=65535",
        "replace_allowed_ips=true",
        "allowed_ip=10.0.0.0/8",
        "allowed_ip=::/0",
        f"public_key={TWO}",
        "endpoint=[2001:db8::1]:65535",
    ]
    assert set_lines(device, *lines) == 0
    assert get(device, RowFigures(None, 12_000_000_034, 5, 6)) == [
        f"private_key={clamp(KEY).hex()}",
        "listen_port=51820",
        "fwmark=4294967295",
        f"public_key={ONE}",
        f"preshared_key={TWO}",
        "protocol_version=1",
        "endpoint=192.0.2.1:1",
        "last_handshake_time_sec=12",
        "last_handshake_time_nsec=34",
        "tx_bytes=6",
        "rx_bytes=5",
        "persistent_keepalive_interval=65535",
        "allowed_ip=10.0.0.0/8",
        "allowed_ip=::/0",
        f"public_key={TWO}",
        f"preshared_key={'0' * 64}",
        "protocol_version=1",
        "endpoint=[2001:db8::1]:65535",
        "last_handshake_time_sec=12",
        "last_handshake_time_nsec=34",
        "tx_bytes=6",
        "rx_bytes=5",
        "persistent_keepalive_interval=0",
        "errno=0",
        "",
        "",
    ]


def test_what_is_zero_is_left_out_of_the_device(device: Device) -> None:
    assert set_lines(device, f"private_key={'0' * 64}", "fwmark=0") == 0
    assert get(device) == ["errno=0", "", ""]


def test_what_a_device_or_a_peer_has_not_is_not_told(device: Device) -> None:
    assert get(device) == ["errno=0", "", ""]
    assert set_lines(device, PEER) == 0
    assert [line.partition("=")[0] for line in get(device)] == [
        "public_key", "preshared_key", "protocol_version", "last_handshake_time_sec",
        "last_handshake_time_nsec", "tx_bytes", "rx_bytes", "persistent_keepalive_interval",
        "errno", "", "",
    ]  # fmt: skip


def test_the_live_endpoint_is_told_instead_of_the_configured_one(device: Device) -> None:
    set_lines(device, PEER, "endpoint=192.0.2.1:1")
    roamed = RowFigures(parse_endpoint("[fe80::1%3]:7"), 0, 0, 0)
    assert "endpoint=[fe80::1%3]:7" in get(device, roamed)
    assert "endpoint=192.0.2.1:1" in get(device)


@pytest.mark.parametrize(("lines", "code"), BAD_LINES)
def test_bad_lines_have_their_errno_and_those_before_them_stand(
    device: Device, lines: list[str], code: int
) -> None:
    of_peer = PEER in lines
    last = "protocol_version=1" if of_peer else "fwmark=6"  # what is taken where it stands
    assert set_lines(device, "fwmark=5", *lines, last) == code
    assert device.fwmark == 5
    # A peer line comes after its peer: that one stands, too.
    assert (bytes.fromhex(ONE) in device.peers) == of_peer


def test_errors_and_logs_name_line_and_reason_but_no_value(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "5a" * 31 + "zz"
    for lines in ([f"private_key={secret}"], [PEER, f"preshared_key={secret}"], [secret]):
        with caplog.at_level(logging.DEBUG), pytest.raises(UapiError) as caught:
            apply_set(device, [line.encode() for line in lines])
        set_lines(device, *lines)
        assert str(caught.value).startswith(f"line {len(lines)}: ")
        assert "5a5a" not in str(caught.value) + caplog.text
    assert "UAPI" in caplog.text


def test_allowed_ips_are_replaced_only_where_that_is_said(device: Device) -> None:
    assert set_lines(device, PEER, "allowed_ip=10.0.0.0/8", "allowed_ip=fd00::/8") == 0
    assert set_lines(device, PEER, "allowed_ip=10.1.0.0/16", "allowed_ip=-fd00::/8") == 0
    assert peer(device) == (0, None, [parse_prefix("10.0.0.0/8"), parse_prefix("10.1.0.0/16")])
    assert set_lines(device, PEER, "replace_allowed_ips=true", "allowed_ip=10.2.0.0/16") == 0
    assert peer(device) == (0, None, [parse_prefix("10.2.0.0/16")])


def test_a_named_peer_is_made_even_without_a_line_of_its_own(device: Device) -> None:
    assert set_lines(device, PEER, f"public_key={TWO}") == 0
    assert [key.hex() for key in device.peers] == [ONE, TWO]


def test_update_only_makes_no_peer_and_ignores_its_lines(device: Device) -> None:
    lines = ["update_only=true", "persistent_keepalive_interval=5", "allowed_ip=10.0.0.0/8"]
    assert set_lines(device, PEER, *lines) == 0
    assert device.peers == {}
    assert set_lines(device, PEER, *lines, "endpoint=nonsense") == errno.EINVAL
    assert set_lines(device, PEER) == 0
    assert set_lines(device, PEER, *lines) == 0
    assert peer(device) == (5, None, [parse_prefix("10.0.0.0/8")])


def test_update_only_after_other_lines_takes_the_new_peer_back(device: Device) -> None:
    assert set_lines(device, PEER, "persistent_keepalive_interval=5", "update_only=true") == 0
    assert device.peers == {}


def test_removing_a_peer_needs_no_peer_and_no_room(device: Device) -> None:
    assert set_lines(device, PEER, f"public_key={TWO}") == 0
    absent = f"public_key={'03' * 32}"
    assert set_lines(device, absent, "remove=true", absent, "update_only=true") == 0
    assert set_lines(device, PEER, "remove=true", "persistent_keepalive_interval=5") == 0
    assert [key.hex() for key in device.peers] == [TWO]
    assert set_lines(device, "replace_peers=true") == 0
    assert device.peers == {}


def test_our_own_key_is_ignored_but_its_lines_are_checked(device: Device) -> None:
    ourselves = f"public_key={public_key_of(KEY).hex()}"
    private = f"private_key={KEY.hex()}"
    assert set_lines(device, private, ourselves, "allowed_ip=10.0.0.0/8") == 0
    assert device.peers == {}
    assert set_lines(device, ourselves, "allowed_ip=10.0.0.0/99") == errno.EINVAL
    assert set_lines(device, "private_key=" + "0" * 64, ourselves) == 0
    assert len(device.peers) == 1
    assert set_lines(device, private) == 0
    assert device.peers == {}


def test_allowed_ips_move_are_removed_and_lose_their_host_bits(device: Device) -> None:
    ten, host = parse_prefix("10.0.0.0/8"), parse_prefix("fd00::1/128")
    assert set_lines(device, PEER, "allowed_ip=10.1.2.3/8", "allowed_ip=fd00::1/128") == 0
    assert peer(device) == (0, None, [ten, host])
    assert set_lines(device, f"public_key={TWO}", "allowed_ip=10.0.0.0/8") == 0
    assert (peer(device), peer(device, TWO)) == ((0, None, [host]), (0, None, [ten]))
    assert set_lines(device, PEER, "allowed_ip=-10.0.0.0/8", "allowed_ip=-fd00::1/128") == 0
    assert (peer(device), peer(device, TWO)) == ((0, None, []), (0, None, [ten]))


def test_an_ipv4_endpoint_inside_ipv6_is_the_ipv4_one(device: Device) -> None:
    assert set_lines(device, PEER, "endpoint=[::ffff:192.0.2.1]:7") == 0
    assert peer(device) == (0, parse_endpoint("192.0.2.1:7"), [])


def test_what_syncconf_repeats_orders_nothing_but_the_endpoint(device: Device) -> None:
    lines = [PEER, "persistent_keepalive_interval=5", "replace_allowed_ips=true"]
    lines += ["allowed_ip=10.0.0.0/8", "allowed_ip=::/0"]
    assert set_lines(device, *lines) == 0
    device.take_orders()
    assert set_lines(device, *lines) == 0
    assert device.take_orders() == []
    assert set_lines(device, *lines, "endpoint=192.0.2.1:1") == 0
    (order,) = device.take_orders()
    assert isinstance(order, SetPeer)
    assert order.endpoint is not None


def test_ten_thousand_peers_pass_in_time() -> None:
    device = Device(Sockets())
    lines = [f"private_key={KEY.hex()}", "replace_peers=true"]
    for number in range(10_000):
        high, low = divmod(number, 256)
        lines += [
            f"public_key={number + 1:064x}",
            f"preshared_key={number + 2:064x}",
            f"endpoint=192.0.2.1:{number + 1}",
            "persistent_keepalive_interval=25",
            "replace_allowed_ips=true",
            f"allowed_ip=10.0.{high}.{low}/32",
            f"allowed_ip=10.{64 + high}.{low}.0/24",
            f"allowed_ip=fd00:{high:x}:{low:x}::/48",
        ]
    start = time.process_time()
    assert set_lines(device, *lines) == 0
    assert len(device.take_orders()) == 40_001
    answer = answer_get(device, lambda peer: NOTHING)
    assert time.process_time() - start < 1.5
    assert answer.count(b"public_key=") == 10_000
    assert answer.count(b"allowed_ip=") == 30_000


@pytest.fixture
def wireguard_go() -> Iterator[Path]:
    """The UAPI socket of a real wireguard-go, in a network namespace of its own."""
    if os.geteuid() != 0 or not shutil.which("wireguard-go") or not Path("/dev/net/tun").exists():
        pytest.skip("needs root, /dev/net/tun and wireguard-go")
    path = socket_path(f"wgt{secrets.token_hex(4)}")
    process = subprocess.Popen(
        ["unshare", "--net", "wireguard-go", "--foreground", path.stem],
        env={**os.environ, "WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 10
        while not path.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.skip("wireguard-go does not start here")
            time.sleep(0.02)
        yield path
    finally:
        process.terminate()
        process.wait(10)
        path.unlink(missing_ok=True)


# Where we mean to differ: what the outside says in these tests, a port nobody can be reached
# at, and a full table. Older releases also take a prefix length like 08.
OURS_ALONE = {
    *("listen_port=5353", "listen_port=99", f"fwmark={0xDEAD}", "endpoint=192.0.2.1:0"),
    *(f"public_key={'03' * 32}", "allowed_ip=10.0.0.0/08"),
}


@pytest.mark.root
def test_wireguard_go_refuses_the_same_lines_with_the_same_errno(wireguard_go: Path) -> None:
    differences = []
    for lines, code in BAD_LINES:
        if lines[-1] in OURS_ALONE:
            continue
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(wireguard_go))
            body = "\n".join(["set=1", "replace_peers=true", *lines, "", ""])
            client.sendall(body.encode("latin-1"))
            answer = client.recv(4096)
        if not answer.startswith(b"errno=-%d\n" % code):
            differences.append((lines, code, answer))
    assert differences == []
