"""`wgmp status`: what `wg show` shows, in its words, with the peers' names.

It asks the UAPI socket, as `wg` does, so it works on any userspace WireGuard. WG_HIDE_KEYS and
WG_COLOR_MODE mean what they mean to `wg` (wg(8)). Without names the text is that of `wg show`,
byte by byte; a name is one more line.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

import msgspec

from wgmp.asking import asking_gateway, is_left_over
from wgmp.errors import ControlError
from wgmp.keys import public_key_of, to_base64
from wgmp.uapi_server import socket_path

_TIMEOUT_S = 10.0
_HIDDEN = "(hidden)"


class PeerStatus(msgspec.Struct):
    """One peer. `latest_handshake`: UNIX seconds, 0 never; `persistent_keepalive`: seconds, 0
    off; `preshared_key`: "" without one, else hidden or not; `name`: "" without one."""

    public_key: str
    name: str = ""
    preshared_key: str = ""
    endpoint: str = ""
    allowed_ips: list[str] = msgspec.field(default_factory=list)
    latest_handshake: int = 0
    latest_handshake_ns: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    persistent_keepalive: int = 0


class DeviceStatus(msgspec.Struct):
    """One interface and its peers, the most recent handshake first. Keys: "" without one."""

    interface: str
    public_key: str = ""
    private_key: str = ""
    listen_port: int = 0
    fwmark: int = 0
    peers: list[PeerStatus] = msgspec.field(default_factory=list)


def interfaces() -> list[str]:
    """Return the interfaces at whose UAPI sockets somebody listens, sorted."""
    sockets = socket_path("any").parent.glob("*.sock")
    return sorted(path.stem for path in sockets if not is_left_over(path))


def runs(interface: str) -> bool:
    """Tell whether the interface has a UAPI socket."""
    return socket_path(interface).is_socket()


def ask(interface: str, names: Mapping[str, str], hide_keys: bool) -> DeviceStatus:
    """Ask the interface's UAPI socket. `names`: by public key. Raises ControlError."""
    path = socket_path(interface)
    with asking_gateway(path, interface):
        text = _get(path)
    return parse(interface, text, names, hide_keys)


def _get(path: Path) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_TIMEOUT_S)
        client.connect(str(path))
        client.sendall(b"get=1\n\n")
        pieces: list[bytes] = []
        while not pieces or not b"".join(pieces[-2:]).endswith(b"\n\n"):
            piece = client.recv(1 << 18)
            if not piece:
                raise ConnectionError("it hung up")
            pieces.append(piece)
    return b"".join(pieces).decode()


def parse(interface: str, text: str, names: Mapping[str, str], hide_keys: bool) -> DeviceStatus:
    """Return what the answer to `get=1` says; raise ControlError when it is a refusal."""
    device = DeviceStatus(interface)
    peer = PeerStatus("")
    for line in text.splitlines():
        field, _, value = line.partition("=")
        match field:
            case "private_key":
                key = bytes.fromhex(value)
                device.public_key = to_base64(public_key_of(key))
                device.private_key = _HIDDEN if hide_keys else to_base64(key)
            case "listen_port":
                device.listen_port = int(value)
            case "fwmark":
                device.fwmark = int(value)
            case "public_key":
                public_key = to_base64(bytes.fromhex(value))
                peer = PeerStatus(public_key, names.get(public_key, ""))
                device.peers.append(peer)
            case "preshared_key" if any(bytes.fromhex(value)):
                peer.preshared_key = _HIDDEN if hide_keys else to_base64(bytes.fromhex(value))
            case "endpoint":
                peer.endpoint = value
            case "allowed_ip":
                peer.allowed_ips.append(value)
            case "last_handshake_time_sec":
                peer.latest_handshake = int(value)
            case "last_handshake_time_nsec":
                peer.latest_handshake_ns = int(value)
            case "rx_bytes":
                peer.rx_bytes = int(value)
            case "tx_bytes":
                peer.tx_bytes = int(value)
            case "persistent_keepalive_interval":
                peer.persistent_keepalive = int(value)
            case "errno" if value != "0":
                raise ControlError(f"the gateway on {interface} answers with errno {value}")
    device.peers.sort(key=lambda each: (-each.latest_handshake, -each.latest_handshake_ns))
    return device
