"""Small keyed byte strings of a shard (breakers, tool names): with undo, and in order for the rolling checkpoint."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    ObjectKey = tuple[str, str]


class Objects:
    """Byte strings under a kind and a key, with undo for one transaction at a time."""

    def __init__(self) -> None:
        self._values: dict[ObjectKey, bytes] = {}
        self._kinds: dict[str, dict[str, bytes]] = {}
        self._order: list[ObjectKey] | None = None
        self._undo: dict[ObjectKey, bytes | None] = {}
        self._writable = False

    def __len__(self) -> int:
        return len(self._values)

    def get(self, kind: str, key: str) -> bytes | None:
        """The value, or None."""
        return self._values.get((kind, key))

    def items(self, kind: str) -> Iterator[tuple[str, bytes]]:
        """The keys and values of a kind, by key."""
        return iter(sorted(self._kinds.get(kind, {}).items()))

    def put(self, kind: str, key: str, value: bytes) -> None:
        """Sets a value."""
        self._remember((kind, key))
        self._set((kind, key), value)

    def delete(self, kind: str, key: str) -> None:
        """Removes a value; nothing happens if there is none."""
        if (kind, key) in self._values:
            self._remember((kind, key))
            self._set((kind, key), None)

    # -- one transaction, driven by the store ------------------------------------------------------------------------

    def begin(self) -> None:
        """Opens a transaction."""
        self._writable = True

    def seal(self) -> None:
        """Refuses writes until the transaction ends."""
        self._writable = False

    def commit(self) -> None:
        """Ends the transaction."""
        self._undo.clear()
        self._writable = False

    def rollback(self) -> None:
        """Puts everything back as it was at ``begin``."""
        for key, value in self._undo.items():
            self._set(key, value)
        self.commit()

    def changes(self) -> tuple[list[ObjectKey], list[ObjectKey]]:
        """The keys whose value differs from that at ``begin``: those set and those deleted, each in order."""
        put = [key for key, old in self._undo.items() if self._values.get(key) not in (None, old)]
        gone = [key for key, old in self._undo.items() if old is not None and key not in self._values]
        return sorted(put), sorted(gone)

    # -- checkpoint and restore --------------------------------------------------------------------------------------

    def after(self, cursor: ObjectKey | None) -> Iterable[ObjectKey]:
        """The keys behind ``cursor`` in order, from the first if it is None."""
        if self._order is None:
            self._order = sorted(self._values)
        start = 0 if cursor is None else bisect_right(self._order, cursor)
        return (self._order[at] for at in range(start, len(self._order)))

    def value(self, key: ObjectKey) -> bytes:
        """The value of a key that is there."""
        return self._values[key]

    def restore(self, put: Iterable[tuple[ObjectKey, bytes]], gone: Iterable[ObjectKey]) -> None:
        """Applies logged changes, outside a transaction."""
        self._order = None
        for key, value in put:
            self._set(key, value)
        for key in gone:
            self._set(key, None)

    def _remember(self, key: ObjectKey) -> None:
        if not self._writable:
            raise RuntimeError(
                "objects: written outside a transaction, or after its changes were encoded; begin() first"
            )
        self._undo.setdefault(key, self._values.get(key))

    def _set(self, key: ObjectKey, value: bytes | None) -> None:
        kind, name = key
        present = key in self._values
        if value is None:
            if present:
                del self._values[key]
                del self._kinds[kind][name]
                if self._order is not None:
                    del self._order[bisect_left(self._order, key)]
            return
        self._values[key] = value
        self._kinds.setdefault(kind, {})[name] = value
        if not present and self._order is not None:
            insort(self._order, key)
