"""Roles in this process, on real rings and tables, under a clock moved by hand.

A `Rig` is admission and one worker of a pipeline, without their neighbours: a test writes what
the readers would have written and reads what the writers would have sent. At the other end is
a raw peer that shares no code with the protocol core.

In turns, what needs no decision is done before the roles step, as in a gateway's loop. Leases are
by the machine's clock, where the rig's begins; when that one is moved they have ended.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field

from hostile import rawcrypto
from hostile.rawpeer import INITIATION, RESPONSE, TRANSPORT, RawPeer, Session, kind_of

from wgmp.events import AnyEvent
from wgmp.fabric import Fabric
from wgmp.fastpath import virtio
from wgmp.fastpath.interface import WorkerPart
from wgmp.interest import Interest
from wgmp.offload import Offloads
from wgmp.orders import AddAllowedIP, Begin, EndpointOrder, Order, SetPeer, SetPrivateKey, row_of
from wgmp.protocol.keypair import Keypair
from wgmp.protocol.outcome import Endpoint
from wgmp.protocol.peer import Peer
from wgmp.protocol.timers import Timer
from wgmp.record import Kind, pack_endpoint
from wgmp.role import Devices, Role
from wgmp.roles.admission import Admission
from wgmp.roles.worker import Worker
from wgmp.system import boottime
from wgmp.topology import Shape, build
from wgmp.tun import TunQueue

# Nobody reads or writes here but the tests.
DEVICES = Devices([TunQueue(-1, virtio_header=True)], [], Offloads())

# Whether a rig has the fast path's turns; and how long one waits for more, in seconds.
IN_TURNS = False
_PAUSE_S = 0.004

HERE = Endpoint(bytes([192, 0, 2, 2]), 40_000)
INNER = bytes([10, 99, 0, 1])
GATEWAY_INNER = bytes([10, 77, 0, 1])


def packet(source: bytes = GATEWAY_INNER, destination: bytes = INNER, length: int = 20) -> bytes:
    """An IPv4 packet of `length` bytes; its checksum is not looked at."""
    header = b"\x45\0" + length.to_bytes(2, "big") + bytes(8) + source + destination
    return header.ljust(length, b"\0")


@dataclass
class Rig:
    """Admission and worker 0, at `now`. Peers are made by `add_peer`."""

    now: float = field(default_factory=boottime)
    in_turns: bool = field(default_factory=lambda: IN_TURNS)
    orders: list[Order] = field(default_factory=list)
    fabric: Fabric = field(default_factory=lambda: Fabric(build(Shape.PIPELINE, 1)))

    def __post_init__(self) -> None:
        # A gateway's process ends with its descriptors; this one makes a hundred gateways.
        for each in (*self.fabric.doorbells.values(), self.fabric.taps):
            weakref.finalize(self, each.close)
        self.private_key = rawcrypto.digest(b"the gateway")
        self.admission = Admission(self.fabric.context("admission", DEVICES))
        self.worker = Worker(self.fabric.context("worker0", DEVICES))
        self._from_udp = self.fabric.context("udp_reader", DEVICES).outputs
        self._producers = {"udp_reader": self._from_udp}
        self._to_udp = self.fabric.context("udp_writer", DEVICES).inputs
        self._to_tun = self.fabric.context("tun_writer", DEVICES).inputs
        self.events: list[AnyEvent] = []
        for role in self.roles:
            role.emit = self.events.append
        self._interest, self._turned = Interest(), self.now
        self.raw_peers: dict[int, RawPeer] = {}
        self.obey(SetPrivateKey(self.private_key), Begin())
        self._begin_turns()

    def _begin_turns(self) -> None:
        bell, parts = (
            self.fabric.doorbells["worker0"],
            [(role.part, role.inputs) for role in self.roles],
        )
        assert self.worker.tap is not None
        self._turns = self.fabric.fastpath.turns(self._interest, bell, parts, self.worker.tap.word)

    @property
    def roles(self) -> list[Role]:
        """Both roles."""
        return [self.admission, self.worker]

    def obey(self, *orders: Order) -> None:
        """Give both roles orders; all that were ever given are in `orders`."""
        self.orders += orders
        for order in orders:
            for role in self.roles:
                role.obey(order, self.now, [])

    def replace_worker(self, orderly: bool = False, deaths: int = 0) -> None:
        """Let the worker be gone and a successor have its place, told all that it was told.

        `orderly`: the worker ended in order; otherwise it was killed. `deaths`: how many in a
        row died young.
        """
        self.worker = Worker(self.fabric.context("worker0", DEVICES))
        told = [order for order in self.orders if not isinstance(order, Begin)]
        for order in (*told, Begin(orderly, deaths)):
            self.worker.obey(order, self.now, [])
        self._begin_turns()

    def add_peer(
        self, peer: int = 1, endpoint: Endpoint | None = None, keepalive: int = 0
    ) -> RawPeer:
        """Make a peer with the inner address INNER, known by nothing but its key."""
        raw = RawPeer(rawcrypto.public_of(self.private_key))
        self.raw_peers[peer] = raw
        self.fabric.peers.set_owner(peer, 0)
        order = None if endpoint is None else EndpointOrder(endpoint.address, endpoint.port)
        self.obey(
            SetPeer(peer, raw.public, bytes(32), keepalive, order), AddAllowedIP(INNER, 32, peer)
        )
        return raw

    def step(self, seconds: float = 0.0) -> None:
        """Let time pass, and the roles work until they have nothing left to do."""
        self.now += seconds
        while True:
            if self.in_turns:
                self.turn()
            if not (self.admission.step(self.now) or self.worker.step(self.now)):
                break

    def turn(self) -> None:
        """Let be done what needs no decision."""
        self.carry()
        self.worker.settle(self.now)

    def carry(self) -> None:
        """Let it be done, and the worker hear nothing of it yet."""
        if self.now != self._turned:
            assert isinstance(self.worker.part, WorkerPart)
            self.worker.part.leases.clear()
            self._turned = self.now
        self._turns.wait(True, boottime() + _PAUSE_S, False)

    def wait(self, until: float) -> list[tuple[int, int]]:
        """Turn until there is something for Python; return the descriptors that are ready."""
        events = self._turns.wait(False, until, False)
        self.worker.settle(self.now)
        return events

    def watch(self, *descriptors: int) -> None:
        """Let these descriptors wake the process, and no others."""
        self._interest.read(descriptors)

    def asleep(self) -> bool:
        """Whether the process has declared itself asleep."""
        bell = self.fabric.doorbells["worker0"]
        return bool(bell.segment.words[bell.word])

    def timers(self, peer: int = 1) -> dict[Timer, float]:
        """When which of the peer's timers is due."""
        return dict(self._peer(peer)._timers._deadlines)

    def deliver(self, datagram: bytes, source: Endpoint = HERE) -> None:
        """A datagram arrives, as udp_reader hands it on."""
        self.queue(datagram, source)
        self.step()

    def queue(self, datagram: bytes, source: Endpoint = HERE, flags: int = 0) -> None:
        """A datagram arrives, and nobody looks at it yet."""
        kind = kind_of(datagram)
        handshake = kind in (INITIATION, RESPONSE)
        ring = self._from_udp["admission" if handshake else "worker0"]
        record = ring.reserve()
        assert record is not None
        if handshake:
            record.begin(Kind.ADDRESSED_MESSAGES)
            record.append(pack_endpoint(source) + datagram)
        else:
            data = kind == TRANSPORT
            record.begin(Kind.DATAGRAMS if data else Kind.HANDSHAKE_MESSAGES, flags=flags)
            record.set_endpoint(source)
            record.append(datagram)
        ring.publish()

    def send(self, inner: bytes, peer: int = 1) -> None:
        """A packet for a peer arrives, as tun_reader hands it on."""
        self.publish("tun_reader", Kind.PACKETS, [virtio.PLAIN + inner], None, peer=peer)
        self.step()

    def publish(
        self,
        producer: str,
        kind: Kind,
        packets: list[bytes],
        endpoint: Endpoint | None,
        to: str = "worker0",
        peer: int = 1,
    ) -> bool:
        """Let a role have published any record, of which nobody has taken notice yet.

        Returns whether there was room for it.
        """
        if producer not in self._producers:
            self._producers[producer] = self.fabric.context(producer, DEVICES).outputs
        ring = self._producers[producer][to]
        record = ring.reserve()
        if record is None:
            return False
        record.begin(Kind.PACKETS, peer)
        record.kind = kind
        if endpoint is not None:
            record.set_endpoint(endpoint)
        for each in packets:
            record.append(each)
        ring.publish()
        return True

    def sent(self) -> list[bytes]:
        """What was sent to the network since the last call."""
        return [datagram for datagram, _ in self._sent()]

    def sent_to(self) -> list[Endpoint | None]:
        """Where what was sent since the last call went."""
        return [endpoint for _, endpoint in self._sent()]

    def _sent(self) -> Iterator[tuple[bytes, Endpoint | None]]:
        for ring in self._to_udp.values():
            while (record := ring.peek()) is not None:
                yield from ((bytes(each), record.endpoint()) for each in record.packets())
                ring.release()

    def written(self) -> list[bytes]:
        """What was written to the tunnel since the last call."""
        packets: list[bytes] = []
        for ring in self._to_tun.values():
            while (record := ring.peek()) is not None:
                packets += [bytes(packet[virtio.SIZE :]) for packet in record.packets()]
                ring.release()
        return packets

    def connect(self, raw: RawPeer) -> Session:
        """Let the raw peer shake hands as the initiator and confirm."""
        initiation = raw.initiation()
        self.deliver(initiation.datagram)
        (response,) = self.sent()
        session = raw.finish(initiation, response)
        self.deliver(session.seal())
        return session

    def call(self, raw: RawPeer) -> Session:
        """Let the gateway shake hands as the initiator, for a packet that it sends."""
        self.send(packet())
        (initiation,) = self.sent()
        response, session = raw.answer(initiation)
        self.deliver(response)
        (datagram,) = self.sent()
        assert session.unseal(datagram)
        return session

    def keypair(self, session: Session, peer: int = 1) -> Keypair:
        """The worker's end of a session."""
        found = self._peer(peer).keypair(session.remote)
        assert found is not None
        return found

    def forget_sessions(self, peer: int = 1) -> None:
        """Let the worker have no sessions with a peer any more."""
        self._peer(peer).keypairs.clear()

    def _peer(self, peer: int) -> Peer:
        tenant = self.worker.configuration.get(peer, self.now)
        assert tenant is not None
        return tenant.peer

    def drops(self) -> dict[str, int]:
        """The drops of both roles, by reason."""
        counts: dict[str, int] = {}
        for role in self.roles:
            for reason, count in role.counters.drops().items():
                counts[reason] = counts.get(reason, 0) + count
        return counts

    def row_endpoint(self, peer: int = 1) -> Endpoint | None:
        """Where the shared table says the peer is."""
        assert row_of(peer) == peer
        return self.fabric.peers.figures(peer).endpoint
