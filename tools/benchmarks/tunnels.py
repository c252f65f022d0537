"""Pairs of ends to measure between: two gateways in two namespaces, or the bare veth pair.

```
10.77.N.1, fd77:N::1 on wg.. = gateway a = 192.0.N.1 --veth-- 192.0.N.2 = gateway b = ..2
```

A star is one gateway with several peers, each in a namespace of its own, on inner addresses of
one network.

Gateways are set up through the real `wg` and `ip`. All pairs of a run exist at the same time, so
that they can be measured in turn; those that are not measured are idle.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from wgmp import keys
from wgmp.errors import CommandError
from wgmp.netns import UAPI_DIRECTORY, Namespace, Namespaces, wait_for

from .cost import process_tree
from .programs import Program

MTU = 1420
_PORT = 51820
_START_LIMIT_S = 30.0
_HANDSHAKE_LIMIT_S = 15
_LOG_LINES = 5

# wireguard-go warns and stops where the kernel has the module, unless told that we know.
_ENVIRONMENT = {"LOG_LEVEL": "error", "WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD": "1"}


@dataclass(frozen=True)
class End:
    """One end: where traffic starts or ends. `gateway`: its process id, None on a bare veth."""

    namespace: Namespace
    inner4: str
    inner6: str
    gateway: int | None = None

    def address(self, family: int) -> str:
        """Return the address to send to, of family 4 or 6."""
        return self.inner4 if family == 4 else self.inner6

    def processes(self) -> list[int]:
        """Return the ids of the gateway's processes, none on a bare veth."""
        return [] if self.gateway is None else process_tree(self.gateway)


@dataclass(frozen=True)
class Pair:
    """Two ends that can reach each other. `label`: as it stands in the tables.

    `programs`: of a and of b, None on a bare veth. `directory`: where logs go.
    """

    label: str
    a: End
    b: End
    directory: Path
    programs: tuple[Program, Program] | None = None


def pair_label(a: Program, b: Program) -> str:
    """Return the name of a pair: one program's when both ends are the same."""
    return a.label if a.label == b.label else f"{a.label} + {b.label}"


def bare_pair(world: Namespaces, directory: Path, network: int) -> Pair:
    """Return two namespaces joined by a veth pair and nothing else: the limit."""
    spaces = world.add("a"), world.add("b")
    link = world.connect(*spaces, network)
    a, b = End(spaces[0], link.left4, link.left6), End(spaces[1], link.right4, link.right6)
    return Pair("bare veth", a, b, directory)


def tunnel_pair(world: Namespaces, directory: Path, a: Program, b: Program, network: int) -> Pair:
    """Return two gateways that have shaken hands. `network`: 2..255, another for each pair.

    Raises CommandError with the end of a gateway's log when one does not come up.
    """
    spaces = world.add("a"), world.add("b")
    link = world.connect(*spaces, network)
    gateways = [
        _Gateway(program, space, directory, network, host)
        for host, (program, space) in enumerate(zip((a, b), spaces, strict=True), start=1)
    ]
    for gateway in gateways:
        gateway.start()
    gateways[0].configure({link.right4: gateways[1]})
    gateways[1].configure({link.left4: gateways[0]})
    for gateway, other in (gateways, gateways[::-1]):
        gateway.reach(other)
    ends = gateways[0].end(), gateways[1].end()
    return Pair(pair_label(a, b), *ends, directory, (a, b))


def star(
    world: Namespaces, directory: Path, hub: Program, spoke: Program, spokes: int, network: int
) -> list[Pair]:
    """Return pairs that share their b: one gateway, with so many peers in namespaces of their own.

    `network`: the first of as many, 2..255. Raises CommandError when one does not come up.
    """
    middle = _Gateway(hub, world.add("hub"), directory, network, 1)
    gateways: dict[str, _Gateway] = {}
    for number in range(spokes):
        space = world.add(f"peer{number}")
        link = world.connect(middle.namespace, space, network + number)
        gateway = gateways[link.right4] = _Gateway(spoke, space, directory, network, 2 + number)
        gateway.start()
        gateway.configure({link.left4: middle})
    middle.start()
    middle.configure(gateways)
    for gateway in gateways.values():
        gateway.reach(middle)
    end = middle.end()
    return [Pair(spoke.label, gateway.end(), end, directory) for gateway in gateways.values()]


class _Gateway:
    """One program on an interface of its own."""

    def __init__(
        self, program: Program, namespace: Namespace, directory: Path, network: int, host: int
    ) -> None:
        self._program = program
        self.namespace = namespace
        self._interface = namespace.interface_name("wg")
        self._log = directory / f"{self._interface}.log"
        self._private_key = keys.generate_private_key()
        self.inner4 = f"10.77.{network}.{host}"
        self.inner6 = f"fd77:{network:x}::{host}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the program and wait until `wg` can reach it."""
        process = self._process = self.namespace.start(
            *self._program.command,
            "-f",
            self._interface,
            log=self._log,
            environment=_ENVIRONMENT | self._program.environment,
        )
        wait_for(partial(self._serves, process), _START_LIMIT_S, f"{self._program.label} starts")

    def _serves(self, process: subprocess.Popen[bytes]) -> bool:
        if process.poll() is not None:
            raise CommandError(
                f"{self._program.label} ended with exit code {process.returncode}: {self._said()}"
            )
        return (UAPI_DIRECTORY / f"{self._interface}.sock").exists()

    def configure(self, peers: Mapping[str, _Gateway]) -> None:
        """Set keys and peers, by the address they are at, and bring the interface up."""
        lines = [
            "[Interface]",
            f"PrivateKey = {keys.to_base64(self._private_key)}",
            f"ListenPort = {_PORT}",
        ]
        for outer, peer in peers.items():
            lines += [
                "[Peer]",
                f"PublicKey = {keys.to_base64(keys.public_key_of(peer._private_key))}",
                f"AllowedIPs = {peer.inner4}/32, {peer.inner6}/128",
                f"Endpoint = {outer}:{_PORT}",
            ]
        text = "\n".join(lines) + "\n"
        self.namespace.run("wg", "setconf", self._interface, "/dev/stdin", stdin=text)
        self.namespace.add_address(self._interface, f"{self.inner4}/24", f"{self.inner6}/64")
        self.namespace.set_up(self._interface, "mtu", str(MTU))

    def reach(self, peer: _Gateway) -> None:
        """Ping the other end until it answers over both families."""
        for address in (peer.inner4, peer.inner6):
            ping = ("ping", "-n", "-q", "-c1", "-i0.1", f"-w{_HANDSHAKE_LIMIT_S}", address)
            if self.namespace.run(*ping, check=False).returncode:
                raise CommandError(
                    f"no answer from {address} through {self._program.label}: {self._said()}"
                )

    def end(self) -> End:
        """Return what the measurements need to know."""
        assert self._process is not None
        return End(self.namespace, self.inner4, self.inner6, self._process.pid)

    def _said(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return " / ".join(lines) or "(it printed nothing)"
