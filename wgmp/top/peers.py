"""The rows of the peers' table, and how each column shows and sorts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wgmp.observe.rates import peer_rates
from wgmp.observe.snapshot import PeerFigures, Snapshot
from wgmp.observe.text import age, bits, size


@dataclass(frozen=True, slots=True)
class PeerRow:
    """A peer, with bytes per second received and sent since the snapshot before."""

    peer: PeerFigures
    rx_rate: float
    tx_rate: float

    @property
    def title(self) -> str:
        """The peer's name, or its key."""
        return self.peer.name or self.peer.public_key

    @property
    def dropped(self) -> int:
        """All drops of the peer."""
        return sum(self.peer.drops.values())


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name for `--sort`, its title, the key that sorts by it, and what it shows.

    `descending`: what comes first without inverting. `wide`: shown in wide terminals only.
    """

    name: str
    title: str
    key: str
    value: Callable[[PeerRow], str | float]
    show: Callable[[PeerRow], str]
    descending: bool = True
    wide: bool = False


def _age(row: PeerRow) -> float:
    never = row.peer.handshake_age_s is None
    return float("inf") if never else row.peer.handshake_age_s or 0.0


def _rate(bytes_per_second: float) -> str:
    return bits(bytes_per_second) if bytes_per_second else "0"


def _drops(row: PeerRow) -> str:
    reasons = sorted(row.peer.drops.items(), key=lambda item: -item[1])
    return ", ".join(f"{count} {reason}" for reason, count in reasons) or "-"


COLUMNS = (
    Column("peer", "peer", "n", lambda r: r.title.lower(), lambda r: r.title, descending=False),
    Column(
        "endpoint",
        "endpoint",
        "e",
        lambda r: r.peer.endpoint,
        lambda r: r.peer.endpoint or "-",
        descending=False,
    ),
    Column("rx", "rx", "r", lambda r: r.rx_rate, lambda r: _rate(r.rx_rate)),
    Column("tx", "tx", "t", lambda r: r.tx_rate, lambda r: _rate(r.tx_rate)),
    Column(
        "received",
        "received",
        "R",
        lambda r: r.peer.rx_bytes,
        lambda r: size(r.peer.rx_bytes),
        wide=True,
    ),
    Column(
        "sent", "sent", "T", lambda r: r.peer.tx_bytes, lambda r: size(r.peer.tx_bytes), wide=True
    ),
    Column(
        "handshake", "shake", "h", _age, lambda r: age(r.peer.handshake_age_s), descending=False
    ),
    Column(
        "worker", "worker", "w", lambda r: r.peer.worker, lambda r: r.peer.worker, False, wide=True
    ),
    Column("drops", "drops", "d", lambda r: r.dropped, _drops),
)


def peer_rows(
    before: Snapshot, after: Snapshot, sort: Column, inverted: bool, text: str
) -> list[PeerRow]:
    """Return the peers whose name, key, endpoint or allowed IPs contain `text`, in order."""
    rates = peer_rates(before, after)
    wanted = text.lower()
    rows = [
        PeerRow(peer, *rates[peer.public_key]) for peer in after.peers if _matches(peer, wanted)
    ]
    # Among equals, those with traffic behind them come first.
    rows.sort(key=lambda row: (-row.peer.rx_bytes - row.peer.tx_bytes, row.title.lower()))
    rows.sort(key=sort.value, reverse=sort.descending != inverted)
    return rows


def _matches(peer: PeerFigures, wanted: str) -> bool:
    if not wanted:
        return True
    fields = (peer.name, peer.public_key, peer.endpoint, *peer.allowed_ips, *peer.drops)
    return any(wanted in field.lower() for field in fields)
