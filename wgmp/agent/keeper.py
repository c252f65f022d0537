"""Keeps the endpoints of one network's peers: looks every few seconds, and tries others in turn.

endpoints.py decides; here is what it takes: the gateway's figures, the clock, the resolver.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from wgmp.addresses import format_endpoint
from wgmp.agent import resolve, uapi_client
from wgmp.agent.device_lines import endpoint_lines
from wgmp.agent.endpoints import Silence, following
from wgmp.agent.settings import NetworkSettings, PeerSettings
from wgmp.agent.uapi_client import PeerView
from wgmp.errors import ControlError

log = logging.getLogger("wgmp")

_INTERVAL_S = 5.0


async def keep(name: str, settings: Callable[[], NetworkSettings], patience_s: float) -> None:
    """Keep the endpoints until cancelled. `settings`: the network's, as they are now."""
    silences: dict[str, Silence] = {}
    while True:
        await asyncio.sleep(min(_INTERVAL_S, patience_s))
        network = settings()
        peers = [peer for peer in network.peers if peer.endpoints]
        if not peers:
            continue
        try:
            views = (await uapi_client.get(network.interface)).peers
            for peer in peers:
                view = views.get(peer.public_key)
                if view is None:
                    continue
                silence = silences.setdefault(peer.public_key, Silence(patience_s))
                if _is_time(silence, view):
                    await _try_next(name, network.interface, peer, view)
        except ControlError as error:
            log.debug("%s: %s", name, error)


def _is_time(silence: Silence, view: PeerView) -> bool:
    age_s = time.time() - view.handshake_at if view.handshake_at else None
    now, has_endpoint = time.monotonic(), view.endpoint is not None
    return silence.look(now, view.rx_bytes, view.tx_bytes, age_s, has_endpoint)


async def _try_next(name: str, interface: str, peer: PeerSettings, view: PeerView) -> None:
    candidates = await resolve.addresses(peer.endpoints)
    endpoint = following(view.endpoint, candidates)
    who = peer.name or peer.public_key
    if endpoint is not None:
        log.info("%s: %s is silent: trying it at %s", name, who, format_endpoint(endpoint))
        await uapi_client.change(interface, endpoint_lines(peer.public_key, endpoint))
    elif not candidates:
        log.info("%s: %s is silent, and its endpoint does not resolve", name, who)
