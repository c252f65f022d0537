"""Metrics about peers, under the names of the two exporters in common use.

prometheus_wireguard_exporter labels with interface, public_key, allowed_ips and friendly_name,
wireguard_exporter with device and public_key: dashboards made for either work on both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from wgmp.addresses import format_endpoint, format_prefix
from wgmp.keys import to_base64
from wgmp.observe.exposition import Family, escaped, labels

if TYPE_CHECKING:
    from wgmp.peerentry import PeerEntry
    from wgmp.supervisor import Supervisor


class _Peer(NamedTuple):
    """What the families need of a peer. `labels`, `device_labels`: those of each exporter."""

    public_key: str
    labels: str
    device_labels: str
    info_labels: str
    received: int
    sent: int
    handshake_s: int
    drops: dict[str, int]
    info: int = 1


_Head = tuple[Literal["counter", "gauge"], str]

_SENT: _Head = "counter", "Bytes sent to the peer"
_RECEIVED: _Head = "counter", "Bytes received from the peer"
_HANDSHAKE: _Head = "gauge", "UNIX timestamp of the latest handshake with the peer, 0 for never"
_INFO: _Head = "gauge", "Always 1; endpoint, allowed IPs and name of the peer"

# Name, kind and help of each family; the fields of _Peer with its labels and its value.
_FAMILIES: Final = (
    ("wireguard_sent_bytes_total", *_SENT, "labels", "sent"),
    ("wireguard_received_bytes_total", *_RECEIVED, "labels", "received"),
    ("wireguard_latest_handshake_seconds", *_HANDSHAKE, "labels", "handshake_s"),
    ("wireguard_peer_info", *_INFO, "info_labels", "info"),
    ("wireguard_peer_receive_bytes_total", *_RECEIVED, "device_labels", "received"),
    ("wireguard_peer_transmit_bytes_total", *_SENT, "device_labels", "sent"),
    ("wireguard_peer_last_handshake_seconds", *_HANDSHAKE, "device_labels", "handshake_s"),
)


def peer_families(supervisor: Supervisor) -> Iterator[Family | None]:
    """Yield the families; None now and then before the first, when some of the work is done."""
    names = supervisor.names.current()
    peers = []
    for number, entry in enumerate(list(supervisor.device.peers.values())):
        peers.append(_peer(supervisor, entry, names))
        if number % 200 == 199:
            yield None
    for name, kind, text, which, value in _FAMILIES:
        yield Family(name, kind, text, ((getattr(p, which), getattr(p, value)) for p in peers))
    interface = supervisor.interface
    yield Family(
        "wgmp_peer_drops_total",
        "counter",
        "Packets from or for the peer that went no further, by reason, where there are any",
        (
            (labels(interface=interface, public_key=peer.public_key, reason=reason), count)
            for peer in peers
            if peer.drops
            for reason, count in peer.drops.items()
        ),
    )


def _peer(supervisor: Supervisor, entry: PeerEntry, names: dict[str, str]) -> _Peer:
    table, interface = supervisor.fabric.peers, escaped(supervisor.interface)
    figures = table.figures(entry.peer)
    endpoint = figures.endpoint or entry.endpoint
    # Keys and addresses need no escapes; there are thousands of them.
    public_key = to_base64(entry.public_key)
    allowed_ips = ",".join(map(format_prefix, entry.allowed_ips))
    where = "" if endpoint is None else format_endpoint(endpoint)
    name = escaped(names.get(public_key, ""))
    friendly_name = f',friendly_name="{name}"' if name else ""
    device = f'device="{interface}",public_key="{public_key}"'
    return _Peer(
        public_key,
        f'{{interface="{interface}",public_key="{public_key}",allowed_ips="{allowed_ips}"'
        f"{friendly_name}}}",
        f"{{{device}}}",
        f'{{{device},endpoint="{where}",allowed_ips="{allowed_ips}",name="{name}"}}',
        figures.rx_bytes,
        figures.tx_bytes,
        figures.last_handshake_ns // 1_000_000_000,
        table.drops(entry.peer),
    )
