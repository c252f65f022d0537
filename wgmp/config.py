"""What a wg-quick style configuration file says, parsed once into frozen structs.

config_grammar.py reads the lines. Here are the structs, what it means to make a device be what
a file says, and what in a file wgmp leaves to wg-quick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from wgmp.config_grammar import Address, DnsEntry, read_sections
from wgmp.device import Device
from wgmp.errors import ConfigError, SocketError
from wgmp.files import EMPTY, read_text
from wgmp.protocol.allowedips import Prefix
from wgmp.protocol.outcome import Endpoint


class _Section(msgspec.Struct, frozen=True, kw_only=True):
    """A section whose keys stay out of logs and tracebacks."""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        shown = []
        for name in self.__struct_fields__:
            value = getattr(self, name)
            shown.append((name, "(hidden)" if value and name.endswith("_key") else value))
        return shown

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({fields})"


class Hooks(msgspec.Struct, frozen=True, kw_only=True):
    """Shell commands in the order they run; `%i` in them is the interface. For bash."""

    pre_up: tuple[str, ...] = ()
    post_up: tuple[str, ...] = ()
    pre_down: tuple[str, ...] = ()
    post_down: tuple[str, ...] = ()

    def named(self) -> list[str]:
        """Return the names, as in a file, of the hooks there are."""
        names = {
            "PreUp": self.pre_up,
            "PostUp": self.post_up,
            "PreDown": self.pre_down,
            "PostDown": self.post_down,
        }
        return [name for name, commands in names.items() if commands]


class Hooked(msgspec.Struct, frozen=True, kw_only=True):
    """What has hooks among its fields."""

    @property
    def hooks(self) -> Hooks:
        """All hooks together."""
        return msgspec.convert(self, Hooks, from_attributes=True)


class InterfaceConfig(_Section, Hooked, frozen=True, kw_only=True):
    """The [Interface] section.

    `private_key`: 32 bytes, b"" if not given. `listen_port`: 0 picks one. `mtu`: bytes, None
    for the default. `table`: "off", "auto", or a routing table's number or name.
    `dns`: servers as addresses, search domains as text.
    The hooks (`pre_up`, ...) are shell commands, in order.
    """

    private_key: bytes = b""
    listen_port: int = 0
    fwmark: int = 0
    addresses: tuple[Address, ...] = ()
    dns: tuple[DnsEntry, ...] = ()
    mtu: int | None = None
    table: str = "auto"
    pre_up: tuple[str, ...] = ()
    post_up: tuple[str, ...] = ()
    pre_down: tuple[str, ...] = ()
    post_down: tuple[str, ...] = ()
    save_config: bool = False


class PeerConfig(_Section, frozen=True, kw_only=True):
    """One [Peer] section; `line` is where it starts.

    `endpoint`: `host:port` as written, the host maybe a name; "" if not given.
    `preshared_key`: 32 bytes, zeros for none. `keepalive`: seconds, 0 is off. None: not given,
    which matters when a peer has a second section. `name`: from a comment, "" without one.
    """

    public_key: bytes
    name: str = ""
    preshared_key: bytes | None = None
    endpoint: str = ""
    allowed_ips: tuple[Prefix, ...] = ()
    keepalive: int | None = None
    line: int = 0


class QuickConfig(msgspec.Struct, frozen=True):
    """A whole file: its name for messages, its interface and its peers in order."""

    file: str
    interface: InterfaceConfig
    peers: tuple[PeerConfig, ...]


def load(path: Path) -> QuickConfig:
    """Read and parse a file, or a pipe. Raises ConfigError, also when it cannot be read."""
    return parse(read_text(path, piped=True), str(path))


def parse(text: str, file: str) -> QuickConfig:
    """Parse the text of a configuration file; `file` names it in a ConfigError."""
    interface, peers = read_sections(text, file)
    return QuickConfig(
        file, InterfaceConfig(**interface), tuple(PeerConfig(**peer) for peer in peers)
    )


def load_again(path: Path) -> QuickConfig:
    """Return what a running gateway's file says now, as `load` does.

    Never waits. Raises ConfigError for one that says nothing: most likely it is just being
    written.
    """
    config = parse(read_text(path), str(path))
    if config == QuickConfig(config.file, InterfaceConfig(), ()):
        raise ConfigError(EMPTY, config.file)
    return config


def endpoints(config: QuickConfig) -> list[str]:
    """Return the endpoints in the file, as written there."""
    return [peer.endpoint for peer in config.peers if peer.endpoint]


def notices(config: QuickConfig, run_hooks: bool = False) -> list[str]:
    """Return one line for each thing in the file that wgmp does not do."""
    hooks = ", ".join(config.interface.hooks.named())
    if not hooks or run_hooks:
        return []
    remedy = "they are shell commands, add --run-hooks to run them"
    return [f"{config.file}: {hooks}: not run: {remedy}"]


def apply(config: QuickConfig, device: Device, resolve: Callable[[str], Endpoint]) -> list[str]:
    """Make the device what the file says, as `wg setconf` does; return notices.

    `resolve`: says where an endpoint is, or raises ValueError with the reason why it cannot: that
    costs its peer the endpoint, and is a notice. Raises
    SocketError when the port or the mark cannot be had, DeviceFullError for too many peers.
    """
    apply_interface(config, device)
    device.replace_peers()
    return [line for peer in config.peers for line in apply_peer(config, peer, device, resolve)]


def apply_interface(config: QuickConfig, device: Device) -> None:
    """Give the device the file's key, mark and port. Raises SocketError."""
    interface = config.interface
    device.set_private_key(interface.private_key)
    try:
        device.set_fwmark(interface.fwmark)
    except OSError as error:
        raise SocketError(f"{config.file}: FwMark: {error.strerror}", error.errno or 0) from error
    try:
        device.set_listen_port(interface.listen_port)
    except OSError as error:
        raise SocketError(
            f"{config.file}: UDP port {interface.listen_port}: {error.strerror}: "
            "choose another ListenPort, or leave the line out to have one picked",
            error.errno or 0,
        ) from error


def apply_peer(
    config: QuickConfig, peer: PeerConfig, device: Device, resolve: Callable[[str], Endpoint]
) -> Iterator[str]:
    """Give the device what one section says; yield notices. Raises DeviceFullError."""
    entry = device.add_peer(peer.public_key)
    if entry is None:
        yield f"{config.file}:{peer.line}: this peer has our own key, and is ignored"
        return
    if peer.preshared_key is not None:
        device.set_preshared_key(entry, peer.preshared_key)
    if peer.keepalive is not None:
        device.set_keepalive(entry, peer.keepalive)
    device.replace_allowed_ips(entry)
    for prefix in peer.allowed_ips:
        device.add_allowed_ip(entry, prefix)
    if not peer.endpoint:
        return
    try:
        endpoint = resolve(peer.endpoint)
    except ValueError as reason:
        where = f"{config.file}:{peer.line}: endpoint {peer.endpoint}: {reason}"
        if entry.endpoint is not None:
            yield f"{where}: the peer keeps the one it has"
        else:
            yield (f"{where}: the peer has none until it calls, or until `wg set` gives it one")
    else:
        if endpoint != entry.endpoint:  # the same one as before: it may have roamed since
            device.set_endpoint(entry, endpoint)
