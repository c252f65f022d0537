"""Drops by peer: of the tenant alone, under the reason's name, and free for those without any."""

from __future__ import annotations

from roles.rig import INNER, Rig, packet

from wgmp.orders import ROW_BITS, RemovePeer, row_of
from wgmp.peerdrops import PeerDrops
from wgmp.peertable import ROWS
from wgmp.protocol.outcome import DropReason


def resident_kib(name: str) -> int:
    """The memory in use of this process's mapping of that name."""
    found = False
    with open("/proc/self/smaps") as maps:
        for line in maps:
            if "-" in line.split(" ")[0]:
                found = f"wgmp:{name}" in line
            elif found and line.startswith("Rss:"):
                return int(line.split()[1])
    raise AssertionError(f"there is no mapping {name}")


def test_each_reason_has_a_word_for_each_peer() -> None:
    drops = PeerDrops(2)
    for reason in DropReason:
        drops.add(1, reason, reason + 1)
    assert drops.by_reason(0) == {}
    assert drops.by_reason(1) == {reason.name.lower(): reason + 1 for reason in DropReason}
    drops.clear(1)
    assert drops.by_reason(1) == {}


def test_peers_without_drops_cost_next_to_nothing() -> None:
    drops = PeerDrops(ROWS)
    drops.add(7, DropReason.BAD_TAG, 1)
    for row in range(ROWS):
        drops.clear(row) if row != 7 else None
        drops.by_reason(row)
    assert resident_kib("peer drops") * 1024 <= ROWS * 8 + 3 * 4096


def test_a_worker_counts_what_it_drops_of_a_peer() -> None:
    rig = Rig()
    session = rig.connect(rig.add_peer())
    datagram = session.seal(packet(INNER))
    rig.deliver(datagram)
    rig.deliver(datagram)
    rig.deliver(datagram[:-1] + bytes([datagram[-1] ^ 1]))
    assert rig.fabric.peers.drops(1) == {"replayed": 1, "bad_tag": 1}
    assert rig.drops() == {"replayed": 1, "bad_tag": 1}


def test_a_row_s_next_tenant_begins_without_drops() -> None:
    rig = Rig()
    rig.add_peer()
    rig.send(packet())
    assert rig.fabric.peers.drops(1) == {"no_endpoint": 1}
    rig.obey(RemovePeer(1))
    assert rig.fabric.peers.drops(1) == {}
    successor = 1 << ROW_BITS | 1
    assert row_of(successor) == row_of(1)
    rig.add_peer(successor)
    assert rig.fabric.peers.drops(successor) == {}
