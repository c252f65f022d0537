"""The receiver indices of one worker, and whose they are (the protocol core's IndexSpace)."""

from __future__ import annotations

import os

from wgmp.peertable import IndexTable, PeerTable


class Indices:
    """Draws indices of the class `worker` of `workers` from the shared table."""

    __slots__ = ("_by_index", "_peers", "_table", "_worker", "_workers")

    def __init__(self, table: IndexTable, peers: PeerTable, worker: int, workers: int) -> None:
        self._table = table
        self._peers = peers
        self._worker = worker
        self._workers = workers
        self._by_index: dict[int, int] = {}

    def draw(self, peer: int) -> int:
        """Claim a receiver index for one of this worker's peers."""
        index = self._table.draw(peer, self._worker, self._workers, os.urandom)
        self._by_index[index] = peer
        return index

    def keep(self, index: int, peer: int) -> None:
        """Take a predecessor's index over, unless the table knows another owner."""
        row = self._table.row(index)
        if row is not None and self._peers.tenant(row) == peer:
            self._by_index[index] = peer

    def free(self, index: int) -> None:
        """Give a receiver index back."""
        if self._by_index.pop(index, None) is not None:
            self._table.free(index)

    def free_others(self) -> None:
        """Give back those a predecessor held, when all that are to be kept have been."""
        self._table.free_others(self._worker, self._peers, self._by_index)

    def peer(self, index: int) -> int:
        """Return the peer that holds the index, -1 when nobody of this worker does.

        A predecessor's index leads to its peer, too, which has it or not once it is awake.
        """
        peer = self._by_index.get(index)
        if peer is not None:
            return peer
        row = self._table.row(index)
        if row is None or self._peers.owner(row) != self._worker:
            return -1
        return self._peers.tenant(row)
