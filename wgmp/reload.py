"""Making a running device what a configuration file says, as `wg syncconf` does.

| in the file | in the device |
|---|---|
| the same peer as before | stays, with its sessions; only what differs is changed |
| its endpoint, as configured before | stays where the peer is now, should it have roamed |
| no ListenPort, no FwMark | the port stays, and the mark, which default routes may rest on |
| a peer no more | removed |

Addresses, MTU and the link are not touched.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import structs

from wgmp.config import QuickConfig, apply_interface, apply_peer
from wgmp.device import Device
from wgmp.keys import ZERO_KEY
from wgmp.protocol.outcome import Endpoint


def synchronize(
    config: QuickConfig, device: Device, resolve: Callable[[str], Endpoint]
) -> list[str]:
    """Make the device what the file says; return notices, and resolve, as `config.apply` does.

    Raises SocketError and DeviceFullError as it does.
    """
    interface = config.interface
    kept = structs.replace(
        interface,
        listen_port=interface.listen_port or device.listen_port,
        fwmark=interface.fwmark or device.fwmark,
    )
    apply_interface(structs.replace(config, interface=kept), device)
    _drop_what_is_not_given(config, device)
    return [line for peer in config.peers for line in apply_peer(config, peer, device, resolve)]


def _drop_what_is_not_given(config: QuickConfig, device: Device) -> None:
    """Remove peers that the file has not, and what it does not give those it has."""
    peers = {peer.public_key for peer in config.peers}
    preshared = {peer.public_key for peer in config.peers if peer.preshared_key is not None}
    kept_alive = {peer.public_key for peer in config.peers if peer.keepalive is not None}
    for public_key, entry in list(device.peers.items()):
        if public_key not in peers:
            device.remove_peer(entry)
            continue
        if public_key not in preshared:
            device.set_preshared_key(entry, ZERO_KEY)
        if public_key not in kept_alive:
            device.set_keepalive(entry, 0)
