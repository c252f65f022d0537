"""Addresses, prefixes and endpoints as text: what `wg` and configuration files write.

Inside wgmp an address is packed (4 or 16 bytes, network order) and a prefix is the pair
(packed network with its host bits zero, length in bits). The parsers raise ValueError with a
phrase that completes "`text` ...".
"""

from __future__ import annotations

import re
import socket

from wgmp.protocol.allowedips import Prefix
from wgmp.protocol.outcome import Endpoint

PORT_MAX = 65535

# IPv4 inside IPv6 (RFC 4291 section 2.5.5.2): one peer, whichever socket it is written for.
_MAPPED = bytes(10) + b"\xff\xff"
_HOST_PORT = re.compile(r"(?:\[([^\[\]]+)\]|([^\[\]:]+)):([0-9]{1,5})", re.ASCII)
_INDEX = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)
_LENGTH = re.compile(r"0|[1-9][0-9]{0,2}", re.ASCII)


def parse_address(text: str) -> bytes:
    """Return the packed address of an IPv4 or IPv6 literal without a zone."""
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        return socket.inet_pton(family, text)
    except (OSError, ValueError):  # ValueError: a NUL or a character beyond ASCII
        raise ValueError("is not an IP address") from None


def format_address(address: bytes) -> str:
    """Return the text of a packed address."""
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


def parse_prefix(text: str) -> Prefix:
    """Return the prefix of `address/length`, its host bits cleared.

    Without "/length" it is the one address (/32 or /128).
    """
    host, slash, tail = text.partition("/")
    address = parse_address(host)
    bits = 8 * len(address)
    if not slash:
        return address, bits
    if _LENGTH.fullmatch(tail) is None or int(tail) > bits:
        raise ValueError(f"has no prefix length of 0 to {bits} after the slash")
    length = int(tail)
    return clear_host_bits(address, length), length


def clear_host_bits(address: bytes, length: int) -> bytes:
    """Return the packed `address` with all bits beyond the first `length` zero."""
    host = 8 * len(address) - length
    if host == 0:
        return address
    return (int.from_bytes(address, "big") >> host << host).to_bytes(len(address), "big")


def format_prefix(prefix: Prefix) -> str:
    """Return `address/length`."""
    return f"{format_address(prefix[0])}/{prefix[1]}"


def split_host_port(text: str) -> tuple[str, int]:
    """Return host and port of `host:port`, `address:port` or `[address]:port`; port 1..65535."""
    match = _HOST_PORT.fullmatch(text)
    if match is None:
        raise ValueError("is not host:port, address:port or [IPv6 address]:port")
    port = int(match[3])
    if not 1 <= port <= PORT_MAX:
        raise ValueError(f"has no port of 1 to {PORT_MAX}")
    return match[1] or match[2], port


def parse_endpoint(text: str) -> Endpoint:
    """Return the endpoint of `address:port` or `[address%zone]:port`; names are refused."""
    host, port = split_host_port(text)
    if (":" in host) != text.startswith("["):
        raise ValueError("has brackets around IPv4, or none around IPv6")
    host, percent, zone = host.partition("%")
    address = parse_address(host)
    if percent and len(address) == 4:
        raise ValueError("has a zone on an IPv4 address")
    return _endpoint(address, port, _interface_index(zone) if percent else 0)


def resolve_endpoints(text: str) -> list[Endpoint]:
    """Return the endpoints of `host:port`, asking the resolver when the host is a name.

    Blocks while it asks. Raises ValueError for text that is no endpoint, and OSError
    (socket.gaierror) when the name has no address.
    """
    host, port = split_host_port(text)
    if text.startswith("["):
        return [parse_endpoint(text)]
    endpoints = []
    for *_, sockaddr in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM):
        scope_id = int(sockaddr[3]) if len(sockaddr) == 4 else 0
        address = parse_address(str(sockaddr[0]).partition("%")[0])
        endpoints.append(_endpoint(address, port, scope_id))
    return endpoints


def format_endpoint(endpoint: Endpoint) -> str:
    """Return `address:port` or `[address]:port`, with the zone as an interface index."""
    if len(endpoint.address) == 4:
        return f"{format_address(endpoint.address)}:{endpoint.port}"
    zone = f"%{endpoint.scope_id}" if endpoint.scope_id else ""
    return f"[{format_address(endpoint.address)}{zone}]:{endpoint.port}"


def _endpoint(address: bytes, port: int, scope_id: int) -> Endpoint:
    if address.startswith(_MAPPED) and len(address) == 16:
        return Endpoint(address[12:], port)
    return Endpoint(address, port, scope_id)


def _interface_index(zone: str) -> int:
    if _INDEX.fullmatch(zone) and int(zone) < 1 << 31:
        return int(zone)
    try:
        return socket.if_nametoindex(zone)
    except (OSError, ValueError):
        raise ValueError("has a zone that is no interface here") from None
