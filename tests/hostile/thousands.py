"""Configurations of thousands of peers, and what they cost a gateway."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable

import psutil

from wgmp import control

PREFIXES = 3


def peer_section(number: int, public_key: str = "") -> str:
    """A peer of its own key, endpoint, two IPv4 prefixes and one IPv6 prefix.

    `number`: 0..16383. The prefixes of different numbers do not meet.
    """
    key = public_key or base64.b64encode(os.urandom(32)).decode()
    high, low = number >> 6, number & 63
    return (
        f"[Peer]\nPublicKey = {key}\n"
        f"AllowedIPs = 10.{100 + (high >> 8)}.{high & 255}.{low * 4}/30, "
        f"172.{16 + (number >> 12)}.{number >> 4 & 255}.{(number & 15) * 16}/28, "
        f"fd00:{number + 1:x}::/64\n"
        f"Endpoint = 198.18.{number >> 8}.{number & 255}:51820\n"
    )


def configuration(private_key: str, port: int, sections: Iterable[str]) -> str:
    """A file for `wg setconf`."""
    head = f"[Interface]\nListenPort = {port}\nPrivateKey = {private_key}\n"
    return "\n".join([head, *sections])


def parsed(configuration: str) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """What a configuration says: the interface's keys, and each peer's by its public key."""
    interface: dict[str, str] = {}
    peers: dict[str, dict[str, str]] = {}
    section = interface
    for line in configuration.splitlines():
        key, found, value = line.partition(" = ")
        if line == "[Peer]":
            section = {}
        elif found:
            section[key] = value
            if key == "PublicKey":
                assert value not in peers
                peers[value] = section
    return interface, peers


def processes(interface: str) -> dict[str, psutil.Process]:
    """The processes of a gateway. Ask before there are many peers: the answer lists them all."""
    rows = control.ask_stats(interface).processes
    return {row.name: psutil.Process(row.pid) for row in rows}


def memory(gateway: dict[str, psutil.Process]) -> dict[str, int]:
    """The memory of each of a gateway's processes: PSS in bytes, shared pages counted once."""
    return {name: process.memory_full_info().pss for name, process in gateway.items()}
