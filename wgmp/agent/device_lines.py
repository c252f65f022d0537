"""From a network's settings to the UAPI lines that make its gateway so.

A gateway that carries traffic is told only what may differ: a device costs its roles nothing for
what is said again (device.py), but for two things. An endpoint said again overrides where the
peer has roamed to, and the port 0 said again picks another one. So those two go to a gateway that
runs only when the settings changed; that is what leaves running sessions alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from wgmp.addresses import format_endpoint
from wgmp.agent.secret import Secrets
from wgmp.agent.settings import NetworkSettings, PeerSettings
from wgmp.agent.uapi_client import DeviceView
from wgmp.keys import from_base64, to_hex
from wgmp.protocol.outcome import Endpoint

NEW = DeviceView()
"""What a gateway is before it is told anything."""

_NO_KEY = b"0" * 64


def lines(
    network: NetworkSettings,
    secrets: Secrets,
    endpoints: Mapping[str, Endpoint],
    before: NetworkSettings | None = None,
    now: DeviceView = NEW,
) -> bytearray:
    """Return the lines that bring a gateway from `before` (None: it is new) to `network`.

    `endpoints`: by public key, of those peers that are to be sent to there from now on. `now`:
    what the gateway says, for a change that failed half-way may have moved its port and mark.
    The buffer holds secret keys: whoever takes it wipes it.
    """
    buffer = bytearray(b"private_key=")
    secrets.private.append_hex(buffer)
    buffer += b"\n"
    port, mark = network.listen_port, network.fwmark
    if before is None or port != before.listen_port or port not in (0, now.listen_port):
        buffer += b"listen_port=%d\n" % port
    # Without a mark of its own a default route has chosen one.
    if before is None or mark != before.fwmark or mark not in (0, now.fwmark):
        buffer += b"fwmark=%d\n" % mark
    kept = {peer.public_key for peer in network.peers}
    for public_key in now.peers:
        if public_key not in kept:
            buffer += b"public_key=%s\nremove=true\n" % _hex(public_key)
    for peer in network.peers:
        _append_peer(buffer, peer, secrets, endpoints.get(peer.public_key))
    return buffer


def endpoint_lines(public_key: str, endpoint: Endpoint) -> bytearray:
    """Return the lines that send to a peer somewhere else, if the gateway still has it."""
    address = format_endpoint(endpoint).encode()
    return bytearray(
        b"public_key=%s\nupdate_only=true\nendpoint=%s\n" % (_hex(public_key), address)
    )


def _append_peer(
    buffer: bytearray, peer: PeerSettings, secrets: Secrets, endpoint: Endpoint | None
) -> None:
    buffer += b"public_key=%s\npreshared_key=" % _hex(peer.public_key)
    preshared = secrets.preshared.get(peer.public_key)
    if preshared is None:
        buffer += _NO_KEY
    else:
        preshared.append_hex(buffer)
    buffer += b"\npersistent_keepalive_interval=%d\n" % peer.persistent_keepalive_secs
    if endpoint is not None:
        buffer += b"endpoint=%s\n" % format_endpoint(endpoint).encode()
    buffer += b"replace_allowed_ips=true\n"
    for prefix in peer.allowed_ips:
        buffer += b"allowed_ip=%s\n" % prefix.encode()


def _hex(public_key: str) -> bytes:
    return to_hex(from_base64(public_key)).encode()
