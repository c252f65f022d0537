"""What a settings file says, in TOML or JSON, as frozen structs.

```toml
[agent]                                 # may be left out
keys_directory = "/etc/wgmp/keys"

[network.home]                          # any number of networks, each with a name
addresses = ["10.0.0.1/24", "fd00::1/64"]
listen_port = 51820

[[network.home.peers]]                  # any number of peers
public_key = "..."
endpoints = ["vpn.example.org:51820", "[2001:db8::1]:51820"]
allowed_ips = ["10.0.0.2/32"]
```

settings_file.py reads them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from wgmp.agent.values import (
    Address,
    AllowedIP,
    DnsEntry,
    HostPort,
    Place,
    PublicKey,
    TableName,
)
from wgmp.config import Hooked
from wgmp.config_grammar import FWMARK_MAX, KEEPALIVE_MAX, MTU_MAX, MTU_MIN
from wgmp.system import RUN_DIRECTORY

DEFAULT_FILE = Path("/etc/wgmp/agent.toml")
DEFAULT_SOCKET = RUN_DIRECTORY / "agent" / "control.sock"
DEFAULT_KEYS = Path("/etc/wgmp/keys")

_Port = Annotated[int, Meta(ge=0, le=65535)]
_Mtu = Annotated[int, Meta(ge=MTU_MIN, le=MTU_MAX)]
_Mark = Annotated[int, Meta(ge=0, le=FWMARK_MAX)]
_Path = Annotated[str, Meta(min_length=1)]
_Keepalive = Annotated[int, Meta(ge=0, le=KEEPALIVE_MAX)]


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The [agent] table. The list of the gateways that run lies beside `control_socket`.

    `keys_directory`: has a directory per network with private.key and public.key.
    `run_hooks`: whether the networks' pre_up and the like are run; they are shell commands.
    `endpoint_patience_secs`: how long a peer may be silent before its names are resolved again
    and its next endpoint is tried.
    """

    control_socket: _Path = str(DEFAULT_SOCKET)
    keys_directory: _Path = str(DEFAULT_KEYS)
    run_hooks: bool = False
    endpoint_patience_secs: Annotated[float, Meta(ge=1, le=3600)] = 20.0


class PeerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One peer. `endpoint = "..."` in a file is `endpoints` with one item.

    `name`: for people, "" for none. `endpoints`: tried in turn until the peer answers.
    `preshared_key_path`: a file with one key, None for none. Of keepalive 0 is off.
    """

    public_key: PublicKey
    name: str = ""
    preshared_key_path: _Path | None = None
    endpoints: tuple[HostPort, ...] = ()
    allowed_ips: tuple[AllowedIP, ...] = ()
    persistent_keepalive_secs: _Keepalive = 0


class NetworkSettings(Hooked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One network: an interface with its peers.

    `enable_wireguard`: start it with the agent. `interface`: "" for the network's name.
    `mtu`: bytes; None goes by the routes to the endpoints, as wg-quick does.
    `private_key_path`: None for private.key in the keys directory, made when missing.
    `listen_port`: 0 picks one. `fwmark`: 0 for none, or, where all traffic goes through the
    tunnel, for one that is picked. `table`: as wg-quick's Table. `metrics`: where the
    gateway serves them, None for nowhere. The hooks are shell commands in which %i is the
    interface.
    """

    enable_wireguard: bool = True
    interface: str = ""
    mtu: _Mtu | None = None
    private_key_path: _Path | None = None
    listen_port: _Port = 0
    addresses: tuple[Address, ...] = ()
    dns: tuple[DnsEntry, ...] = ()
    table: TableName = TableName("auto")
    fwmark: _Mark = 0
    metrics: Place | None = None
    pre_up: tuple[str, ...] = ()
    post_up: tuple[str, ...] = ()
    pre_down: tuple[str, ...] = ()
    post_down: tuple[str, ...] = ()
    peers: tuple[PeerSettings, ...] = ()

    def peer(self, name_or_key: str) -> PeerSettings | None:
        """Return the peer of this name or public key, if there is one."""
        for peer in self.peers:
            if name_or_key in (peer.public_key, peer.name or None):
                return peer
        return None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """A whole file. `networks`: by name, in the file's order."""

    agent: AgentSettings = AgentSettings()
    networks: dict[str, NetworkSettings] = {}
