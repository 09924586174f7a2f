"""Ids that a shard knows again: the last so many of a kind, in its store."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuseboard_streams.core.store import Store


class RememberedIds:
    """The last ids of one kind; the oldest make room. Undone, logged and restored with the store.

    Args:
        store: Of the shard.
        kind: Names them in the store.
        limit: How many are remembered.
    """

    def __init__(self, store: Store, kind: str, limit: int) -> None:
        self._store = store
        self._kind = kind
        self._limit = limit
        self._known: set[str] = set()
        self._touched = False

    def begin(self) -> None:
        """Open a transaction."""
        self._touched = False

    def rollback(self) -> None:
        """The store has been put back: forget what it does not hold."""
        if self._touched:
            self.load()

    def load(self) -> None:
        """Know what the store holds."""
        self._known = {value.decode() for _, value in self._store.objects.items(self._kind)}

    def add(self, identity: str) -> bool:
        """Remember an id; False if it is known already."""
        if identity in self._known:
            return False
        # A ring: the newest takes the place of the oldest.
        count = int(self._store.scalars.get(f"{self._kind}s") or 0)
        self._store.scalars[f"{self._kind}s"] = count + 1
        place = f"{count % self._limit:05d}"
        oldest = self._store.objects.get(self._kind, place)
        if oldest is not None:
            self._known.discard(oldest.decode())
        self._store.objects.put(self._kind, place, identity.encode())
        self._known.add(identity)
        self._touched = True
        return True
