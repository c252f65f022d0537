"""SaveConfig: what a gateway has become is written into its file when it stops.

As with wg-quick, peers that were added, removed or changed by `wg`, where they are now, the port
and the mark. Unlike it, all else in the file stays: comments, order, addresses, and an endpoint's
name while the peer is still where the name led.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import structs

from wgmp import config as quick
from wgmp.addresses import format_endpoint
from wgmp.config import PeerConfig, QuickConfig
from wgmp.device import Device
from wgmp.errors import ConfigError
from wgmp.files import read_text, write_whole
from wgmp.keys import ZERO_KEY, clamp
from wgmp.manage import quick_file
from wgmp.peerentry import PeerEntry
from wgmp.peertable import RowFigures
from wgmp.protocol.outcome import Endpoint

log = logging.getLogger("wgmp")

Figures = Callable[[int], RowFigures]
"""What has become of a peer, by its id: `PeerTable.figures`."""

Endpoints = Mapping[bytes, Endpoint | None]
"""Where peers are, by their public keys."""


def save_if_wanted(path: Path, device: Device, figures: Figures, at_start: Endpoints) -> None:
    """Write the device into its file, should that say SaveConfig. A failure is a log line.

    `at_start`: where the endpoints in the file led when it was read.
    """
    try:
        text = read_text(path)
        before = quick.parse(text, str(path))
        if not before.interface.save_config:
            return
        wanted = quick_file.revise(text, current(before, device, figures, at_start))
        if wanted != text:
            write_whole(path, wanted.encode())
            log.info("%s was saved", path)
    except ConfigError as error:
        log.warning("SaveConfig: %s: not saved", error)
    except OSError as error:
        log.warning("SaveConfig: %s: %s: not saved", path, error.strerror)


def endpoints_of(device: Device) -> Endpoints:
    """Return where the peers are, as configured now."""
    return {key: entry.endpoint for key, entry in device.peers.items()}


def current(
    before: QuickConfig, device: Device, figures: Figures, at_start: Endpoints
) -> QuickConfig:
    """Return what a file that said `before` has to say of the device now."""
    same_key = clamp(before.interface.private_key or ZERO_KEY) == device.private_key
    interface = structs.replace(
        before.interface,
        private_key=before.interface.private_key if same_key else device.private_key,
        listen_port=device.listen_port,
        fwmark=device.fwmark,
    )
    old = {peer.public_key: peer for peer in before.peers}
    added = (key for key in device.peers if key not in old)
    peers = []
    for key in (*old, *added):
        if (entry := device.peers.get(key)) is not None:
            was = old.get(key) or PeerConfig(public_key=key)
            now = figures(entry.peer).endpoint or entry.endpoint
            where_it_was = bool(was.endpoint) and now == at_start.get(key)
            endpoint = was.endpoint if now is None or where_it_was else format_endpoint(now)
            peers.append(_peer(was, entry, endpoint))
    return QuickConfig(before.file, interface, tuple(peers))


def _peer(was: PeerConfig, entry: PeerEntry, endpoint: str) -> PeerConfig:
    """Return the peer as it is now, and as it was written where that is the same."""
    psk, keepalive, allowed_ips = entry.preshared_key, entry.keepalive, entry.allowed_ips
    return structs.replace(
        was,
        endpoint=endpoint,
        preshared_key=was.preshared_key if psk == (was.preshared_key or ZERO_KEY) else psk,
        keepalive=was.keepalive if keepalive == (was.keepalive or 0) else keepalive,
        allowed_ips=was.allowed_ips
        if set(was.allowed_ips) == set(allowed_ips)
        else tuple(allowed_ips),
    )
