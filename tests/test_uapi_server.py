"""The configuration socket, spoken to by raw clients and by the real `wg`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import shutil
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest
import uvloop

from wgmp import config, keys
from wgmp.addresses import parse_endpoint
from wgmp.device import Device
from wgmp.errors import ConfigError, SocketError
from wgmp.netns import wait_for
from wgmp.peertable import RowFigures
from wgmp.uapi_server import Limits, UapiServer, bind_socket, socket_path

OK = b"errno=0\n\n"
TAKEN_PORT = 5353


class Sockets:
    """The outside: one port is taken."""

    def open_port(self, port: int) -> int:
        if port == TAKEN_PORT:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        return port or 40000

    def set_fwmark(self, mark: int) -> None:
        pass


class Served:
    """A device served from a thread of its own, on the given kind of event loop."""

    def __init__(
        self,
        path: Path,
        limits: Limits | None = None,
        new_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop,
    ) -> None:
        self.path = path
        self.device = Device(Sockets())
        self.figures: dict[int, RowFigures] = {}
        self.changes = 0
        self.settled: asyncio.Event | None = None  # what a change has to wait for, if anything
        self.server = UapiServer(self.device, self._status, self._changed, limits)
        self._loop = new_loop()
        self._listener = bind_socket(path)
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Served:
        self._thread.start()
        self.call(self.server.start(self._listener))
        return self

    def __exit__(self, *exc: object) -> None:
        self.call(self.server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self.path.unlink(missing_ok=True)

    def call(self, coroutine: object) -> None:
        assert asyncio.iscoroutine(coroutine)
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(10)
        client.connect(str(self.path))
        return client

    def ask(self, request: bytes) -> bytes:
        """Send the request, and hang up after it; return everything that comes back."""
        with self.connect() as client:
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            return read_all(client)

    def _status(self, peer: int) -> RowFigures:
        return self.figures.get(peer, RowFigures(None, 0, 0, 0))

    def _changed(self) -> Coroutine[None, None, None] | None:
        self.changes += 1
        return None if self.settled is None else self._settle(self.settled)

    async def _settle(self, settled: asyncio.Event) -> None:
        await settled.wait()

    def settle(self) -> None:
        """Let what the changes wait for have happened."""
        assert self.settled is not None
        self._loop.call_soon_threadsafe(self.settled.set)


def read_all(client: socket.socket) -> bytes:
    answer = b""
    while piece := client.recv(1 << 20):
        answer += piece
    return answer


def read_until_end(client: socket.socket) -> bytes:
    answer = b""
    while not answer.endswith(b"\n\n"):
        piece = client.recv(1 << 20)
        assert piece, "the server hung up"
        answer += piece
    return answer


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path / "run" / "wg.sock", new_loop=request.param) as server:
        yield server


# The socket itself


def test_the_socket_is_its_owners_alone_in_a_readable_directory(tmp_path: Path) -> None:
    path = tmp_path / "wireguard" / "wg.sock"
    umask = os.umask(0o027)
    try:
        with bind_socket(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    finally:
        assert os.umask(umask) == 0o027


def test_a_dead_process_socket_is_replaced_and_a_living_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "wg.sock"
    bind_socket(path).close()
    with bind_socket(path):
        with pytest.raises(SocketError, match="in use") as caught:
            bind_socket(path)
        assert caught.value.errno == errno.EADDRINUSE
        assert path.exists()


def test_a_living_one_that_is_busy_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "wg.sock"
    with socket.socket(socket.AF_UNIX) as busy, contextlib.ExitStack() as waiting:
        busy.bind(os.fspath(path))
        busy.listen(0)
        for _ in range(10):
            client = waiting.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            if client.connect_ex(os.fspath(path)):
                break
        with pytest.raises(SocketError, match="in use: another process runs this interface"):
            bind_socket(path)


def test_a_file_in_the_sockets_place_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "wg.sock"
    path.write_text("precious")
    with pytest.raises(SocketError, match="is no socket"):
        bind_socket(path)
    assert path.read_text() == "precious"


def test_a_socket_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    with pytest.raises(SocketError, match="control socket"):
        bind_socket(tmp_path / ("x" * 120))


# Raw clients


def test_one_connection_carries_many_operations(served: Served) -> None:
    with served.connect() as client:
        for number in range(1, 20):
            client.sendall(b"set=1\nfwmark=%d\n\n" % number)
            assert read_until_end(client) == OK
            client.sendall(b"get=1\n\n")
            assert read_until_end(client) == b"fwmark=%d\n" % number + OK
    assert served.changes == 19


def test_operations_sent_at_once_or_byte_by_byte_are_the_same(served: Served) -> None:
    request = b"get=1\n\nset=1\n\nset=1\nfwmark=7\n\nset=1\nno\n\nget=1\n\n"
    expected = OK + OK + OK + b"errno=-71\n\n" + b"fwmark=7\n" + OK
    assert served.ask(request) == expected
    served.device.fwmark = 0
    with served.connect() as client:
        for position in range(len(request)):
            client.send(request[position : position + 1])
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == expected
    assert served.changes == 6


@pytest.mark.parametrize(
    ("request_bytes", "answer"),
    [
        (b"set=1\nlisten_port=x\n\n", b"errno=-22\n\n"),
        (b"set=1\nlisten_port=%d\n\n" % TAKEN_PORT, b"errno=-98\n\n"),
        (b"set=1\nnonsense\n\n", b"errno=-71\n\n"),
        (b"set=1\nfwmark=" + b"1" * 70_000 + b"\n\n", b"errno=-5\n\n"),
        (b"get=1\nfwmark=1\n\n", b"errno=-22\n\n"),
        (b"get=2\n\n", b""),
        (b"\n", b""),
        (b"sit=1\n\nget=1\n\n", b""),
        (b"GET / HTTP/1.1\r\n\r\n", b""),
        (bytes(range(256)), b""),
    ],
)
def test_malformed_requests_have_their_errno_or_end_the_connection(
    served: Served, request_bytes: bytes, answer: bytes
) -> None:
    assert served.ask(request_bytes) == answer


def test_a_client_that_hangs_up_half_way_changes_nothing(served: Served) -> None:
    assert served.ask(b"set=1\nfwmark=5\nprivate_key=" + b"01" * 32 + b"\n") == b""
    assert served.ask(b"set=1\nfwmark=5") == b""
    assert (served.device.fwmark, served.device.private_key, served.changes) == (0, b"", 0)


def test_a_failed_set_is_a_change_too(served: Served) -> None:
    assert served.ask(b"set=1\nfwmark=5\nfwmark=x\n\n") == b"errno=-22\n\n"
    assert (served.device.fwmark, served.changes) == (5, 1)


def test_a_change_is_answered_when_it_is_over_and_what_comes_meanwhile_after_it(
    served: Served,
) -> None:
    served.settled = asyncio.Event()
    with served.connect() as client:
        client.sendall(b"set=1\nfwmark=7\n\nget=1\n\n")
        client.shutdown(socket.SHUT_WR)
        wait_for(lambda: served.changes, 10, "it is changed")
        assert b"fwmark=7" in served.ask(b"get=1\n\n"), "others are served"
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)
        client.settimeout(10)
        served.settle()
        assert read_all(client) == OK + b"fwmark=7\nerrno=0\n\n"


def test_silent_and_slow_clients_stop_nobody(served: Served) -> None:
    silent = [served.connect() for _ in range(10)]
    with served.connect() as slow:
        slow.sendall(b"set=1\nfwmark=")
        assert served.ask(b"get=1\n\n") == OK
        slow.sendall(b"9\n\n")
        assert read_until_end(slow) == OK
    for client in silent:
        client.close()


def fill(device: Device, peers: int) -> None:
    for number in range(peers):
        device.add_peer(number.to_bytes(32, "big"))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_a_client_that_does_not_read_costs_one_answer_at_most(served: Served) -> None:
    fill(served.device, 2000)
    size = len(served.ask(b"get=1\n\n"))
    requests = 200
    before = resident_bytes()
    with served.connect() as client:
        client.sendall(b"get=1\n\n" * requests)
        assert served.ask(b"set=1\n\n") == OK
        assert resident_bytes() - before < requests * size / 4, "all the answers are in memory"
        client.shutdown(socket.SHUT_WR)
        received = 0
        while piece := client.recv(1 << 20):
            received += len(piece)
    assert received == requests * size


def test_when_there_are_too_many_clients_the_longest_quiet_goes(tmp_path: Path) -> None:
    with Served(tmp_path / "wg.sock", Limits(connections=3)) as served:
        first, second, third = (served.connect() for _ in range(3))
        for client in (second, third, first):
            client.sendall(b"get=1\n\n")
            assert read_until_end(client) == OK
        with served.connect() as fourth:
            fourth.sendall(b"get=1\n\n")
            assert read_until_end(fourth) == OK
            assert second.recv(1) == b""
            for client in (third, first):
                client.sendall(b"get=1\n\n")
                assert read_until_end(client) == OK
        for client in (first, second, third):
            client.close()


def test_a_request_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    with Served(tmp_path / "wg.sock", Limits(request_bytes=1000)) as served:
        with served.connect() as client:
            client.sendall(b"set=1\n" + b"fwmark=1\n" * 200)
            assert read_all(client) == b"errno=-90\n\n"
        assert served.device.fwmark == 0
        assert served.server.held_bytes == 0


def test_unfinished_requests_are_bounded_together(tmp_path: Path) -> None:
    limits = Limits(request_bytes=1000, total_bytes=1500)
    with Served(tmp_path / "wg.sock", limits) as served:
        idle, quiet, busy = (served.connect() for _ in range(3))
        quiet.sendall(b"set=1\nfwmark=3\n" + b"fwmark=1\n" * 90)
        assert served.ask(b"get=1\n\n") == OK
        busy.sendall(b"set=1\n" + b"fwmark=2\n" * 90)
        assert quiet.recv(1) == b""
        busy.sendall(b"\n")
        assert read_until_end(busy) == OK
        assert (served.device.fwmark, served.server.held_bytes) == (2, 0)
        idle.sendall(b"get=1\n\n")  # longer quiet still, but it holds nothing
        assert read_until_end(idle).endswith(OK)
        for client in (idle, quiet, busy):
            client.close()


def test_stopping_hangs_up(tmp_path: Path) -> None:
    with Served(tmp_path / "wg.sock") as served:
        client = served.connect()
        client.sendall(b"get=1\n\n")
        assert read_until_end(client) == OK
    assert client.recv(1) == b""
    client.close()


# The real wg


@pytest.fixture
def gateway() -> Iterator[Served]:
    if os.geteuid() != 0 or shutil.which("wg") is None:
        pytest.skip("needs root and wireguard-tools: wg looks for sockets in /var/run/wireguard")
    with Served(socket_path(f"wgt{secrets.token_hex(4)}")) as server:
        yield server


def wg(served: Served, command: str, *arguments: str, stdin: str = "") -> str:
    """Run `wg COMMAND INTERFACE ...`; return its standard output and check it is content."""
    done = run_wg(served, command, *arguments, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def run_wg(
    served: Served, command: str, *arguments: str, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["wg", command, served.path.stem, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=20,
    )


def make_key(number: int) -> str:
    return keys.to_base64(keys.public_key_of(number.to_bytes(32, "big")))


PRIVATE = keys.to_base64(keys.clamp(bytes([7]) * 32))
PUBLIC = keys.to_base64(keys.public_key_of(bytes([7]) * 32))
PSK = keys.to_base64(bytes([9]) * 32)
A, B, C = make_key(1), make_key(2), make_key(3)
CONFIG = f"""
[Interface]
PrivateKey = {PRIVATE}
ListenPort = 51900
FwMark = 0xca6c

[Peer]
PublicKey = {A}
PresharedKey = {PSK}
Endpoint = 192.0.2.1:51820
AllowedIPs = 10.0.0.0/8, fd00::/64
PersistentKeepalive = 25

[Peer]
PublicKey = {B}
AllowedIPs = 10.1.0.0/16
"""


@pytest.mark.root
def test_wg_setconf_show_dump_and_showconf_agree(gateway: Served) -> None:
    wg(gateway, "setconf", "/dev/stdin", stdin=CONFIG)
    assert wg(gateway, "show", "dump").splitlines() == [
        "\t".join(line)
        for line in [
            [PRIVATE, PUBLIC, "51900", "0xca6c"],
            [A, PSK, "192.0.2.1:51820", "10.0.0.0/8,fd00::/64", "0", "0", "0", "25"],
            [B, "(none)", "(none)", "10.1.0.0/16", "0", "0", "0", "off"],
        ]
    ]
    first = wg(gateway, "showconf")
    wg(gateway, "setconf", "/dev/stdin", stdin=first)
    assert wg(gateway, "showconf") == first
    assert "PersistentKeepalive = 25" in first


@pytest.mark.root
def test_wg_show_tells_handshake_transfer_and_where_the_peer_is(gateway: Served) -> None:
    wg(gateway, "setconf", "/dev/stdin", stdin=CONFIG)
    entry = gateway.device.peers[keys.from_base64(A)]
    now = time.time_ns()
    live = parse_endpoint("[2001:db8::7]:7")
    gateway.figures[entry.peer] = RowFigures(live, now - 30_000_000_000, 2048, 5 << 20)
    shown = wg(gateway, "show")
    assert "endpoint: [2001:db8::7]:7" in shown
    assert "latest handshake: 3" in shown
    assert "transfer: 2.00 KiB received, 5.00 MiB sent" in shown
    assert f"public key: {PUBLIC}" in shown
    assert "listening port: 51900" in shown
    assert gateway.path.stem in subprocess.check_output(["wg", "show", "interfaces"], text=True)
    handshakes = wg(gateway, "show", "latest-handshakes").splitlines()
    assert handshakes[0] == f"{A}\t{(now - 30_000_000_000) // 1_000_000_000}"


@pytest.mark.root
def test_wg_set_changes_one_thing_at_a_time(gateway: Served, tmp_path: Path) -> None:
    private, psk = tmp_path / "private", tmp_path / "psk"
    private.write_text(PRIVATE)
    psk.write_text(PSK)
    device = gateway.device
    wg(gateway, "set", "private-key", str(private), "listen-port", "7000", "fwmark", "0x10")
    assert (device.listen_port, device.fwmark) == (7000, 16)
    assert keys.to_base64(device.private_key) == PRIVATE
    wg(gateway, "set", "listen-port", "0", "fwmark", "off", "private-key", "/dev/null")
    assert (device.listen_port, device.fwmark, device.private_key) == (40000, 0, b"")

    wg(gateway, "set", "peer", A, "endpoint", "[fe80::1%lo]:9", "persistent-keepalive", "5")
    wg(gateway, "set", "peer", A, "preshared-key", str(psk), "allowed-ips", "10.0.0.0/8,::/0")
    entry = device.peers[keys.from_base64(A)]
    assert (entry.keepalive, entry.endpoint) == (5, parse_endpoint("[fe80::1%lo]:9"))
    assert keys.to_base64(entry.preshared_key) == PSK
    assert wg(gateway, "show", "allowed-ips") == f"{A}\t10.0.0.0/8 ::/0\n"
    assert wg(gateway, "show", "endpoints") == f"{A}\t[fe80::1%lo]:9\n"
    wg(gateway, "set", "peer", A, "allowed-ips", "", "preshared-key", "/dev/null")
    assert wg(gateway, "show", "allowed-ips") == f"{A}\t(none)\n"
    assert wg(gateway, "show", "preshared-keys") == f"{A}\t(none)\n"
    wg(gateway, "set", "peer", A, "remove", "peer", B, "remove")
    assert device.peers == {}


@pytest.mark.root
def test_wg_set_moves_allowed_ips_between_peers(gateway: Served) -> None:
    wg(gateway, "set", "peer", A, "allowed-ips", "10.0.0.0/8,10.1.0.0/16")
    wg(gateway, "set", "peer", B, "allowed-ips", "10.0.0.0/8,10.9.9.9/32")
    shown = wg(gateway, "show", "allowed-ips").splitlines()
    assert shown == [f"{A}\t10.1.0.0/16", f"{B}\t10.0.0.0/8 10.9.9.9/32"]


@pytest.mark.root
def test_wg_set_adds_and_takes_single_allowed_ips_where_this_wg_can(gateway: Served) -> None:
    wg(gateway, "set", "peer", A, "allowed-ips", "10.0.0.0/8")
    done = run_wg(gateway, "set", "peer", A, "allowed-ips", "+10.1.0.0/16,-10.0.0.0/8")
    if done.returncode:
        pytest.skip(f"this wg knows no +/- before allowed IPs: {done.stderr.strip()}")
    assert wg(gateway, "show", "allowed-ips") == f"{A}\t10.1.0.0/16\n"


@pytest.mark.root
def test_wg_addconf_adds_and_syncconf_leaves_what_is_the_same_alone(gateway: Served) -> None:
    device = gateway.device
    wg(gateway, "setconf", "/dev/stdin", stdin=CONFIG)
    peer_ids = {key: entry.peer for key, entry in device.peers.items()}
    addition = f"[Peer]\nPublicKey = {C}\nAllowedIPs = 10.2.0.0/16\n"
    wg(gateway, "addconf", "/dev/stdin", stdin=addition)
    assert len(device.peers) == 3
    device.take_orders()

    without_endpoint = CONFIG.replace("Endpoint = 192.0.2.1:51820\n", "")
    wg(gateway, "syncconf", "/dev/stdin", stdin=without_endpoint + addition)
    assert device.take_orders() == []
    wg(gateway, "syncconf", "/dev/stdin", stdin=CONFIG)
    assert {key: entry.peer for key, entry in device.peers.items()} == peer_ids
    assert len(device.take_orders()) == 2  # C removed, A's endpoint


def configured(device: Device) -> object:
    return (
        (device.private_key, device.listen_port, device.fwmark),
        [
            (key, entry.preshared_key, entry.endpoint, entry.keepalive, [*entry.allowed_ips])
            for key, entry in device.peers.items()
        ],
    )


@pytest.mark.root
@pytest.mark.parametrize(
    "text",
    [
        CONFIG,
        CONFIG + f"[Peer]\nPublicKey={A}\nAllowedIPs=10.1.2.3/16,::1\n",  # once more
        CONFIG.upper().replace("PRIVATEKEY", "#").replace("PUBLICKEY", "#").replace("[PEER]", "#"),
        f"[Peer]\n public key = {A} # x\nEndpoint=[::ffff:192.0.2.1]:7\nPersistentKeepalive=oFf",
        "[Interface]\nFwMark=off\nListenPort=00080\n[interface]\nListenPort=9\n",
    ],
)
def test_a_file_means_the_same_to_us_and_to_wg_setconf(gateway: Served, text: str) -> None:
    done = run_wg(gateway, "setconf", "/dev/stdin", stdin=text)
    ours = Device(Sockets())
    try:
        config.apply(config.parse(text, "wg0.conf"), ours, parse_endpoint)
    except ConfigError:
        assert done.returncode != 0
    else:
        assert done.returncode == 0, done.stderr
        assert configured(ours) == configured(gateway.device)


@pytest.mark.root
def test_wg_prints_the_right_message_and_the_lines_before_stand(gateway: Served) -> None:
    taken = run_wg(gateway, "set", "fwmark", "5", "listen-port", str(TAKEN_PORT))
    assert (taken.returncode, taken.stderr) == (
        1,
        "Unable to modify interface: Address already in use\n",
    )
    full = Device(Sockets(), capacity=1)
    gateway.server.device = full
    done = run_wg(gateway, "set", "peer", A, "persistent-keepalive", "5", "peer", B)
    assert (done.returncode, done.stderr) == (
        1,
        "Unable to modify interface: No space left on device\n",
    )
    assert [entry.keepalive for entry in full.peers.values()] == [5]
    endpoint = run_wg(gateway, "set", "peer", A, "endpoint", "192.0.2.1:0")
    assert endpoint.stderr == "Unable to modify interface: Invalid argument\n"


@pytest.mark.root
def test_wg_refuses_a_bad_key_before_it_asks_us(gateway: Served) -> None:
    done = run_wg(gateway, "set", "peer", A[:-2] + "B=")
    assert done.returncode == 1
    assert "Key is not the correct length or format" in done.stderr
    assert gateway.changes == 0


@pytest.mark.root
def test_wg_ignores_ourselves_as_a_peer(gateway: Served) -> None:
    wg(gateway, "setconf", "/dev/stdin", stdin=CONFIG)
    wg(gateway, "set", "peer", PUBLIC, "allowed-ips", "10.7.0.0/16")
    assert PUBLIC not in wg(gateway, "show", "peers")
    private = keys.to_base64((1).to_bytes(32, "big"))
    wg(gateway, "set", "private-key", "/dev/stdin", stdin=private)
    assert wg(gateway, "show", "peers").split() == [B]


@pytest.mark.root
def test_wg_sets_and_shows_ten_thousand_peers(gateway: Served, tmp_path: Path) -> None:
    file = tmp_path / "big.conf"
    lines = []
    for number in range(10_000):
        high, low = divmod(number, 256)
        key = keys.to_base64((number + 1).to_bytes(32, "big"))
        networks = f"10.0.{high}.{low}/32, 10.{64 + high}.{low}.0/24, fd00:{high:x}:{low:x}::/48"
        lines.append(f"[Peer]\nPublicKey = {key}\nAllowedIPs = {networks}\n")
    file.write_text("".join(lines))
    start = time.monotonic()
    wg(gateway, "setconf", str(file))
    assert len(wg(gateway, "show", "dump").splitlines()) == 10_001
    assert time.monotonic() - start < 15
