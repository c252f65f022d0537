"""Host names to endpoints, asked without holding up anything else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Sequence
from typing import Any

from wgmp.addresses import parse_address, parse_endpoint, split_host_port
from wgmp.agent.settings import PeerSettings
from wgmp.protocol.outcome import Endpoint

_LIMIT_S = 5.0


async def first_endpoints(peers: Iterable[PeerSettings]) -> dict[str, Endpoint]:
    """Return by public key the first address of each peer that has one."""
    asked = [peer for peer in peers if peer.endpoints]
    found = await asyncio.gather(*(addresses(peer.endpoints) for peer in asked))
    return {peer.public_key: first[0] for peer, first in zip(asked, found, strict=True) if first}


async def addresses(endpoints: Sequence[str]) -> list[Endpoint]:
    """Return all addresses of all the endpoints in order, each once.

    A name that does not resolve, or not within some seconds, has none.
    """
    found = await asyncio.gather(*(_addresses(endpoint) for endpoint in endpoints))
    return list(dict.fromkeys(address for several in found for address in several))


async def _addresses(endpoint: str) -> list[Endpoint]:
    host, port = split_host_port(endpoint)
    try:
        return [parse_endpoint(endpoint)]
    except ValueError:
        pass  # a name
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_LIMIT_S):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, TimeoutError, UnicodeError):
        return []
    return [_endpoint(sockaddr, port) for *_, sockaddr in found]


def _endpoint(sockaddr: tuple[Any, ...], port: int) -> Endpoint:
    """Return the endpoint of what getaddrinfo says: (address, port) or with flow and scope."""
    scope_id = int(sockaddr[3]) if len(sockaddr) == 4 else 0
    return Endpoint(parse_address(str(sockaddr[0]).partition("%")[0]), port, scope_id)
