"""What a gateway says of itself at one moment: the answer of its control socket.

Figures are counted from the start of the gateway, but for those that say otherwise. What is not
known inside the gateway, the client fills in: processes (`processes`) and rates (`rates`).
"""

from __future__ import annotations

import msgspec

from wgmp.observe.balance import Stage


class ProcessFigures(msgspec.Struct):
    """One process. `pid`: 0 while it is being replaced; `hangs`: how often it was replaced for
    being silent, of all restarts; `heartbeat_age_s`: since the last turn of
    its loop, 0 for the supervisor.

    From psutil, zeros until they are measured: CPU in percent of one core, memory in bytes,
    context switches since its start.
    """

    name: str
    roles: list[str]
    pid: int
    restarts: int
    hangs: int = 0
    heartbeat_age_s: float = 0.0
    cpu_percent: float = 0.0
    rss_bytes: int = 0
    pss_bytes: int = 0
    context_switches: int = 0
    threads: int = 0


class RingFigures(msgspec.Struct):
    """One ring, in records. `full`: records that found no slot; `corrupt`: failed their check."""

    name: str
    slots: int
    depth: int
    published: int
    high_water: int
    full: int
    wake_ups: int
    corrupt: int


class RoleFigures(msgspec.Struct):
    """One role's counters by name (`counters.Counter`), and its drops by reason."""

    name: str
    counters: dict[str, int]
    drops: dict[str, int]


class WorkerFigures(msgspec.Struct):
    """One worker: peers it owns, packets it sealed, datagrams it opened."""

    name: str
    peers: int
    sealed: int
    opened: int


class HandshakeFigures(msgspec.Struct):
    """Handshakes by result, and cookies; handshake messages dropped by reason.

    `given_up`: no answer for 90 s. `under_load`: cookies are asked for at this moment.
    """

    begun: int
    answered: int
    completed: int
    given_up: int
    cookies_sent: int
    cookies_received: int
    under_load: bool
    dropped: dict[str, int]


class PeerFigures(msgspec.Struct):
    """One peer. `name`: from the configuration's comments, "" for none; `endpoint`: "" when not
    known; `handshake_age_s`: None before the first; `drops`: its worker's, by reason."""

    public_key: str
    name: str
    endpoint: str
    allowed_ips: list[str]
    handshake_age_s: float | None
    rx_bytes: int
    tx_bytes: int
    worker: str
    drops: dict[str, int]


class Rate(msgspec.Struct):
    """What went through a stage per second, and how many packets shared a record."""

    stage: str
    records: float
    packets: float
    bytes: float
    packets_per_record: float


class Snapshot(msgspec.Struct):
    """Everything at one moment. `drops`: the sum over all roles, by reason; `taken_at`: monotonic
    seconds; `rates`: empty until there are two snapshots to compare."""

    interface: str
    version: str
    shape: str
    workers_count: int
    listen_port: int
    fwmark: int
    fastpath: str
    aead: str
    taken_at: float
    uptime_s: float
    offloads: dict[str, bool]
    sandbox: str
    handshakes: HandshakeFigures
    processes: list[ProcessFigures]
    rings: list[RingFigures]
    roles: list[RoleFigures]
    stages: list[Stage]
    workers: list[WorkerFigures]
    peers: list[PeerFigures]
    drops: dict[str, int]
    rates: list[Rate] = msgspec.field(default_factory=list)
