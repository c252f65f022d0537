"""Addresses, prefixes and endpoints: from text and back, as the rest of the world writes them."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgmp.addresses import (
    clear_host_bits,
    format_endpoint,
    format_prefix,
    parse_endpoint,
    parse_prefix,
    resolve_endpoints,
)
from wgmp.protocol.outcome import Endpoint

LO = socket.if_nametoindex("lo")
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


@given(ADDRESSES, st.data())
def test_a_prefix_is_the_network_that_ipaddress_makes_of_it(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, data: st.DataObject
) -> None:
    length = data.draw(st.integers(0, address.max_prefixlen))
    network = ipaddress.ip_network((address, length), strict=False)
    prefix = parse_prefix(f"{address}/{length}")
    assert prefix == (network.network_address.packed, length)
    assert ipaddress.ip_network(format_prefix(prefix)) == network
    assert clear_host_bits(address.packed, length) == prefix[0]
    assert parse_prefix(str(address)) == (address.packed, address.max_prefixlen)


@given(ADDRESSES, st.integers(1, 65535))
def test_an_endpoint_is_written_as_it_is_read(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    text = f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"
    endpoint = parse_endpoint(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    assert endpoint == Endpoint((mapped or address).packed, port)
    assert parse_endpoint(format_endpoint(endpoint)) == endpoint
    assert resolve_endpoints(text) == [endpoint]


def test_a_zone_is_an_interface_by_name_or_number() -> None:
    for zone in ("lo", str(LO)):
        endpoint = parse_endpoint(f"[fe80::1%{zone}]:7")
        assert endpoint.scope_id == LO
        assert format_endpoint(endpoint) == f"[fe80::1%{LO}]:7"
    assert parse_endpoint("[fe80::1%2147483647]:7").scope_id == 2**31 - 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[192.0.2.1]:7", "has brackets around IPv4"),
        ("192.0.2.1%lo:7", "has a zone on an IPv4 address"),
        ("[fe80::1%2147483648]:7", "has a zone that is no interface here"),
        ("[fe80::1%0]:7", "has a zone that is no interface here"),
        ("[fe80::1%nowhere]:7", "has a zone that is no interface here"),
        ("[fe80::1%]:7", "has a zone that is no interface here"),
        ("vpn.example.org:7", "is not an IP address"),
        ("192.0.2.1:70000", "has no port of 1 to 65535"),
        ("192.0.2.1", "is not host:port"),
    ],
)
def test_what_is_no_endpoint_is_refused_with_a_phrase(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_endpoint(text)


@pytest.mark.parametrize("length", ["33", "-1", "+8", "08", "8 ", "", "\u0668"])
def test_what_is_no_prefix_length_is_refused(length: str) -> None:
    with pytest.raises(ValueError, match="has no prefix length of 0 to 32 after the slash"):
        parse_prefix(f"10.0.0.0/{length}")


def test_brackets_are_for_addresses_and_never_looked_up() -> None:
    with pytest.raises(ValueError, match="has brackets around IPv4, or none around IPv6"):
        resolve_endpoints("[localhost]:7")
