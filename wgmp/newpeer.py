"""A new peer for a gateway: its address, its configuration, and its place in the gateway's.

The gateway is known from its configuration file, from the running gateway, or from both. The new
peer gets the next free address of each of the interface's subnets, one IPv4 and one IPv6.
"""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from wgmp import config, keys
from wgmp.addresses import format_prefix
from wgmp.agent import uapi_client
from wgmp.errors import ConfigError, ControlError
from wgmp.files import read_text, write_whole
from wgmp.uapi_server import socket_path

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass
class Server:
    """What must be known of the gateway. `name`: for messages; `taken`: its peers' prefixes;
    `peers`: their public keys."""

    name: str
    public_key: str
    listen_port: int
    subnets: list[Interface]
    taken: list[Network]
    peers: set[str]


class NewPeer(msgspec.Struct, frozen=True, kw_only=True):
    """The peer. Keys in base64; `private_key` "" when the peer keeps it, `preshared_key` ""
    for none; `addresses`: one per family."""

    name: str
    private_key: str
    public_key: str
    preshared_key: str
    addresses: tuple[Address, ...]


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """The rest of the peer's own configuration. `endpoint`: the gateway's, host:port; `routes`:
    what the peer sends through the tunnel; `keepalive`: seconds, 0 is off."""

    endpoint: str
    routes: str = "0.0.0.0/0, ::/0"
    dns: str = ""
    keepalive: int = 25


def of_file(path: Path) -> Server:
    """Return what a configuration file says of its gateway; raises ConfigError."""
    read = config.load(path)
    interface = read.interface
    if not interface.private_key:
        raise ConfigError("has no PrivateKey: write one, made by `wgmp genkey`", str(path))
    taken = [
        ipaddress.ip_network(format_prefix(p)) for peer in read.peers for p in peer.allowed_ips
    ]
    public_key = keys.to_base64(keys.public_key_of(interface.private_key))
    subnets = list(interface.addresses)
    peers = {keys.to_base64(peer.public_key) for peer in read.peers}
    return Server(str(path), public_key, interface.listen_port, subnets, taken, peers)


def of_gateway(interface: str) -> Server:
    """Return what a running gateway says of itself; raises ControlError, ConfigError."""
    view = asyncio.run(uapi_client.get(interface))
    if not view.public_key:
        raise ConfigError(f"{interface} has no private key: `wg set {interface} private-key FILE`")
    taken = [ipaddress.ip_network(p) for peer in view.peers.values() for p in peer.allowed_ips]
    subnets = list(_subnets_of(interface))
    return Server(interface, view.public_key, view.listen_port, subnets, taken, set(view.peers))


def merged(live: Server, filed: Server) -> Server:
    """Return what both say of one gateway; raises ConfigError when they are two."""
    if live.public_key != filed.public_key:
        raise ConfigError(f"{filed.name} is not the configuration of {live.name}: its key differs")
    subnets = live.subnets or filed.subnets
    taken, peers = live.taken + filed.taken, live.peers | filed.peers
    return Server(live.name, live.public_key, live.listen_port, subnets, taken, peers)


def make(server: Server, name: str, public_key: str = "", preshared: bool = True) -> NewPeer:
    """Make a peer with the next free addresses, and with keys. Raises ConfigError.

    `public_key`: of a peer that keeps its private key to itself, "" to make both.
    """
    if public_key in server.peers:
        raise ConfigError(f"{server.name} has a peer {public_key} already")
    addresses = tuple(_addresses(server))
    private_key = "" if public_key else keys.to_base64(keys.generate_private_key())
    return NewPeer(
        name=name,
        private_key=private_key,
        public_key=public_key or keys.to_base64(keys.public_key_of(keys.from_base64(private_key))),
        preshared_key=keys.to_base64(keys.generate_preshared_key()) if preshared else "",
        addresses=addresses,
    )


def next_free(subnet: Interface, taken: Iterable[Network]) -> Address | None:
    """Return the subnet's first address that is nobody's, None when there is none.

    A prefix that holds the whole subnet is a route, and takes no address.
    """
    network = subnet.network
    own: list[Network] = [
        ipaddress.ip_network(address)
        for address in (network.network_address, network.broadcast_address, subnet.ip)
        # RFC 3021 and RFC 6164: two hosts, and nothing else, in the smallest subnets.
        if address == subnet.ip or network.prefixlen < network.max_prefixlen - 1
    ]
    inside = [each for each in taken if each.version == network.version and each != network]
    used = own + [each for each in inside if each.subnet_of(network)]  # type: ignore[arg-type]
    candidate = int(network.network_address)
    for each in sorted(used, key=lambda used: int(used.network_address)):
        if candidate < int(each.network_address):
            break
        candidate = max(candidate, int(each.broadcast_address) + 1)
    last = int(network.broadcast_address)
    return None if candidate > last else type(network.network_address)(candidate)


def client_config(server: Server, peer: NewPeer, client: Client) -> str:
    """Return the peer's own configuration file."""
    addresses = ", ".join(f"{address}/{address.max_prefixlen}" for address in peer.addresses)
    return _lines(
        "[Interface]",
        peer.name and f"# {peer.name}",
        f"PrivateKey = {peer.private_key}"
        if peer.private_key
        else f"# PrivateKey = the one that belongs to {peer.public_key}",
        f"Address = {addresses}",
        client.dns and f"DNS = {client.dns}",
        "\n[Peer]",
        f"PublicKey = {server.public_key}",
        peer.preshared_key and f"PresharedKey = {peer.preshared_key}",
        f"AllowedIPs = {client.routes}",
        f"Endpoint = {client.endpoint}",
        client.keepalive and f"PersistentKeepalive = {client.keepalive}",
    )


def server_section(peer: NewPeer) -> str:
    """Return the peer's section in the gateway's configuration file."""
    return _lines(
        "[Peer]",
        peer.name and f"# friendly_name = {peer.name}",
        f"PublicKey = {peer.public_key}",
        peer.preshared_key and f"PresharedKey = {peer.preshared_key}",
        f"AllowedIPs = {', '.join(map(str, peer.addresses))}",
    )


def _lines(*lines: str | int) -> str:
    """Return those lines that say something."""
    return "".join(f"{line}\n" for line in lines if line)


def add_to_gateway(interface: str, peer: NewPeer) -> None:
    """Let the running gateway know the peer; raises ControlError."""
    lines = [f"public_key={keys.from_base64(peer.public_key).hex()}"]
    if peer.preshared_key:
        lines.append(f"preshared_key={keys.from_base64(peer.preshared_key).hex()}")
    lines += [f"allowed_ip={address}/{address.max_prefixlen}" for address in peer.addresses]
    text = "".join(f"{line}\n" for line in lines)
    asyncio.run(uapi_client.change(interface, bytearray(text.encode())))


def remove_from_gateway(interface: str, peer: NewPeer) -> None:
    """Let the running gateway forget the peer again; raises ControlError."""
    lines = f"public_key={keys.from_base64(peer.public_key).hex()}\nremove=true\n"
    asyncio.run(uapi_client.change(interface, bytearray(lines.encode())))


def add_to_file(path: Path, peer: NewPeer) -> None:
    """Append the peer's section, in one step: the file is the old one or the new one.

    Owner and mode stay. Raises ConfigError and leaves the file alone when the result is none.
    """
    path = path.resolve()
    try:
        text = f"{read_text(path).rstrip()}\n\n{server_section(peer)}"
        config.parse(text, str(path))
        write_whole(path, text.encode(), like=path.stat())
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", str(path)) from error


@contextmanager
def one_at_a_time(path: Path | None) -> Iterator[None]:
    """Wait until nobody else adds a peer to the same file, or to any running gateway (None).

    Two at once would find the same address free.
    """
    place = socket_path("any").parent if path is None else path.resolve().parent
    try:
        descriptor = os.open(place, os.O_RDONLY)
    except FileNotFoundError:
        if path is None:
            raise ControlError("no gateway runs: start one with `wgmp supervise IFACE`") from None
        raise ConfigError("there is no such directory", str(place)) from None
    except OSError as error:
        raise ConfigError(f"cannot be opened: {error.strerror}", str(place)) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _addresses(server: Server) -> Iterator[Address]:
    families: set[int] = set()
    for subnet in server.subnets:
        if subnet.version in families:
            continue
        families.add(subnet.version)
        address = next_free(subnet, server.taken)
        if address is None:
            raise ConfigError(f"{server.name}: no address of {subnet.network} is free")
        yield address
    if not families:
        raise ConfigError(
            f"{server.name} has no address, so its peers have no subnet: write "
            "Address = 10.0.0.1/24 and the like, or `ip address add 10.0.0.1/24 dev ...`"
        )


def _subnets_of(interface: str) -> Iterator[Interface]:
    for entry in psutil.net_if_addrs().get(interface, []):
        try:
            address = ipaddress.ip_address(entry.address.partition("%")[0])
            mask = ipaddress.ip_address(entry.netmask or "")
        except ValueError:
            continue  # a link-layer address, or one without a subnet
        if not address.is_link_local:
            yield ipaddress.ip_interface(f"{address}/{int(mask).bit_count()}")
