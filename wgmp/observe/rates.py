"""What happened between two snapshots, per second."""

from __future__ import annotations

from wgmp.observe.balance import Stage
from wgmp.observe.snapshot import PeerFigures, Rate, Snapshot


def stage_rates(before: Snapshot, after: Snapshot) -> list[Rate]:
    """Return what each stage took in, per second. `before`: a snapshot of the same gateway.

    The readers take packets one by one from the kernel; theirs is what they put into records.
    """
    seconds = max(1e-3, after.taken_at - before.taken_at)
    earlier = {stage.name: stage for stage in before.stages}
    rates = []
    for stage in after.stages:
        # A gateway that was started again begins at 0.
        records, packets, size = (
            max(0, now - then)
            for now, then in zip(
                _through(stage), _through(earlier.get(stage.name, stage)), strict=True
            )
        )
        shared = packets / records if records else 0.0
        rates.append(Rate(stage.name, records / seconds, packets / seconds, size / seconds, shared))
    return rates


def _through(stage: Stage) -> tuple[int, int, int]:
    # Readers of several queues have numbers.
    if stage.name.rstrip("0123456789").endswith("_reader"):
        return stage.records_out, stage.packets_out, stage.bytes_out
    return stage.records_in, stage.packets_in, stage.bytes_in


def peer_rates(before: Snapshot, after: Snapshot) -> dict[str, tuple[float, float]]:
    """Return (received, sent) bytes per second by public key, of the peers of both."""
    seconds = max(1e-3, after.taken_at - before.taken_at)
    earlier = {peer.public_key: peer for peer in before.peers}

    def rate(now: PeerFigures) -> tuple[float, float]:
        then = earlier.get(now.public_key, now)
        # A peer that was removed and added again begins at 0.
        return (
            max(0, now.rx_bytes - then.rx_bytes) / seconds,
            max(0, now.tx_bytes - then.tx_bytes) / seconds,
        )

    return {peer.public_key: rate(peer) for peer in after.peers}
