"""What a supervisor leaves to its successor: nothing of it is lost on the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wgmp import estate, keys, peertable, sessions
from wgmp.addresses import parse_endpoint, parse_prefix
from wgmp.device import Device
from wgmp.errors import RingError
from wgmp.options import Options
from wgmp.orders import SetPeer, row_of
from wgmp.peerdrops import BLOCK_WORDS
from wgmp.shm import LastingMemory, SecretSegment, Segment
from wgmp.topology import MAX_ROLES

PRIVATE = keys.clamp(bytes([7]) * 32)


class _Ports:
    def open_port(self, port: int) -> int:
        return port or 40_000

    def set_fwmark(self, mark: int) -> None:
        pass


def test_the_layout_of_lasting_memory_is_that_of_the_format() -> None:
    layout = (peertable.ROWS, peertable.ROW_WORDS, peertable.INDEX_ENTRIES, BLOCK_WORDS)
    layout += (sessions._ROWS_PER_PEER, sessions._ROW_WORDS, sessions._PEER)
    layout += (MAX_ROLES,)
    assert (estate.FORMAT, layout) == (2, (16_384, 16, 131_072, 64, 3, 144, 142, 84)), (
        "raise FORMAT"
    )


def test_a_device_is_the_same_after_it_was_handed_over() -> None:
    device = Device(_Ports())
    device.set_private_key(PRIVATE)
    gone = device.add_peer(bytes([1]) * 32)
    assert gone is not None
    device.remove_peer(gone)
    for number in (2, 3):
        entry = device.add_peer(bytes([number]) * 32)
        assert entry is not None
        device.set_preshared_key(entry, bytes([number]) * 32)
        device.set_keepalive(entry, number)
        device.add_allowed_ip(entry, parse_prefix(f"10.0.{number}.0/24"))
    for port in (51820, 51821):  # an order's serial goes along, too
        device.set_endpoint(entry, parse_endpoint(f"[2001:db8::1]:{port}"))
    options = Options(interface="wg0", config=Path("/etc/wireguard/wg0.conf"))
    left = estate.Estate(options, ["worker0"], PRIVATE, device.generations, estate.peers_of(device))
    taken = estate.read(estate.write(left))
    assert taken == left
    successor = Device(_Ports())
    estate.restore(taken, successor)
    assert estate.peers_of(successor) == estate.peers_of(device)
    assert (successor.private_key, successor.generations) == (PRIVATE, device.generations)
    told = [order.peer for order in successor.take_orders() if isinstance(order, SetPeer)]
    assert told == [entry.peer for entry in device.peers.values()]
    # Those who come next get nobody's row, and no id that anybody ever had.
    for number in range(4, 10):
        assert successor.add_peer(bytes([number]) * 32) is not None
    assert len({row_of(peer.peer) for peer in successor.peers.values()}) == 8
    assert gone.peer not in {peer.peer for peer in successor.peers.values()}
    assert "\\x07\\x07" not in repr(taken)


def test_inherited_memory_is_the_same_memory_and_of_the_same_size() -> None:
    first = LastingMemory().segment("sessions", 4096, SecretSegment)
    first.words[3] = 42
    inherited = {"sessions": os.dup(first.descriptor)}
    again = LastingMemory(inherited).segment("sessions", 4096, SecretSegment)
    again.words[4] = 43
    assert (again.words[3], first.words[4]) == (42, 43)
    with pytest.raises(RingError, match="4096 bytes, not 8192"):
        LastingMemory(inherited).segment("sessions", 8192, Segment)
