"""wg-quick files become networks of the agent's settings, and the other way round.

| a wg-quick file | settings |
|---|---|
| holds keys | name files with keys: read and written here |
| SaveConfig | (none) |
| maybe several sections for one peer | they become one, as `wg` takes them |
| one endpoint for a peer | maybe several: the first is written |

What gets lost on the way is a notice.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from msgspec import structs

from wgmp import keys
from wgmp.addresses import format_prefix
from wgmp.agent import keyfiles, settings_file
from wgmp.agent.settings import AgentSettings, NetworkSettings, PeerSettings
from wgmp.config import InterfaceConfig, PeerConfig, QuickConfig
from wgmp.errors import ConfigError


@dataclass(frozen=True)
class Imported:
    """A file in settings' words: TOML `text`, `secrets` by the files it names, `notices`."""

    text: str
    secrets: dict[Path, bytes]
    notices: list[str]


def to_settings(config: QuickConfig, interface: str, keys_directory: Path) -> Imported:
    """Return the network, named after its interface, that a wg-quick file describes.

    `keys_directory`: absolute; where the files with keys are to be, in a directory of the
    network's. Raises ConfigError for what settings cannot say.
    """
    network = re.sub(r"[^A-Za-z0-9_.-]", "_", interface)
    place = keys_directory / network
    secrets: dict[Path, bytes] = {}
    table: dict[str, Any] = {} if network == interface else {"interface": interface}
    if config.interface.private_key:
        table["private_key_path"] = str(place / "private.key")
        secrets[place / "private.key"] = config.interface.private_key
    table |= _interface_table(config.interface)
    peers = []
    for number, peer in enumerate(_with_names_once(_merged(config.peers)), 1):
        entry = _peer_table(peer)
        if peer.preshared_key not in (None, keys.ZERO_KEY):
            stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", peer.name).strip("-.") or f"peer-{number}"
            path = next(path for path in _paths(place, stem) if path not in secrets)
            secrets[path] = peer.preshared_key or b""
            entry["preshared_key_path"] = str(path)
        peers.append(entry)
    if peers:
        table["peers"] = peers
    try:
        settings_file.network_from(network, table)
    except settings_file.Misplaced as error:
        raise ConfigError(str(error), config.file) from None
    text = tomli_w.dumps({"network": {network: table}})
    return Imported(text, secrets, list(_import_notices(config)))


def _interface_table(interface: InterfaceConfig) -> dict[str, Any]:
    values = {
        "listen_port": interface.listen_port,
        "addresses": [str(address) for address in interface.addresses],
        "dns": [str(entry) for entry in interface.dns],
        "mtu": interface.mtu,
        "table": interface.table if interface.table != "auto" else "",
        "fwmark": interface.fwmark,
        **{name: list(hooks) for name, hooks in structs.asdict(interface.hooks).items()},
    }
    return {name: value for name, value in values.items() if value}


def _peer_table(peer: PeerConfig) -> dict[str, Any]:
    values = {
        "name": peer.name,
        "public_key": keys.to_base64(peer.public_key),
        "endpoint": peer.endpoint,
        "allowed_ips": [format_prefix(prefix) for prefix in peer.allowed_ips],
        "persistent_keepalive_secs": peer.keepalive,
    }
    return {name: value for name, value in values.items() if value}


def _merged(peers: Iterable[PeerConfig]) -> list[PeerConfig]:
    """Return the peers once each: of several sections the later add to the first, as in `wg`."""
    found: dict[bytes, PeerConfig] = {}
    for peer in peers:
        first = found.setdefault(peer.public_key, peer)
        found[peer.public_key] = PeerConfig(
            public_key=peer.public_key,
            name=peer.name or first.name,
            preshared_key=first.preshared_key if peer.preshared_key is None else peer.preshared_key,
            endpoint=peer.endpoint or first.endpoint,
            allowed_ips=peer.allowed_ips,
            keepalive=first.keepalive if peer.keepalive is None else peer.keepalive,
        )
    return list(found.values())


def _with_names_once(peers: Iterable[PeerConfig]) -> Iterator[PeerConfig]:
    taken: set[str] = set()
    for peer in peers:
        names = itertools.chain((peer.name,), (f"{peer.name} ({n})" for n in itertools.count(2)))
        name = next(name for name in names if name not in taken)
        taken.update({name} - {""})
        yield structs.replace(peer, name=name)


def _paths(place: Path, stem: str) -> Iterator[Path]:
    yield place / f"{stem}.psk"
    yield from (place / f"{stem}-{number}.psk" for number in itertools.count(2))


def _import_notices(config: QuickConfig) -> Iterator[str]:
    if config.interface.save_config:
        yield "SaveConfig: settings are not written back, and do without"
    if not config.interface.private_key:
        yield "there is no PrivateKey: the agent makes one when the network starts"
    if hooks := config.interface.hooks.named():
        yield f"{', '.join(hooks)}: these run with run_hooks = true under [agent] only"


def write_secrets(secrets: dict[Path, bytes]) -> None:
    """Put keys into files of mode 0600, all or, when one holds another key, none.

    Raises ConfigError, also for a file that cannot be written.
    """
    for path, key in secrets.items():
        if path.exists() and _read_key(path) != key:
            raise ConfigError("holds another key: move it away, or name --keys", str(path))
    for path, key in secrets.items():
        keyfiles.write(path, key)


def to_quick(
    name: str, network: NetworkSettings, agent: AgentSettings, file: str
) -> tuple[QuickConfig, list[str]]:
    """Return what a wg-quick file says of a network, and notices. Reads the key files.

    `file`: names the result in messages. Raises ConfigError for a key file that is none.
    """
    private = Path(network.private_key_path or Path(agent.keys_directory) / name / "private.key")
    notices = []
    private_key = b""
    if network.private_key_path or private.exists():
        private_key = _read_key(private)
    else:
        notices.append(f"there is no {private}: PrivateKey is left out")
    if network.metrics:
        notices.append(f"metrics: start the gateway with --metrics {network.metrics}")
    for peer in network.peers:
        if len(peer.endpoints) > 1:
            label = peer.name or peer.public_key
            notices.append(f"{label} has several endpoints: only the first is written")
    interface = InterfaceConfig(
        private_key=private_key,
        listen_port=network.listen_port,
        fwmark=network.fwmark,
        addresses=tuple(address.parsed for address in network.addresses),
        dns=tuple(entry.parsed for entry in network.dns),
        mtu=network.mtu,
        table=str(network.table),
        **structs.asdict(network.hooks),
    )
    return QuickConfig(file, interface, tuple(_quick_peer(peer) for peer in network.peers)), notices


def _quick_peer(peer: PeerSettings) -> PeerConfig:
    path = peer.preshared_key_path
    return PeerConfig(
        public_key=peer.public_key.raw,
        name=" ".join(peer.name.split()),
        preshared_key=None if path is None else _read_key(Path(path)),
        endpoint=str(peer.endpoints[0]) if peer.endpoints else "",
        allowed_ips=tuple(item.parsed for item in peer.allowed_ips),
        keepalive=peer.persistent_keepalive_secs or None,
    )


def _read_key(path: Path) -> bytes:
    digits = bytearray()
    keyfiles.read(path).append_hex(digits)
    return keys.from_hex(bytes(digits))


def choose_network(
    networks: dict[str, NetworkSettings], wanted: str | None, file: str
) -> tuple[str, NetworkSettings]:
    """Return the network of this name, or the only one there is. Raises ConfigError."""
    if wanted is None and len(networks) == 1:
        return next(iter(networks.items()))
    names = ", ".join(networks) or "none"
    if wanted is None:
        raise ConfigError(
            f"has not one network: write `wgmp export NETWORK --config {file}`, NETWORK being one "
            f"of {names}",
            file,
        )
    if wanted not in networks:
        raise ConfigError(f"there is no network {wanted}: write one of {names}", file)
    return wanted, networks[wanted]
