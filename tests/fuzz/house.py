"""A whole gateway in this process: all roles on one fabric, stepped by hand.

```
wire (a UDP socket on loopback) <-> udp_reader, udp_writer
                                    admission, worker0
tun (a socket pair)             <-> tun_reader, tun_writer
```
Nothing it sends leaves the loopback device, wherever it is told to send.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from multiprocessing.connection import wait

from hostile import rawcrypto
from hostile.rawpeer import INITIATION, RawPeer, Session

from wgmp import udp
from wgmp.fabric import Fabric
from wgmp.fastpath import virtio
from wgmp.fastpath.interface import FastPath
from wgmp.offload import SOL_UDP, UDP_SEGMENT, Offloads
from wgmp.orders import (
    AddAllowedIP,
    Begin,
    EndpointOrder,
    Order,
    SetLink,
    SetPeer,
    SetPrivateKey,
)
from wgmp.protocol.outcome import DropReason
from wgmp.record import Record
from wgmp.ring import RingWriter
from wgmp.role import Devices
from wgmp.roles import build_role
from wgmp.topology import Shape, build
from wgmp.tun import TunQueue

LOOPBACK = bytes([127, 0, 0, 1])
# The inner addresses: a peer whose endpoint is known, one whose is not; nobody has another.
GATEWAY4 = bytes([10, 77, 0, 1])
KNOWN4, SILENT4 = bytes([10, 99, 0, 1]), bytes([10, 99, 0, 2])
KNOWN6, SILENT6 = bytes([0xFD, 99] + [0] * 13 + [1]), bytes([0xFD, 99] + [0] * 13 + [2])
KNOWN, SILENT = 1, 2

# Steps after which a gateway that is left alone has nothing more to do, by far.
_ENOUGH_STEPS = 200


class House:
    """A gateway and the raw peer `raw` that it knows, at `now`.

    `settle` lets the roles work; an exception that one of them lets out comes out there.
    """

    def __init__(self, fastpath: FastPath | None = None) -> None:
        self.now = 1000.0
        self.fabric = Fabric(build(Shape.COMPACT, 1), fastpath=fastpath)
        self.tun, self._role_tun = _pair()
        port, self._sockets = udp.open_sockets(0, 0, gro=True)
        for sock in self._sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        self.wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.wire.bind(("127.0.0.1", 0))
        self.wire.connect(("127.0.0.1", port))
        names = [row.name for row in self.fabric.topology.roles]
        devices = Devices(
            [TunQueue(self._role_tun.fileno(), virtio_header=True)],
            self._sockets,
            Offloads(tun_tcp=True, tun_udp=True, udp_segment=True, udp_gro=True),
        )
        contexts = {name: self.fabric.context(name, devices) for name in names}
        self.roles = {name: build_role(contexts[name]) for name in names}
        self.rings: dict[str, RingWriter] = {
            f"{name}>{consumer}": writer
            for name in names
            for consumer, writer in contexts[name].outputs.items()
        }
        self._configure()

    def _configure(self) -> None:
        private_key = rawcrypto.digest(b"the gateway")
        self.public_key = rawcrypto.public_of(private_key)
        self.raw = RawPeer(self.public_key, private=rawcrypto.digest(b"the known peer"))
        silent = RawPeer(self.public_key, private=rawcrypto.digest(b"the silent peer"))
        here = EndpointOrder(LOOPBACK, self.wire.getsockname()[1])
        for peer in (KNOWN, SILENT):
            self.fabric.peers.set_owner(peer, 0)
        self.obey(
            SetLink(True, 1420),
            SetPrivateKey(private_key),
            SetPeer(KNOWN, self.raw.public, bytes(32), 0, here),
            SetPeer(SILENT, silent.public, bytes(32), 0, None),
            AddAllowedIP(KNOWN4, 32, KNOWN),
            AddAllowedIP(KNOWN6, 128, KNOWN),
            AddAllowedIP(SILENT4, 32, SILENT),
            AddAllowedIP(SILENT6, 128, SILENT),
            Begin(),
        )

    def obey(self, *orders: Order) -> None:
        """Give all roles orders."""
        for order in orders:
            for role in self.roles.values():
                role.obey(order, self.now, [])

    def settle(self, seconds: float = 0.0) -> None:
        """Let time pass, and the roles work until they have nothing left to do."""
        self.now += seconds
        for _ in range(_ENOUGH_STEPS):
            for role in self.roles.values():
                role.readable |= bool(wait(role.descriptors(), 0))
            busy = [role.step(self.now) for role in self.roles.values()]
            if not any(busy):
                return
        raise AssertionError("the roles do not come to rest")

    def receive(self, datagram: bytes) -> None:
        """A datagram arrives from the network."""
        with contextlib.suppress(OSError):  # longer than UDP takes
            self.wire.send(datagram)
        self.settle()

    def receive_train(self, datagrams: bytes, length: int) -> None:
        """A train of datagrams of `length` bytes arrives, the last of them shorter."""
        segment = (SOL_UDP, UDP_SEGMENT, struct.pack("=H", length))
        with contextlib.suppress(OSError):  # more than 64, or longer than the path
            self.wire.sendmsg([datagrams], [segment])
        self.settle()

    def take(self, packet: bytes, virtio_header: bytes = virtio.PLAIN) -> None:
        """A packet arrives from the TUN."""
        self.tun.send(virtio_header + packet)
        self.settle()

    def sent(self) -> list[bytes]:
        """What was sent to the raw peer since the last call."""
        return list(_drained(self.wire))

    def written(self) -> list[bytes]:
        """The packets written to the TUN since the last call."""
        return [packet[virtio.SIZE :] for packet in _drained(self.tun)]

    def connect(self) -> Session:
        """Let the raw peer shake hands as the initiator, and confirm."""
        self.sent()
        self.settle(1.0)
        initiation = self.raw.initiation()
        self.receive(initiation.datagram)
        session = self.raw.finish(initiation, self.sent()[-1])
        self.receive(session.seal())
        return session

    def call(self) -> bytes:
        """Let the gateway begin a handshake with the raw peer; return its initiation."""
        self.sent()
        self.settle(600.0)  # no session lives as long, nor a handshake under way
        self.take(ipv4(KNOWN4, b""))
        return next(each for each in reversed(self.sent()) if each[0] == INITIATION)

    def publish(self, ring: str) -> Record | None:
        """Publish an empty record in a ring, for the caller to spoil; None when it is full."""
        writer = self.rings[ring]
        record = writer.reserve()
        if record is not None:
            record.begin(1)  # type: ignore[arg-type]
            writer.publish()
        return record

    def drops(self) -> dict[str, int]:
        """The drops of all roles, by reason."""
        counts = dict.fromkeys((reason.name.lower() for reason in DropReason), 0)
        for role in self.roles.values():
            for reason, count in role.counters.drops().items():
                counts[reason] += count
        return counts

    def close(self) -> None:
        """Close all sockets, doorbells and taps."""
        self.fabric.close()
        for sock in (self.tun, self._role_tun, self.wire, *self._sockets):
            sock.close()


def ipv4(destination: bytes, payload: bytes, source: bytes = GATEWAY4) -> bytes:
    """An IPv4 packet with UDP's protocol number; its checksum is not looked at."""
    length = (20 + len(payload)).to_bytes(2, "big")
    return b"\x45\0" + length + bytes(4) + b"\x40\x11\0\0" + source + destination + payload


def ipv6(destination: bytes, payload: bytes, source: bytes = KNOWN6) -> bytes:
    """An IPv6 packet with UDP's protocol number."""
    length = len(payload).to_bytes(2, "big")
    return b"\x60\0\0\0" + length + b"\x11\x40" + source + destination + payload


def _pair() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    for sock in pair:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return pair


def _drained(sock: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(BlockingIOError, ConnectionError):
        while True:
            yield sock.recv(1 << 17)
