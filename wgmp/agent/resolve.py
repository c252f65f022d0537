"""The endpoints of peers, whose names are asked for without holding up anything else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wgmp.agent.settings import PeerSettings
from wgmp.lookup import look_up
from wgmp.protocol.outcome import Endpoint


async def first_endpoints(peers: Iterable[PeerSettings]) -> dict[str, Endpoint]:
    """Return by public key the first address of each peer that has one."""
    asked = list(peers)
    answers = await look_up(text for peer in asked for text in peer.endpoints)
    found = {}
    for peer in asked:
        for text in reversed(peer.endpoints):
            for endpoint in answers.all(text)[:1]:
                found[str(peer.public_key)] = endpoint
    return found


async def addresses(endpoints: Sequence[str]) -> list[Endpoint]:
    """Return all addresses of all the endpoints in order, each once.

    A name that does not resolve, or not within some seconds, has none.
    """
    answers = await look_up(endpoints)
    return list(dict.fromkeys(address for text in endpoints for address in answers.all(text)))
