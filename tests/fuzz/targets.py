"""The targets: what is fed with bytes of any content, and must not raise.

| target | what the bytes are |
|---|---|
| initiation, response, cookie_reply, transport | that message: raw, and as its sender could |
| tun | a packet from the TUN |
| ring | a spoiled record in any ring |
| capture | the same while somebody captures, or spoiled copies |
| uapi | the lines of a set operation |
| config | a configuration file |
| settings | the agent's settings file, as TOML and as JSON |
| netlink | a message from the kernel |

Each target is `target(data)`; the messages go through a gateway whole, see `house`. A gateway
lives for many calls, so that its state gets deep, and is replaced before it gets too old.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from functools import wraps

from hostile.rawpeer import COOKIE_REPLY, INITIATION, RESPONSE, TRANSPORT, Session, with_macs

from wgmp import config, netlink, uapi
from wgmp.agent import settings_file
from wgmp.capture import comment_of
from wgmp.device import Device
from wgmp.errors import ConfigError, WgmpError
from wgmp.fastpath import virtio
from wgmp.fastpath.virtio import VirtioHeader
from wgmp.orders import decode_orders, encode_orders
from wgmp.peertable import RowFigures
from wgmp.protocol.outcome import Endpoint
from wgmp.record import LENGTHS_OFFSET
from wgmp.shm import PAGE_BYTES
from wgmp.tap import INNER, NOBODY, OUTER
from wgmp.taphost import CaptureStarted
from wgmp.tapreader import TapReader

from .house import GATEWAY4, KNOWN4, KNOWN6, LOOPBACK, SILENT4, SILENT6, House, ipv4, ipv6

Target = Callable[[bytes], None]

# Seconds that pass before what is fed, chosen by the input.
_PAUSES = (0.0, 0.0, 0.0, 0.02, 1.0, 5.4, 16.0, 130.0, 600.0)
_CALLS_PER_HOUSE = 2000
_DESTINATIONS = (KNOWN4, SILENT4, bytes([10, 99, 0, 9]), bytes([224, 0, 0, 1]))
_DESTINATIONS6 = (KNOWN6, SILENT6, bytes([0xFD] + [9] * 15), bytes([0xFF, 2] + [0] * 13 + [1]))


class _Lodging:
    """The gateway of one target, and its session."""

    def __init__(self) -> None:
        self._house: House | None = None
        self._calls = 0
        self._session: Session | None = None
        self._connected_at = 0.0

    def house(self) -> House:
        """A gateway that is not too old."""
        if self._house is None or self._calls >= _CALLS_PER_HOUSE:
            if self._house is not None:
                self._house.close()
            self._house, self._calls, self._session = House(), 0, None
        self._calls += 1
        return self._house

    def session(self, house: House) -> Session:
        """A session that lives."""
        if self._session is None or house.now - self._connected_at > 100:
            self._session = house.connect()
            self._connected_at = house.now
        return self._session


def _in_a_house(body: Callable[[House, _Lodging, int, bytes], None]) -> Target:
    """Make a target of `body(house, lodging, mode, data)`: two bytes choose pause and mode."""
    lodging = _Lodging()

    @wraps(body)
    def target(data: bytes) -> None:
        if len(data) < 2:
            return
        house = lodging.house()
        house.settle(_PAUSES[data[0] % len(_PAUSES)])
        body(house, lodging, data[1], data[2:])
        house.sent()
        house.written()

    return target


@_in_a_house
def initiation(house: House, lodging: _Lodging, mode: int, data: bytes) -> None:
    """An initiation: raw; with a valid mac1; authentic, with any timestamp."""
    match mode % 3:
        case 0:
            house.receive(struct.pack("<I", INITIATION) + data)
        case 1:
            head = struct.pack("<I", INITIATION) + data[:112].ljust(112, b"\0")
            house.receive(with_macs(head, house.public_key, data[112:128]))
        case _:
            house.receive(house.raw.initiation(timestamp=data[:12].ljust(12, b"\0")).datagram)


@_in_a_house
def response(house: House, lodging: _Lodging, mode: int, data: bytes) -> None:
    """A response: raw; to a true initiation with a valid mac1; the true one, altered."""
    begun = house.call()
    match mode % 3:
        case 0:
            house.receive(struct.pack("<I", RESPONSE) + data)
        case 1:
            head = struct.pack("<I4s4s", RESPONSE, data[:4], begun[4:8])
            head += data[4:52].ljust(48, b"\0")
            house.receive(with_macs(head, house.public_key))
        case _:
            answer, _ = house.raw.answer(begun)
            house.receive(with_macs(_altered(answer[:-32], data), house.public_key))


@_in_a_house
def cookie_reply(house: House, lodging: _Lodging, mode: int, data: bytes) -> None:
    """A cookie reply: raw; to a true initiation; the true one, altered."""
    begun = house.call()
    match mode % 3:
        case 0:
            house.receive(struct.pack("<I", COOKIE_REPLY) + data)
        case 1:
            head = struct.pack("<I4s", COOKIE_REPLY, begun[4:8])
            house.receive(head + data[:56].ljust(56, b"\0"))
        case _:
            true = house.raw.cookie_reply(begun, data[:16].ljust(16, b"\0"))
            house.receive(_altered(true, data[16:]))
    house.settle(6.0)  # the next initiation uses the cookie, if it was one


@_in_a_house
def transport(house: House, lodging: _Lodging, mode: int, data: bytes) -> None:
    """Transport data: raw; of a live session; authentic, with any counter or packet; trains."""
    session = lodging.session(house)
    match mode % 6:
        case 0:
            house.receive(struct.pack("<I", TRANSPORT) + data)
        case 1:
            house.receive(struct.pack("<II", TRANSPORT, session.remote) + data)
        case 2:
            counter = int.from_bytes(data[:8], "little")
            house.receive(session.seal(data[8:], counter))
        case 3:
            datagrams = [session.seal(data) for _ in range(mode >> 3)]
            house.receive_train(b"".join(datagrams), len(session.seal(data)))
        case 4:
            datagram = struct.pack("<II", TRANSPORT, session.remote) + data
            house.receive_train(datagram * (1 + mode // 6), max(1, len(datagram) - mode % 5))
        case _:
            house.receive(session.seal(data))


@_in_a_house
def tun(house: House, lodging: _Lodging, mode: int, data: bytes) -> None:
    """A packet: raw; with an IPv4 or IPv6 header to one of several destinations.

    Before it a plain virtio header, one of a super-packet, or any.
    """
    if mode & 8:
        lodging.session(house)
    header, rest = data[: virtio.SIZE].ljust(virtio.SIZE, b"\0"), data[virtio.SIZE :]
    if mode >> 6 == 0:
        header = virtio.PLAIN
    elif mode >> 6 == 1:
        kind = virtio.GSO_TCPV4 if mode & 1 else virtio.GSO_TCPV6
        header = bytes([virtio.NEEDS_CSUM, kind]) + header[2:]
    match mode & 3:
        case 0:
            house.take(rest, header)
        case 1:
            house.take(ipv4(_DESTINATIONS[mode >> 4 & 3], rest, KNOWN4), header)
        case _:
            house.take(ipv6(_DESTINATIONS6[mode >> 4 & 3], rest), header)


@_in_a_house
def ring(house: House, lodging: _Lodging, mode: int, data: bytes) -> None:
    """A spoiled record: the bytes are written over it in pieces of offset, length and content."""
    names = list(house.rings)
    record = house.publish(names[mode % len(names)])
    if record is not None:
        slot = record._slot
        for offset, content in _pieces(data):
            at = offset % (len(slot) - len(content))
            slot[at : at + len(content)] = content
    house.settle()


@_in_a_house
def capture(house: House, lodging: _Lodging, mode: int, data: bytes) -> None:
    """The same while somebody captures; with the first bit, the copies are spoiled instead."""
    taps = house.fabric.taps
    started = CaptureStarted(51820, list(taps.rings), {})
    reader = TapReader(started, [os.dup(each) for each in taps.start(INNER | OUTER, NOBODY)])
    if mode & 1:
        session = lodging.session(house)
        house.receive(session.seal(ipv4(GATEWAY4, b"in", KNOWN4)))
        for segment in taps.rings.values():
            for offset, content in _pieces(data):
                at = PAGE_BYTES + offset % 6000
                segment.bytes[at : at + len(content)] = content
    else:
        ring.__wrapped__(house, lodging, mode >> 1, data)  # type: ignore[attr-defined]
    for captured in reader.poll(everything=True):
        comment_of(captured, {})
    taps.stop()


def uapi_set(data: bytes) -> None:
    """The lines of a set operation; what the device then says is a whole answer."""
    device = Device(_Outside(), capacity=64)
    answer = uapi.answer_set(device, data)
    assert answer.startswith(b"errno=")
    told = uapi.answer_get(device, lambda peer: RowFigures(None, 0, 0, 0))
    assert told.endswith(b"errno=0\n\n")
    _travel(device)


def config_file(data: bytes) -> None:
    """A configuration file; what it says is a device, or a mistake with its place."""
    device = Device(_Outside(), capacity=64)
    with contextlib.suppress(WgmpError):
        parsed = config.parse(data.decode("utf-8", "replace"), "fuzz.conf")
        config.apply(parsed, device, lambda name: Endpoint(LOOPBACK, 1))
        config.notices(parsed)
    _travel(device)


def settings(data: bytes) -> None:
    """A settings file; what it says is read, or a mistake with its place."""
    text = data[1:].decode("utf-8", "replace")
    with contextlib.suppress(ConfigError):
        settings_file.parse(text, "fuzz.json" if data[:1] == b"{" else "fuzz.toml")


def netlink_message(data: bytes) -> None:
    """A message from the kernel."""
    list(netlink.parse(data))


TARGETS: dict[str, Target] = {
    "initiation": initiation,
    "response": response,
    "cookie_reply": cookie_reply,
    "transport": transport,
    "tun": tun,
    "ring": ring,
    "capture": capture,
    "uapi": uapi_set,
    "config": config_file,
    "settings": settings,
    "netlink": netlink_message,
}


def _piece(offset: int, words: tuple[int, ...]) -> bytes:
    content = struct.pack(f"<{len(words)}I", *words)
    return struct.pack("<HB", offset, len(content)) + content


# A super-packet of segments of 1000 bytes: its virtio header, and a TCP header of 20 bytes.
_SUPER = VirtioHeader(1, 1, 40, 1000, 20, 16).pack()
_TCP = struct.pack(">HHIIBBHHH", 1, 2, 3, 4, 0x50, 0x10, 100, 0, 0)
_KEY_HEX = b"ab" * 32
SEEDS: dict[str, list[bytes]] = {
    "initiation": [bytes([0, mode]) + bytes(140) for mode in range(3)],
    "response": [bytes([0, mode]) + bytes(88) for mode in range(3)],
    "cookie_reply": [bytes([0, mode]) + bytes(60) for mode in range(3)],
    "transport": [bytes([0, mode]) + ipv4(GATEWAY4, b"payload", KNOWN4) for mode in range(99)],
    "tun": [
        bytes([0, mode]) + _SUPER + tcp + bytes(3000)
        for mode in range(0, 256, 8)
        for tcp in (bytes([mode % 4]), _TCP)
    ],
    "ring": [
        bytes([0, mode]) + _piece(0, (kind, 1, length, 0)) + _piece(LENGTHS_OFFSET, (length,))
        for mode in range(9)
        for kind in range(5)
        for length in (1, 9, 32, 148, 66_000)
    ],
    "capture": [
        bytes([0, mode]) + _piece(0, (kind, 1, length, 0)) + _piece(LENGTHS_OFFSET, (length,))
        for mode in range(18)
        for kind in range(5)
        for length in (1, 9, 148, 66_000)
    ],
    "uapi": [
        b"private_key=" + _KEY_HEX + b"\nlisten_port=0\nfwmark=0\nreplace_peers=true\npublic_key="
        b"%s\nupdate_only=true\nremove=true\n" % _KEY_HEX,
        b"public_key=%s\npreshared_key=%s\nendpoint=[fe80::1%%1]:51820\nprotocol_version=1\n"
        b"persistent_keepalive_interval=25\nreplace_allowed_ips=true\nallowed_ip=10.0.0.0/8\n"
        b"allowed_ip=-fd00::/64\n" % (_KEY_HEX, _KEY_HEX),
    ],
    "config": [
        b"[Interface]\nPrivateKey = qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqo=\nMTU = 1420\n"
        b"ListenPort = 51820\nFwMark = 0x1\nAddress = 10.0.0.1/24, fd00::1/64\nDNS = 1.1.1.1\n"
        b"Table = off\nPostUp = true\nSaveConfig = false\n[Peer] # comment\n"
        b"PublicKey = u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7s=\n"
        b"PresharedKey = u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7s=\n"
        b"Endpoint = [::1]:51820\nAllowedIPs = 0.0.0.0/0, ::/0\nPersistentKeepalive = off\n"
    ],
    "settings": [
        b"t[agent]\nrun_hooks = true\nendpoint_patience_secs = 20\n[network.home]\n"
        b'interface = "wg0"\nlisten_port = 51820\nmtu = 1420\nfwmark = 0x10\ntable = "auto"\n'
        b'addresses = ["10.0.0.1/24", "fd00::1/64"]\ndns = ["9.9.9.9"]\npre_up = ["true"]\n'
        b'[[network.home.peers]]\nname = "hub"\nallowed_ips = ["10.0.0.2/32"]\n'
        b'public_key = "u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7s="\n'
        b'endpoint = "vpn.example.org:51820"\npersistent_keepalive_secs = 25\n',
        b'{{"agent": {"run_hooks": true}, "network": {"home": {"interface": "wg0", "mtu": 1420,'
        b' "peers": [{"public_key": "u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7s="}]}}}',
    ],
    "netlink": [
        struct.pack("=IHHII", 40, 16, 0, 0, 0)
        + struct.pack("=BxHiII", 0, 0, 7, 1, 0)
        + struct.pack("=HHI", 8, 4, 1420)
    ],
}


class _Outside:
    """A world in which every port and mark can be had."""

    def open_port(self, port: int) -> int:
        """Grant the port."""
        return port or 51820

    def set_fwmark(self, mark: int) -> None:
        """Grant the mark."""


def _travel(device: Device) -> None:
    """What the device has to say arrives as it was said."""
    orders = device.take_orders()
    arrived = [order for message in encode_orders(orders) for order in decode_orders(message)]
    assert arrived == orders


def _altered(message: bytes, data: bytes) -> bytes:
    """The message with bytes changed: each piece of data is an offset and what to add there."""
    altered = bytearray(message)
    for at, change in zip(data[::2], data[1::2], strict=False):
        altered[at % len(altered)] ^= change
    return bytes(altered)


def _pieces(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 3 <= len(data):
        offset, length = struct.unpack_from("<HB", data, at)
        yield offset, data[at + 3 : at + 3 + length]
        at += 3 + length
