"""A peer's keypairs: previous, current and next (kernel noise.c, begin_session).

| event | previous | current | next |
|---|---|---|---|
| a response came (we initiated) | next, else current | the new one | none |
| an initiation came (we answered) | none | current | the new one |
| first packet on next | current | next | none |

Only current seals. All three open, for datagrams overtake each other. A responder does not
know that the initiator has the keys until a packet on next shows it (WP 5.4.6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from wgmp.protocol.keypair import Keypair


class Slots(NamedTuple):
    """What is in the three slots."""

    previous: Keypair | None = None
    current: Keypair | None = None
    next: Keypair | None = None


class SessionStore(Protocol):
    """Where one peer's keypairs are kept so that they outlive whoever works with them."""

    def save(self, slots: Slots) -> None:
        """Keep these keypairs and no others; their state moves into the store."""

    def load(self) -> Slots:
        """Return what was saved last, with the state that it has by now."""


class Keypairs:
    """The three slots. `free` is given the local index of every keypair that leaves them.

    `store`: where they are kept, None for private memory. It is told before anything else is.
    """

    __slots__ = ("_free", "_store", "current", "next", "previous")

    def __init__(self, free: Callable[[int], None], store: SessionStore | None = None) -> None:
        self.previous: Keypair | None = None
        self.current: Keypair | None = None
        self.next: Keypair | None = None
        self._free = free
        self._store = store

    def __iter__(self) -> Iterator[Keypair]:
        """Iterate over the keypairs there are."""
        return (pair for pair in (self.current, self.previous, self.next) if pair is not None)

    def find(self, local_index: int) -> Keypair | None:
        """Return the keypair with this local index, or None."""
        current = self.current
        if current is not None and current.local_index == local_index:
            return current
        return next((pair for pair in self if pair.local_index == local_index), None)

    def install(self, keypair: Keypair) -> None:
        """Take in a new session."""
        if keypair.is_initiator:
            self._put(self.next or self.current, keypair, None)
        else:
            self._put(None, self.current, keypair)

    def promote(self) -> None:
        """A packet came on next, so the initiator has the keys: next becomes current."""
        assert self.next is not None
        self.next.confirmed = True
        self._put(self.current, self.next, None)

    def resume(self) -> None:
        """Go on with what a predecessor left in the store."""
        if self._store is not None:
            self.previous, self.current, self.next = self._store.load()

    def retire(self) -> None:
        """Seal with none of them any more; what is under way can still be opened."""
        for keypair in self:
            keypair.retire()

    def clear(self) -> None:
        """Forget all of them."""
        self._put(None, None, None)

    def _put(
        self, previous: Keypair | None, current: Keypair | None, following: Keypair | None
    ) -> None:
        before = list(self)
        if self._store is not None:
            self._store.save(Slots(previous, current, following))
        self.previous, self.current, self.next = previous, current, following
        for keypair in before:
            if keypair not in (previous, current, following):
                self._free(keypair.local_index)
