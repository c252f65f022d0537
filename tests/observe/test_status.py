"""`wgmp status`: what a device says over UAPI is what is shown, in the words of `wg show`."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wgmp import uapi, uapi_server
from wgmp.addresses import format_prefix, parse_endpoint, parse_prefix
from wgmp.device import Device
from wgmp.errors import ControlError
from wgmp.keys import public_key_of, to_base64
from wgmp.observe.status import ask, parse
from wgmp.observe.status_text import StatusText
from wgmp.peertable import RowFigures

Answering = Callable[..., None]

NOW = 1_700_000_000
PRIVATE = b"\x40" + bytes(30) + b"\x40"


class Anything:
    """A world in which every port and mark can be had."""

    def open_port(self, port: int) -> int:
        """Grant the port."""
        return port or 51820

    def set_fwmark(self, mark: int) -> None:
        """Grant the mark."""


def answer(device: Device, figures: dict[int, RowFigures]) -> str:
    """Return what the device says, of its peers by number."""
    said = uapi.answer_get(device, lambda peer: figures[peer & 0xFFFFF])
    return said.decode()


def test_every_line_of_wg_show_is_there() -> None:
    device = Device(Anything())
    device.set_private_key(PRIVATE)
    device.set_listen_port(51820)
    device.set_fwmark(0xCA6C)
    busy, silent = (device.add_peer(bytes([number]) * 32) for number in (1, 2))
    assert busy is not None
    assert silent is not None
    device.set_preshared_key(busy, b"\x05" * 32)
    device.set_keepalive(busy, 25)
    for text in ("10.0.0.2/32", "fd00::/64"):
        device.add_allowed_ip(busy, parse_prefix(text))
    here = parse_endpoint("[2001:db8::1]:7")
    figures = {
        0: RowFigures(here, (NOW - 3661) * 10**9, 1536, 3 << 20),
        1: RowFigures(None, 0, 0, 0),
    }
    keys = [to_base64(bytes([number]) * 32) for number in (1, 2)]
    status = parse("wg0", answer(device, figures), {keys[0]: "office"}, hide_keys=True)
    assert StatusText(False, NOW).devices([status]).splitlines() == [
        "interface: wg0",
        f"  public key: {to_base64(public_key_of(PRIVATE))}",
        "  private key: (hidden)",
        "  listening port: 51820",
        "  fwmark: 0xca6c",
        "",
        f"peer: {keys[0]}",
        "  name: office",
        "  preshared key: (hidden)",
        "  endpoint: [2001:db8::1]:7",
        "  allowed ips: 10.0.0.2/32, fd00::/64",
        "  latest handshake: 1 hour, 1 minute, 1 second ago",
        "  transfer: 1.50 KiB received, 3.00 MiB sent",
        "  persistent keepalive: every 25 seconds",
        "",
        f"peer: {keys[1]}",
        "  allowed ips: (none)",
    ]


@pytest.mark.parametrize(
    ("then", "text"),
    [
        (NOW, "Now"),
        (NOW - 366 * 86_400, "1 year, 1 day ago"),
        (NOW + 1, "(System clock wound backward; connection problems may ensue.)"),
    ],
)
def test_the_last_handshake_is_told_in_words(then: int, text: str) -> None:
    device = Device(Anything())
    device.add_peer(b"\x01" * 32)
    said = answer(device, {0: RowFigures(None, then * 10**9, 0, 0)})
    shown = StatusText(False, NOW).devices([parse("wg0", said, {}, hide_keys=True)])
    assert f"  latest handshake: {text}" in shown.splitlines()


ENDPOINTS = st.sampled_from([None, *map(parse_endpoint, ("192.0.2.1:1", "[fe80::1%3]:65535"))])
BYTES = st.integers(0, 2**64 - 1)
PEERS = st.lists(
    st.tuples(
        st.builds(RowFigures, ENDPOINTS, st.integers(0, 2**62), BYTES, BYTES),
        st.integers(0, 65535),
        st.lists(st.integers(0, 32), max_size=3, unique=True),
    ),
    max_size=4,
)


@settings(deadline=None)
@given(PEERS)
def test_what_any_device_says_is_understood(
    peers: list[tuple[RowFigures, int, list[int]]],
) -> None:
    device = Device(Anything())
    expected = {}
    for number, (figures, keepalive, lengths) in enumerate(peers):
        entry = device.add_peer(bytes([1 + number]) * 32)
        assert entry is not None
        device.set_keepalive(entry, keepalive)
        for length in lengths:
            device.add_allowed_ip(entry, parse_prefix(f"{10 + number}.0.0.0/{length}"))
        expected[to_base64(entry.public_key)] = figures, entry
    said = answer(device, {number: peer[0] for number, peer in enumerate(peers)})
    status = parse("wg0", said, {}, hide_keys=False)
    assert {peer.public_key for peer in status.peers} == expected.keys()
    for peer in status.peers:
        figures, entry = expected[peer.public_key]
        assert (peer.rx_bytes, peer.tx_bytes) == (figures.rx_bytes, figures.tx_bytes)
        handshake_ns = peer.latest_handshake * 10**9 + peer.latest_handshake_ns
        assert handshake_ns == figures.last_handshake_ns
        assert peer.allowed_ips == [format_prefix(prefix) for prefix in entry.allowed_ips]
        assert peer.persistent_keepalive == entry.keepalive
        where = parse_endpoint(peer.endpoint) if peer.endpoint else None
        assert where == figures.endpoint
    handshakes = [(peer.latest_handshake, peer.latest_handshake_ns) for peer in status.peers]
    assert handshakes == sorted(handshakes, reverse=True)


def test_a_refusal_is_told() -> None:
    with pytest.raises(ControlError, match="the gateway on wg0 answers with errno -22"):
        parse("wg0", "errno=-22\n\n", {}, hide_keys=True)


@pytest.fixture
def answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    """Make wg0 a device that reads a request, says so much, piece by piece, and hangs up."""
    monkeypatch.setattr(uapi_server, "SOCKET_DIRECTORY", tmp_path)
    threads: list[threading.Thread] = []
    listener = socket.socket(socket.AF_UNIX)

    def answer(*pieces: bytes) -> None:
        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(100) == b"get=1\n\n"
                for piece in pieces:
                    connection.sendall(piece)
                    time.sleep(0.01)

        listener.bind(str(tmp_path / "wg0.sock"))
        listener.listen()
        threads.append(threading.Thread(target=serve))
        threads[0].start()

    yield answer
    listener.close()
    for thread in threads:
        thread.join(10)


def test_half_an_answer_is_not_shown_for_a_whole_one(answering: Answering) -> None:
    answering(b"listen_port=51820\npublic_key=")
    with pytest.raises(ControlError, match="the gateway on wg0 does not answer: it hung up"):
        ask("wg0", {}, hide_keys=True)


def test_an_answer_is_read_to_its_end_however_it_comes(answering: Answering) -> None:
    peers = b"".join(b"public_key=%064x\nrx_bytes=%d\n" % (n, n) for n in range(4000))
    whole = b"listen_port=51820\n" + peers + b"errno=0\n\n"
    answering(whole[:5], whole[5:300_000], whole[300_000:-1], whole[-1:])
    name = {to_base64(bytes(31) + b"\7"): "office"}
    device = ask("wg0", name, hide_keys=True)
    assert (device.interface, device.listen_port, len(device.peers)) == ("wg0", 51820, 4000)
    assert [(peer.rx_bytes, peer.name) for peer in device.peers[6:9]] == [
        (6, ""),
        (7, "office"),
        (8, ""),
    ]


def test_keys_are_shown_only_where_they_are_not_to_be_hidden() -> None:
    said = f"private_key={PRIVATE.hex()}\npublic_key={'01' * 32}\npreshared_key={'05' * 32}\n"
    for hide_keys, private, preshared in (
        (True, "(hidden)", "(hidden)"),
        (False, to_base64(PRIVATE), to_base64(b"\5" * 32)),
    ):
        device = parse("wg0", said, {}, hide_keys)
        assert (device.private_key, device.peers[0].preshared_key) == (private, preshared)
        assert device.public_key == to_base64(public_key_of(PRIVATE))


def test_a_device_without_anything_has_its_name_alone() -> None:
    assert StatusText(False, NOW).devices([parse("wg0", "errno=0\n", {}, True)]) == "interface: wg0"


def test_several_devices_are_apart_and_colours_are_those_of_wg() -> None:
    said = f"public_key={'01' * 32}\nallowed_ip=10.0.0.0/8\nrx_bytes=1\ntx_bytes={7 << 40}\n"
    devices = [parse(name, text, {}, True) for name, text in (("wg0", ""), ("wg1", said))]
    key = to_base64(b"\1" * 32)
    bold, green, yellow, cyan, reset = (f"\033[{n}m" for n in (1, 32, 33, 36, 0))
    assert StatusText(True, NOW).devices(devices).splitlines() == [
        f"{reset}{green}{bold}interface{reset}: {green}wg0{reset}",
        "",
        f"{reset}{green}{bold}interface{reset}: {green}wg1{reset}",
        "",
        f"{yellow}{bold}peer{reset}: {yellow}{key}{reset}",
        f"  {bold}allowed ips{reset}: 10.0.0.0{cyan}/{reset}8",
        f"  {bold}transfer{reset}: 1 {cyan}B{reset} received, 7.00 {cyan}TiB{reset} sent",
    ]
