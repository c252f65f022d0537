"""The receiver indices of one worker, and whose they are (the protocol core's IndexSpace)."""

from __future__ import annotations

import os

from wgmp.peertable import IndexTable, PeerTable


class Indices:
    """Draws indices of the class `worker` of `workers` from the shared table."""

    __slots__ = ("_by_index", "_table", "_worker", "_workers")

    def __init__(self, table: IndexTable, peers: PeerTable, worker: int, workers: int) -> None:
        self._table = table
        self._worker = worker
        self._workers = workers
        self._by_index: dict[int, int] = {}
        # A predecessor's sessions died with it, and so did their indices.
        table.free_all_of(worker, peers)

    def draw(self, peer: int) -> int:
        """Claim a receiver index for one of this worker's peers."""
        index = self._table.draw(peer, self._worker, self._workers, os.urandom)
        self._by_index[index] = peer
        return index

    def free(self, index: int) -> None:
        """Give a receiver index back."""
        if self._by_index.pop(index, None) is not None:
            self._table.free(index)

    def peer(self, index: int) -> int:
        """Return the peer that holds the index, -1 when nobody does."""
        return self._by_index.get(index, -1)
