"""Workers on records alone: real worker processes on real rings, without TUN and sockets.

```
this process -- PACKETS --> worker[k] -- DATAGRAMS --> this process       (out: seal)
this process -- DATAGRAMS --> worker[k] -- PACKETS --> this process       (in: open)
```

This process plays the readers, the writers and, for each worker, the peer at the other end: it
answers the worker's handshake. Out, the slots of a ring are filled once and published again and
again. In, every datagram can be opened only once: a ring is filled while the workers are stopped,
and only the time they then take to empty it counts.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from wgmp import keys
from wgmp.child import Child, spawn
from wgmp.counters import Counter
from wgmp.errors import CommandError
from wgmp.fabric import Fabric
from wgmp.netns import wait_for
from wgmp.orders import (
    AddAllowedIP,
    Begin,
    EndpointOrder,
    Order,
    SetLink,
    SetPeer,
    SetPrivateKey,
    encode_orders,
)
from wgmp.protocol import noise
from wgmp.protocol.keypair import Keypair
from wgmp.protocol.noise import (
    CompletedInitiation,
    Identity,
    OpenedInitiation,
    SessionKeys,
)
from wgmp.protocol.outcome import DropReason, Endpoint
from wgmp.record import SLOT_BYTES, Kind, Record
from wgmp.ring import Doorbell, RingReader, RingView, RingWriter
from wgmp.shm import Segment
from wgmp.topology import Shape, build

from .fastpath import MTU, TRAIN, fill, flow, no_devices
from .figures import Section

NOTE = """\
Worker processes on their rings, fed and drained by the benchmark's own process; no TUN and no
sockets. Out: super-packets of 60 kB segmented and sealed. In: the datagrams of such a one opened
and coalesced. GB is 1e9
bytes of inner packets, of all workers together. The feeding process needs a little of a core, which
the workers do not have when there are as many of them as cores."""

_HERE = Endpoint(bytes([192, 0, 2, 1]), 51820)
_GATEWAY = bytes([10, 77, 0, 1])
_LIMIT_S = 15.0
_PAUSE_S = 0.0005
# Records opened at one go: the rings are deeper than a gateway's, to make it worth timing.
_BATCH = 256
# Records that wait to be sealed: so few that what comes of them always finds room.
_WINDOW = 32


def run(repeats: int, seconds: float, tell: Callable[[str], None]) -> Section:
    """Measure with 1, 2, 4, ... workers up to the cores; return the table.

    `tell` is given a line per measurement. What fails is named in the section's failures.
    """
    counts = list(worker_counts(len(os.sched_getaffinity(0))))
    names = {count: f"{count} worker{'s' if count > 1 else ''}" for count in counts}
    ratios = [(names[count], names[1]) for count in counts[1:]]
    section = Section("Workers, records in, records out", NOTE, list(names.values()), ratios)
    for repeat in range(repeats):
        for count, name in names.items():
            for what, measure in (("out: seal", _out), ("in: open", _in)):
                where = f"{repeat + 1}: {what}: {name}"
                try:
                    with _workers(count) as lanes:
                        rate = measure(lanes, seconds)
                except CommandError as error:
                    section.failures.append(f"{where}: {error}")
                    tell(f"{where}: FAILED: {error}")
                    continue
                section.add(repeat, name, what, "GB/s", rate)
                tell(f"{where}: {rate:.3g} GB/s")
    return section


def worker_counts(cores: int) -> Iterator[int]:
    """Yield 1, 2, 4, ... below the number of cores, and that number."""
    count = 1
    while count < cores:
        yield count
        count *= 2
    yield cores


class _Inlet:
    """The writing end of a ring into a worker, and how much of it waits."""

    def __init__(self, segment: Segment, bell: Doorbell) -> None:
        self._writer = RingWriter(segment, bell)
        self._view = RingView(segment)

    def waiting(self) -> int:
        """Return how many records the worker has not released yet."""
        return self._view.figures()["depth"]

    def reserve(self) -> Record:
        """Return a free slot. Nobody here asks for more than the ring has."""
        record = self._writer.reserve()
        assert record is not None
        return record

    def publish(self) -> None:
        """Hand the record on."""
        self._writer.publish()


class _Lane:
    """One worker, its rings, and the peer at its other end with its session."""

    def __init__(self, number: int, fabric: Fabric) -> None:
        self.name = name = f"worker{number}"
        self.peer = number + 1
        self.counters = fabric.counters[name]
        bell = fabric.doorbells[fabric.topology.process_of(name)]
        rings = fabric.rings
        self._packets_in = _Inlet(rings[f"tun_reader>{name}"], bell)
        self._datagrams_in = _Inlet(rings[f"udp_reader>{name}"], bell)
        self._handshakes_in = _Inlet(rings[f"admission>{name}"], bell)
        self._datagrams_out = RingReader(rings[f"{name}>udp_writer"])
        self._packets_out = RingReader(rings[f"{name}>tun_writer"])
        self._identity = Identity(keys.generate_private_key())
        self._inner = bytes([10, 99, 0, self.peer])
        self.process = 0

    def orders(self) -> list[Order]:
        """Return what makes the peer known to a worker."""
        endpoint = EndpointOrder(_HERE.address, _HERE.port)
        return [
            SetPeer(self.peer, self._identity.public_key, bytes(32), 0, endpoint),
            AddAllowedIP(self._inner, 32, self.peer),
        ]

    def connect(self, gateway: bytes) -> None:
        """Answer the handshake that the worker begins for a packet. `gateway`: its public key."""
        self._feed_packets(1)
        wait_for(self._datagrams_out.waiting, _LIMIT_S, f"{self.name} begins a handshake")
        initiation = self._datagrams_out.peek()
        assert initiation is not None
        response, keys_of_session = self._answer(gateway, bytes(initiation.packets()[0]))
        self._session = Keypair(keys_of_session, time.monotonic())
        self.drain()
        record = self._handshakes_in.reserve()
        record.begin(Kind.HANDSHAKE_MESSAGES)
        record.set_endpoint(_HERE)
        record.append(response)
        self._handshakes_in.publish()
        wait_for(self._datagrams_out.waiting, _LIMIT_S, f"{self.name} has a session")
        self.drain()

    def _answer(self, gateway: bytes, initiation: bytes) -> tuple[bytes, SessionKeys]:
        """Return the response to an initiation, and the peer's end of the session.

        It has no MACs: admission looks at those, and there is none here.
        """
        opened = noise.open_static(self._identity, initiation)
        shared = self._identity.static_static(gateway)
        assert isinstance(opened, OpenedInitiation)
        assert shared is not None
        completed = noise.complete_initiation(opened, shared)
        assert isinstance(completed, CompletedInitiation)
        answer = noise.create_response(completed, bytes(32), os.urandom(32), self.peer)
        assert not isinstance(answer, DropReason)
        return answer[0].pack(), answer[1]

    def feed_packets(self) -> None:
        """Publish records of packets until the window is full."""
        self._feed_packets(_WINDOW - self._packets_in.waiting())

    def _feed_packets(self, count: int) -> None:
        for _ in range(count):
            record = self._packets_in.reserve()
            if not record.count:  # a slot stays as it is when its round comes again
                fill(record, self.peer, _GATEWAY, self._inner)
            self._packets_in.publish()

    def feed_datagrams(self) -> None:
        """Fill the ring with trains from the peer, all with counters of their own."""
        packets = flow(MTU, self._inner, _GATEWAY)
        for _ in range(_BATCH):
            record = self._datagrams_in.reserve()
            record.begin(Kind.DATAGRAMS)
            record.set_endpoint(_HERE)
            for packet in packets:
                record.append(self._session.seal(packet, MTU))
            self._datagrams_in.publish()

    def drain(self) -> None:
        """Release whatever the worker has published."""
        for ring in (self._datagrams_out, self._packets_out):
            for _ in range(ring.waiting()):
                ring.release()

    def is_idle(self) -> bool:
        """Tell whether the worker has released all it was given."""
        return not (self._packets_in.waiting() or self._datagrams_in.waiting())


@contextmanager
def _workers(count: int) -> Iterator[list[_Lane]]:
    """Run that many workers, each with a session; they are gone after the block."""
    topology = build(Shape.PIPELINE, count)
    rings = tuple(
        replace(row, slots=_BATCH) if row.slot_bytes == SLOT_BYTES else row
        for row in topology.rings
    )
    fabric = Fabric(replace(topology, rings=rings))
    gateway = Identity(keys.generate_private_key())
    lanes = [_Lane(number, fabric) for number in range(count)]
    for number, lane in enumerate(lanes):
        fabric.peers.set_owner(lane.peer, number)
    orders: list[Order] = [SetPrivateKey(gateway.private_key), SetLink(True, MTU)]
    orders += [*(order for lane in lanes for order in lane.orders()), Begin()]
    children: list[Child] = []
    try:
        for row in fabric.topology.processes:
            if row.name.startswith("worker"):
                children.append(spawn(row, fabric, no_devices()))
                children[-1].send(encode_orders(orders), [])
        for lane, child in zip(lanes, children, strict=True):
            lane.process = child.pid
            _wait_for_peer(lane)
            lane.connect(gateway.public_key)
        yield lanes
    finally:
        for child in children:
            _end(child)
        for bell in fabric.doorbells.values():
            os.close(bell.descriptor)


def _wait_for_peer(lane: _Lane) -> None:
    """Wait until the worker has taken its orders: a packet before that would be dropped."""
    wait_for(lambda: lane.counters.value(Counter.PEERS), _LIMIT_S, f"{lane.name} knows its peer")


def _end(child: Child) -> None:
    child.stop()
    poll = select.poll()
    poll.register(child.end, select.POLLIN)
    if not poll.poll(_LIMIT_S * 1000):
        child.kill()
    child.reap()


def _out(lanes: list[_Lane], seconds: float) -> float:
    """Let the workers seal; return GB/s of inner packets."""
    before = _count(lanes, Counter.SEALED)
    start = time.monotonic()
    while time.monotonic() < start + seconds:
        for lane in lanes:
            lane.drain()
            lane.feed_packets()
        time.sleep(_PAUSE_S)
    _settle(lanes)
    elapsed = time.monotonic() - start
    return (_count(lanes, Counter.SEALED) - before) * MTU / elapsed / 1e9


def _in(lanes: list[_Lane], seconds: float) -> float:
    """Let the workers open, batch by batch; return GB/s of inner packets."""
    before = _count(lanes, Counter.OPENED)
    elapsed, batches = 0.0, 0
    while elapsed < seconds:
        with _stopped(lanes):
            for lane in lanes:
                lane.feed_datagrams()
        start = time.monotonic()
        _settle(lanes)
        elapsed += time.monotonic() - start
        batches += 1
    opened = _count(lanes, Counter.OPENED) - before
    given = batches * len(lanes) * _BATCH * TRAIN
    if opened != given:
        raise CommandError(f"{opened} of {given} datagrams were opened")
    return opened * MTU / elapsed / 1e9


@contextmanager
def _stopped(lanes: list[_Lane]) -> Iterator[None]:
    """Keep the workers from running during the block."""
    try:
        for lane in lanes:
            os.kill(lane.process, signal.SIGSTOP)
        yield
    finally:
        for lane in lanes:
            os.kill(lane.process, signal.SIGCONT)


def _settle(lanes: list[_Lane]) -> None:
    """Wait until the workers are done. Raises CommandError when one dropped anything."""
    deadline = time.monotonic() + _LIMIT_S
    while not all(lane.is_idle() for lane in lanes):
        if time.monotonic() > deadline:
            raise CommandError(f"the workers were not done within {_LIMIT_S:g} s")
        for lane in lanes:
            lane.drain()
        time.sleep(_PAUSE_S)
    for lane in lanes:
        lane.drain()
        if drops := lane.counters.drops():
            raise CommandError(f"{lane.name} dropped {drops}")


def _count(lanes: list[_Lane], counter: Counter) -> int:
    return sum(lane.counters.value(counter) for lane in lanes)
