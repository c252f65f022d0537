"""A running gateway, a hostile network beside it, and raw peers that it knows.

```
gate: wgmpd  10.77.0.1 --- veth --- world: raw peers' sockets
             192.0.2.1               192.0.2.2, 198.18.0.0/15 (all of it)
```
"""

from __future__ import annotations

import base64
import itertools
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from e2e.tunnel import Gateway
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from scapy.layers.inet import ICMP, IP

from wgmp import control
from wgmp.netns import Namespace, Namespaces, wait_for

from .rawpeer import RawPeer, Session
from .wire import Wire, inside

# RFC 2544: addresses for benchmarks, here for floods from many sources.
MANY_SOURCES = "198.18.0.0/15"
_COUNT_LIMIT_S = 5.0

_hosts = itertools.count(1)
_echoes = itertools.count(1)


def text(key: bytes) -> str:
    """A key as `wg` writes it."""
    return base64.b64encode(key).decode()


@dataclass
class Known:
    """A raw peer the gateway knows: its key, its address in the tunnel, and its socket."""

    raw: RawPeer
    inner: str
    wire: Wire

    def connect(self, wire: Wire | None = None) -> Session:
        """Shake hands as the initiator and confirm the session."""
        wire = wire or self.wire
        initiation = self.raw.initiation()
        wire.send(initiation.datagram)
        session = self.raw.finish(initiation, wire.receive())
        wire.send(session.seal())
        return session

    def echo(self, session: Session, source: str = "", counter: int | None = None) -> bytes:
        """A sealed ping to the gateway's inner address."""
        return session.seal(bytes(ping(source or self.inner)), counter)

    def answered(self, session: Session, wire: Wire | None = None) -> bool:
        """Ping the gateway through the session; tell whether the answer comes."""
        wire = wire or self.wire
        wire.drain(quiet_s=0.001)
        wire.send(self.echo(session))
        while (datagram := wire.poll(2.0)) is not None:
            if session.unseal(datagram):
                return True
        return False


def ping(source: str, destination: str = "10.77.0.1") -> IP:
    """An ICMP echo request of its own number."""
    return IP(src=source, dst=destination) / ICMP(type=8, id=7, seq=next(_echoes) & 0xFFFF)


def echo_number(packet: bytes) -> int:
    """The number of an echo request or reply."""
    return int(IP(packet)[ICMP].seq)


@dataclass
class Site:
    """One gateway and the network beside it."""

    gateway: Gateway
    world: Namespace
    outer4: str
    outer6: str
    wires: list[Wire] = field(default_factory=list)

    @property
    def key(self) -> bytes:
        """The gateway's public key."""
        return base64.b64decode(self.gateway.public_key)

    def wire(self, address: str = "", port: int = 0) -> Wire:
        """A socket in the world, on its IPv4 address unless told otherwise."""
        address = address or self.outer4
        host = self.gateway.outer6 if ":" in address else self.gateway.outer4
        wire = Wire(self.world, address, (host, self.gateway.port), port)
        self.wires.append(wire)
        return wire

    def stranger(self) -> RawPeer:
        """A raw peer that the gateway does not know."""
        return RawPeer(self.key)

    def peer(self, *settings: str, wire: Wire | None = None, allowed: str = "") -> Known:
        """A new raw peer that the gateway knows, with further settings as `wg set` takes them."""
        number = next(_hosts)
        inner = f"10.99.{number >> 8}.{number & 255}"
        raw = RawPeer(self.key)
        self.gateway.set(
            *("peer", text(raw.public), "allowed-ips", allowed or f"{inner}/32", *settings)
        )
        return Known(raw, inner, wire or self.wire())

    def called_peer(self) -> tuple[Known, bytes]:
        """A new peer that the gateway calls at once, and the initiation that came to its wire."""
        wire = self.wire()
        known = self.peer("endpoint", wire.name, wire=wire)
        self.call(known)
        return known, wire.receive()

    def call(self, known: Known) -> None:
        """Let a packet for the peer come out of the gateway's own stack."""
        self.gateway.namespace.run("ping", "-n", "-c1", "-W0.01", known.inner, check=False)

    def endpoint(self, known: Known) -> str:
        """Where the gateway believes the peer to be."""
        return self.gateway.peers()[text(known.raw.public)].endpoint

    def drops(self) -> dict[str, int]:
        """The gateway's drops by reason, at this moment."""
        return control.ask_stats(self.gateway.interface).drops

    def http(self, request: bytes, limit_s: float = 10.0) -> bytes:
        """Say something to the metrics' port in the gateway's namespace; return all it answers."""
        with inside(self.gateway.namespace), socket.socket() as client:
            client.settimeout(limit_s)
            client.connect(("127.0.0.1", 9586))
            client.sendall(request)
            answer = b""
            while piece := client.recv(1 << 16):
                answer += piece
            return answer

    def scrape(self) -> dict[str, list[Sample]]:
        """Scrape the gateway as Prometheus does; return the samples of each metric."""
        body = self.http(b"GET /metrics HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")[2].decode()
        samples: dict[str, list[Sample]] = {}
        for family in text_string_to_metric_families(body):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append(sample)
        return samples

    def counts(self, act: Callable[[], None], **expected: int) -> None:
        """Do something; fail unless exactly these drops are counted for it."""
        before = self.drops()
        act()
        grown: dict[str, int] = {}

        def seen() -> bool:
            now = self.drops()
            grown.clear()
            grown.update({r: n - before.get(r, 0) for r, n in now.items() if n > before.get(r, 0)})
            return all(grown.get(reason, 0) >= count for reason, count in expected.items())

        deadline = time.monotonic() + _COUNT_LIMIT_S
        while not seen() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert grown == expected

    def kill(self, role: str) -> None:
        """Kill the process of a role and wait for its successor."""
        victim = self.gateway.role_pids()[role]
        os.kill(victim, signal.SIGKILL)

        def replaced() -> bool:
            return self.gateway.role_pids().get(role, 0) not in (0, victim)

        wait_for(replaced, 5, f"{role} has a successor")

    def close(self) -> None:
        """Close all sockets."""
        for wire in self.wires:
            wire.close()


def build(
    spaces: Namespaces, directory: Path, topology: str = "pipeline", workers: int = 2
) -> Site:
    """Start a gateway beside an empty world."""
    gate, world = spaces.add("gate"), spaces.add("world")
    link = spaces.connect(gate, world)
    gateway = Gateway(
        program="wgmpd",
        namespace=gate,
        interface=gate.interface_name("wg"),
        log=directory / "gate.log",
        inner4="10.77.0.1",
        inner6="fd77::1",
        outer4=link.left4,
        outer6=link.left6,
        port=51821,
        environment={
            "LOG_LEVEL": "verbose",
            "WGMP_TOPOLOGY": topology,
            "WGMP_WORKERS": str(workers),
            "WGMP_METRICS": "127.0.0.1:9586",
        },
    )
    gateway.start()
    gateway.configure()
    gate.run("ip", "route", "add", "10.99.0.0/16", "dev", gateway.interface)
    gate.run("ip", "route", "add", MANY_SOURCES, "via", link.right4)
    world.run("ip", "route", "add", "local", MANY_SOURCES, "dev", "lo")
    return Site(gateway, world, link.right4, link.right6)
