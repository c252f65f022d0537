"""Two gateways in two namespaces, joined by a veth pair and set up through the real `wg`.

The inner addresses are 10.77.0.1 and fd77::1 on the left, 10.77.0.2 and fd77::2 on the right.
An implementation is named as in `PROGRAMS`: "wgmpd" is this checkout's, on the topology asked
for; "wgmpd-short" the same with short timers, and "wgmpd-curious" with
roles that try what is forbidden; "wgmpd-macos" and "wgmpd-macos-short" run it as on macOS;
"wireguard-go" is Debian's.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wgmp.netns import UAPI_DIRECTORY, Link, Namespace, Namespaces, wait_for
from wgmp.traffic import Transfer

SCRIPTS = Path(sys.prefix) / "bin"
WGMP = str(SCRIPTS / "wgmp")
WGMPD = str(SCRIPTS / "wgmpd")

_AS_ON_MACOS = (sys.executable, str(Path(__file__).with_name("as_on_macos.py")))

PROGRAMS = {
    "wgmpd": (WGMPD,),
    "wgmpd-curious": (sys.executable, str(Path(__file__).with_name("curious_roles.py"))),
    "wgmpd-macos": _AS_ON_MACOS,
    "wgmpd-macos-short": (*_AS_ON_MACOS, "--short-timers"),
    "wgmpd-short": (sys.executable, str(Path(__file__).with_name("short_timers.py"))),
    "wireguard-go": ("wireguard-go",),
}

MTU = 1420
_START_LIMIT_S = 20.0
_OUTAGE_LIMIT_S = 30.0
# The receiver of a transfer tells five times a second how far it is.
_REPORT_S = 0.3


def key(kind: str, stdin: str = "") -> str:
    """Return what `wg genkey`, `wg pubkey` or `wg genpsk` prints."""
    done = subprocess.run(["wg", kind], input=stdin, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def exists(pid: int) -> bool:
    """Tell whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def is_listened_at(path: Path) -> bool:
    """Return whether somebody listens at a Unix socket's path, which is there a moment before."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@dataclass
class Gateway:
    """One end of a tunnel: a program that serves `interface` in `namespace`."""

    program: str
    namespace: Namespace
    interface: str
    log: Path
    inner4: str
    inner6: str
    outer4: str
    outer6: str
    port: int
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] = field(init=False)
    private_key: str = field(default_factory=lambda: key("genkey"))

    def __post_init__(self) -> None:
        self.public_key = key("pubkey", self.private_key)

    @property
    def socket(self) -> Path:
        """The path of the UAPI socket."""
        return UAPI_DIRECTORY / f"{self.interface}.sock"

    def start(self) -> None:
        """Start the program and wait until it serves UAPI."""
        command = (*PROGRAMS[self.program], "-f", self.interface)
        self.process = self.namespace.start(*command, log=self.log, environment=self.environment)
        wait_for(self._serves, _START_LIMIT_S, f"{self.program} serves {self.socket}")

    def _serves(self) -> bool:
        code = self.process.poll()
        assert code is None, f"{self.program} exited with {code}: {self.log.read_text()}"
        return is_listened_at(self.socket)

    def wg(self, *arguments: str, stdin: str | None = None) -> str:
        """Run `wg`; return what it printed. Fails the test when it fails."""
        return self.namespace.run("wg", *arguments, stdin=stdin).stdout

    def set(self, *arguments: str, stdin: str | None = None) -> None:
        """Run `wg set INTERFACE ...`; a key is read from /dev/stdin."""
        self.wg("set", self.interface, *arguments, stdin=stdin)

    def configure(self) -> None:
        """Set key and port, and bring the interface up with its addresses."""
        self.set("listen-port", str(self.port), "private-key", "/dev/stdin", stdin=self.private_key)
        self.namespace.add_address(self.interface, f"{self.inner4}/24", f"{self.inner6}/64")
        self.namespace.set_up(self.interface, "mtu", str(MTU))

    def add_peer(self, peer: Gateway, endpoint: str | None, preshared_key: str = "") -> None:
        """Let the other end be a peer, `endpoint` being "192.0.2.1:51820" and the like."""
        allowed = f"{peer.inner4}/32,{peer.inner6}/128"
        arguments = ["peer", peer.public_key, "allowed-ips", allowed]
        if endpoint:
            arguments += ["endpoint", endpoint]
        if preshared_key:
            arguments += ["preshared-key", "/dev/stdin"]
        self.set(*arguments, stdin=preshared_key)

    def outer_interface(self) -> str:
        """Return the name of its end of the veth pair."""
        return next(name for name in self.namespace.links() if name.startswith("veth"))

    def endpoint(self, family: int) -> str:
        """Return where the gateway listens, over IPv4 or IPv6."""
        return f"{self.outer4}:{self.port}" if family == 4 else f"[{self.outer6}]:{self.port}"

    def ping(self, address: str, *options: str, wait_s: int = 10) -> bool:
        """Ping through the tunnel until one answer has come, for at most `wait_s`."""
        return self._ping(address, "-c1", "-i0.1", f"-w{wait_s}", *options).returncode == 0

    def ping_all(self, address: str, count: int, size: int) -> bool:
        """Ping `count` times with `size` bytes; tell whether every one was answered.

        Without -w `ping` waits for the last answers no longer than twice the longest of the others
        took. With it there are more pings, until so many answers have come.
        """
        done = self._ping(address, f"-c{count}", "-i0.01", f"-s{size}", f"-w{10 + count // 50}")
        answered = re.findall(r" bytes from .*icmp_seq=(\d+)", done.stdout)
        return set(map(int, answered)) >= set(range(1, count + 1))

    def _ping(self, address: str, *options: str) -> subprocess.CompletedProcess[str]:
        return self.namespace.run("ping", "-n", *options, address, check=False)

    def peers(self) -> dict[str, Peer]:
        """Return what `wg show INTERFACE dump` says of the peers, by public key."""
        lines = self.wg("show", self.interface, "dump").splitlines()[1:]
        return {peer.public_key: peer for peer in map(Peer.of_line, lines)}

    def peer(self) -> Peer:
        """Return its only peer."""
        (peer,) = self.peers().values()
        return peer

    def stats(self) -> dict[str, Any]:
        """Return `wgmp stats INTERFACE --json`."""
        stats: dict[str, Any] = json.loads(
            self.namespace.run(WGMP, "stats", self.interface, "--json").stdout
        )
        return stats

    def drops(self) -> dict[str, int]:
        """Return the gateway's drops by reason."""
        return {reason: int(count) for reason, count in self.stats()["drops"].items()}

    def total(self, counter: str) -> int:
        """Return what all roles together have counted, by a name of `counters.Counter`."""
        return sum(int(role["counters"][counter]) for role in self.stats()["roles"])

    def role_pids(self) -> dict[str, int]:
        """Return the process id of every process row, by its name."""
        return {row["name"]: row["pid"] for row in self.stats()["processes"]}


@dataclass(frozen=True)
class Peer:
    """One line of `wg show INTERFACE dump`."""

    public_key: str
    preshared_key: str
    endpoint: str
    allowed_ips: str
    handshake: int
    received: int
    sent: int
    keepalive: str

    @classmethod
    def of_line(cls, line: str) -> Peer:
        """Read a line: eight fields apart by tabs."""
        public_key, preshared_key, endpoint, allowed_ips, *numbers, keepalive = line.split("\t")
        handshake, received, sent = map(int, numbers)
        identity = (public_key, preshared_key, endpoint, allowed_ips)
        return cls(*identity, handshake, received, sent, keepalive)


def transfer(
    sender: Gateway, receiver: Gateway, *limits: str, family: int = 4, port: int = 5201
) -> Transfer:
    """Begin a transfer of random bytes through the tunnel, see `wgmp.traffic`."""
    address = receiver.inner4 if family == 4 else receiver.inner6
    directory = sender.log.parent
    return Transfer(sender.namespace, receiver.namespace, address, port, directory, *limits)


def outage(flow: Transfer) -> float:
    """Return after how many seconds bytes arrive that cannot have been on their way."""
    start = time.monotonic()
    time.sleep(_REPORT_S)
    before = flow.received().bytes
    wait_for(lambda: flow.received().bytes > before, _OUTAGE_LIMIT_S, "traffic flows again")
    return time.monotonic() - start


@dataclass
class Tunnel:
    """Both ends, configured and up. `left` knows where `right` is, not the other way round."""

    left: Gateway
    right: Gateway
    link: Link


def build(
    world: Namespaces,
    directory: Path,
    left: str = "wgmpd",
    right: str = "wireguard-go",
    *,
    family: int = 4,
    psk: bool = False,
    topology: str = "pipeline",
    environment: dict[str, str] | None = None,
) -> Tunnel:
    """Make a tunnel between two programs; `left` begins the handshake on the first packet.

    `family`: of the outer addresses. `environment`: for both gateways, besides the topology.
    """
    spaces = world.add("left"), world.add("right")
    link = world.connect(*spaces)
    outer = (link.left4, link.left6), (link.right4, link.right6)
    settings = {"LOG_LEVEL": "verbose", "WGMP_TOPOLOGY": topology, "WGMP_WORKERS": "2"}
    # wireguard-go warns and stops where the kernel has the module, unless told that we know.
    settings["WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD"] = "1"
    settings |= environment or {}
    gateways = [
        Gateway(
            program=program,
            namespace=space,
            interface=space.interface_name("wg"),
            log=directory / f"{side}-{program}.log",
            inner4=f"10.77.0.{host}",
            inner6=f"fd77::{host}",
            outer4=addresses[0],
            outer6=addresses[1],
            port=51820 + host,
            environment=settings,
        )
        for host, (side, program, space, addresses) in enumerate(
            zip(("left", "right"), (left, right), spaces, outer, strict=True), start=1
        )
    ]
    for gateway in gateways:
        gateway.start()
        gateway.configure()
    preshared_key = key("genpsk") if psk else ""
    gateways[1].add_peer(gateways[0], None, preshared_key)
    gateways[0].add_peer(gateways[1], gateways[1].endpoint(family), preshared_key)
    return Tunnel(gateways[0], gateways[1], link)


def log_tail(gateway: Gateway, lines: int = 15) -> str:
    """Return the end of a gateway's log, for a failure's report."""
    text = gateway.log.read_text() if os.path.exists(gateway.log) else ""
    return "\n".join(text.splitlines()[-lines:])
