"""An agent in a namespace, and a real peer in another: what the agent's tests share.

The agent's network "home" has 10.77.0.1 inside; the peer is wireguard-go at 10.77.0.2 and, once
`Site.peer` is told, whatever the tests need.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.tunnel import WGMP, key
from wgmp.netns import UAPI_DIRECTORY, Namespace, Namespaces, wait_for

PORT = 51820
PEER_PORT = 51821
START_LIMIT_S = 20.0


@dataclass
class Peer:
    """A wireguard-go with one inner address, and its keys."""

    namespace: Namespace
    interface: str
    inner: str
    outer: str
    port: int = PEER_PORT
    private_key: str = field(default_factory=lambda: key("genkey"))
    psk: str = field(default_factory=lambda: key("genpsk"))

    def __post_init__(self) -> None:
        self.public_key = key("pubkey", self.private_key)

    def start(self, log: Path) -> None:
        """Start it with its address, and without peers."""
        environment = {"WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD": "1"}
        self.namespace.start("wireguard-go", "-f", self.interface, log=log, environment=environment)
        wait_for((UAPI_DIRECTORY / f"{self.interface}.sock").exists, 10, "wireguard-go starts")
        arguments = ("listen-port", str(self.port), "private-key", "/dev/stdin")
        self.namespace.run("wg", "set", self.interface, *arguments, stdin=self.private_key)
        self.namespace.add_address(self.interface, f"{self.inner}/24")
        self.namespace.set_up(self.interface, "mtu", "1420")

    def accept(self, public_key: str, *allowed_ips: str) -> None:
        """Let the agent's network be a peer, with our preshared key."""
        peer = ("peer", public_key, "allowed-ips", ",".join(allowed_ips))
        psk = ("preshared-key", "/dev/stdin")
        self.namespace.run("wg", "set", self.interface, *peer, *psk, stdin=self.psk)


class Site:
    """Two namespaces, the settings file, the agent's log, and `wgmp` against the agent."""

    def __init__(self, world: Namespaces, directory: Path) -> None:
        self.directory = directory
        self.space = world.add("agent")
        self.far = world.add("far")
        self.link = world.connect(self.space, self.far)
        self.interface = self.space.interface_name("wg")
        self.socket = directory / "run" / "control.sock"
        self.keys = directory / "keys"
        self.file = directory / "agent.toml"
        self.log = directory / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.peer = Peer(
            self.far, self.far.interface_name("wg"), "10.77.0.2", f"{self.link.right4}:{PEER_PORT}"
        )
        self.psk_file = directory / "psk"
        self.psk_file.touch(0o600)
        self.psk_file.write_text(self.peer.psk + "\n")
        self.peer.start(directory / "peer.log")

    def head(self, **settings: str) -> str:
        """Return the [agent] table; `settings` are lines of it besides."""
        lines = [f"{name} = {value}\n" for name, value in settings.items()]
        paths = f'control_socket = "{self.socket}"\nkeys_directory = "{self.keys}"\n'
        return f"[agent]\n{paths}{''.join(lines)}\n"

    def home(self, *lines: str, peer_lines: tuple[str, ...] = ()) -> str:
        """Return the network "home" with its peer; the lines are added."""
        network = (
            "[network.home]",
            f'interface = "{self.interface}"',
            f"listen_port = {PORT}",
            'addresses = ["10.77.0.1/24"]',
            *lines,
            "[[network.home.peers]]",
            'name = "peer"',
            f'public_key = "{self.peer.public_key}"',
            f'preshared_key_path = "{self.psk_file}"',
            *peer_lines,
        )
        if not any(line.startswith("endpoint") for line in peer_lines):
            network += (f'endpoint = "{self.peer.outer}"',)
        if not any(line.startswith("allowed_ips") for line in peer_lines):
            network += (f'allowed_ips = ["{self.peer.inner}/32"]',)
        return "\n".join(network) + "\n"

    def start(self, *tables: str, **environment: str) -> None:
        """Write the settings if there are any given, and start the agent; return when it serves."""
        if tables:
            self.file.write_text("\n".join(tables))
        command = (WGMP, "agent", "--config", str(self.file))
        self.process = self.space.start(*command, log=self.log, environment=environment)
        self.wait_until_it_serves()

    def wait_until_it_serves(self) -> None:
        """Wait until the agent that was started answers."""
        wait_for(self._serves, START_LIMIT_S, "the agent serves its socket")

    def _serves(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        return self.socket.exists() and self.wgmp("networks", check=False).returncode == 0

    def wgmp(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `wgmp` as an operator does."""
        environment = {"WGMP_AGENT_SOCKET": str(self.socket)}
        return self.space.run(WGMP, *command, environment=environment, check=check, timeout_s=30)

    def states(self) -> dict[str, str]:
        """Return the state of each network by its name."""
        listing: dict[str, Any] = json.loads(self.wgmp("networks", "--json").stdout)
        return {network["name"]: network["state"] for network in listing["networks"]}

    def wait_for_state(self, state: str, name: str = "home") -> None:
        """Wait until a network is in a state."""
        wait_for(lambda: self.states().get(name) == state, START_LIMIT_S, f"{name} is {state}")

    def public_key(self, name: str = "home") -> str:
        """Return the public key that the agent made for a network."""
        path = self.keys / name / "public.key"
        wait_for(path.exists, START_LIMIT_S, f"{path} is written")
        return path.read_text().strip()

    def pings(self, address: str, wait_s: int = 10) -> bool:
        """Tell whether one ping is answered through the tunnel within some seconds."""
        options = ("-n", "-c1", "-i0.1", f"-w{wait_s}")
        return self.space.run("ping", *options, address, check=False).returncode == 0

    def traces(self) -> dict[str, Any]:
        """Return all that a network leaves on the machine while it is up."""
        run_directory = Path("/run/wgmp")
        ours = [str(path) for path in run_directory.glob(f"{self.interface}.*")]
        ours += [str(path) for path in UAPI_DIRECTORY.glob(f"{self.interface}.*")]

        def shown(*command: str) -> list[str]:
            # Without link-local addresses: those are drawn anew for each interface.
            lines = self.space.run(*command, check=False).stdout.splitlines()
            return sorted(line for line in lines if "fe80:" not in line)

        return {
            "links": self.space.links(),
            "routes": shown("ip", "route", "show", "table", "all"),
            "routes6": shown("ip", "-6", "route", "show", "table", "all"),
            "rules": shown("ip", "rule") + shown("ip", "-6", "rule"),
            "firewall": shown("nft", "list", "ruleset"),
            "files": sorted(ours) + sorted(path.name for path in self.socket.parent.glob("*")),
            "processes": len(self.space.processes()),
        }
