"""`wgmp stats` as text: a paragraph about the gateway, then a table of each kind of part."""

from __future__ import annotations

from wgmp.observe.snapshot import Snapshot
from wgmp.observe.text import age, bits, quantity, size, table


def report(snapshot: Snapshot) -> str:
    """Return the snapshot as text for a terminal."""
    parts = (
        _heading(snapshot),
        _processes(snapshot),
        _rings(snapshot),
        _rates(snapshot),
        _books(snapshot),
        _workers(snapshot),
        _peers(snapshot),
        _drops(snapshot),
    )
    return "\n\n".join(part for part in parts if part)


def _heading(snapshot: Snapshot) -> str:
    states = (f"{name} {'on' if on else 'off'}" for name, on in snapshot.offloads.items())
    shakes = snapshot.handshakes
    dropped = ", ".join(f"{count} {reason}" for reason, count in shakes.dropped.items())
    return "\n".join(
        [
            f"{snapshot.interface}: wgmp {snapshot.version}, {snapshot.shape}, "
            f"{snapshot.workers_count} worker(s), {snapshot.fastpath} fast path, "
            f"AEAD {snapshot.aead}, UDP port {snapshot.listen_port}, up {age(snapshot.uptime_s)}",
            f"offloads: {', '.join(states)}",
            f"sandbox: {snapshot.sandbox}",
            f"handshakes: {shakes.begun} begun, {shakes.answered} answered, "
            f"{shakes.completed} completed, {shakes.given_up} given up"
            + (f"; dropped: {dropped}" if dropped else ""),
            f"cookies: {shakes.cookies_sent} sent, {shakes.cookies_received} received; "
            f"under load: {'yes' if shakes.under_load else 'no'}",
        ]
    )


def _processes(snapshot: Snapshot) -> str:
    return table(
        ["process", "pid", "CPU %", "RSS", "PSS", "switches", "threads", "restarts"],
        [
            [
                p.name,
                str(p.pid),
                f"{p.cpu_percent:.1f}",
                size(p.rss_bytes),
                size(p.pss_bytes) if p.pss_bytes else "-",
                str(p.context_switches),
                str(p.threads),
                str(p.restarts),
            ]
            for p in snapshot.processes
        ],
    )


def _rings(snapshot: Snapshot) -> str:
    return table(
        ["ring", "depth", "slots", "high water", "published", "full", "corrupt", "wakes"],
        [
            [
                r.name,
                *(str(n) for n in (r.depth, r.slots, r.high_water, r.published)),
                *(str(n) for n in (r.full, r.corrupt, r.wake_ups)),
            ]
            for r in snapshot.rings
        ],
    )


def _rates(snapshot: Snapshot) -> str:
    if not snapshot.rates:
        return ""
    return table(
        ["per second", "records", "packets", "bits", "packets per record"],
        [
            [
                rate.stage,
                quantity(rate.records),
                quantity(rate.packets),
                bits(rate.bytes),
                f"{rate.packets_per_record:.1f}" if rate.records else "-",
            ]
            for rate in snapshot.rates
        ],
    )


def _books(snapshot: Snapshot) -> str:
    """The balance of each stage; what does not add up stands in the last column."""
    return table(
        [
            "packets",
            *("in", "+made", "+cut", "=out", "+joined", "+taken", "+staged", "+dropped"),
            "+unexplained",
        ],
        [
            [
                s.name,
                *(str(n) for n in (s.packets_in, s.made, s.cut, s.packets_out, s.joined)),
                *(str(n) for n in (s.taken, s.staged, s.dropped, s.unexplained)),
            ]
            for s in snapshot.stages
        ],
    )


def _workers(snapshot: Snapshot) -> str:
    return table(
        ["worker", "peers", "sealed", "opened"],
        [[w.name, str(w.peers), str(w.sealed), str(w.opened)] for w in snapshot.workers],
    )


def _peers(snapshot: Snapshot) -> str:
    named = any(p.name for p in snapshot.peers)
    rows = []
    for p in snapshot.peers:
        never = p.handshake_age_s is None
        row = [p.public_key, *([p.name] if named else []), p.endpoint or "(none)"]
        row.append("never" if never else f"{age(p.handshake_age_s)} ago")
        row += [size(p.rx_bytes), size(p.tx_bytes), p.worker, str(sum(p.drops.values()))]
        rows.append(row)
    head = ["peer", *(["name"] if named else []), "endpoint", "handshake"]
    return table([*head, "received", "sent", "worker", "dropped"], rows)


def _drops(snapshot: Snapshot) -> str:
    return table(
        ["drops: role", "reason", "count"],
        [
            [role.name, reason, str(count)]
            for role in snapshot.roles
            for reason, count in role.drops.items()
        ],
    )
