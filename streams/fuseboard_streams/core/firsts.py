"""Which observation is the first of its trace: `fuseboard_detectors.seen`, kept in a table.

A row is one hash, eight rows in a row a bucket: what is remembered anew changes nine bytes. The rows are made all at
once, with the first observation; they hold nothing until they are written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors.seen import WAYS, Seen, buckets_of, first_times_at
from fuseboard_streams.core.runs import places
from fuseboard_streams.core.tables import Column, Family, Table

if TYPE_CHECKING:
    from fuseboard_streams.core.settings import CoreSettings

U64: TypeAlias = NDArray[np.uint64]
Bools: TypeAlias = NDArray[np.bool_]

_SLOTS = np.arange(WAYS)


def firsts_table(name: str, settings: CoreSettings) -> Table:
    """A memory for at most `CoreSettings.max_traces` hashes; ``next`` is of a bucket, by its number."""
    families = (Family("hash", (Column("hash", "u8"),)), Family("next", (Column("next", "u1"),)))
    buckets = 1 << max(settings.max_traces // WAYS, 1).bit_length() - 1
    return Table(name, families, limit=buckets * WAYS)


class Firsts:
    """A memory of hashes in a table of `firsts_table`."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def first(self, hashes: U64) -> Bools:
        """Which of these are not remembered, shape (n,); all of them are from now on.

        Args:
            hashes: In the order in which they are seen, shape (n,), not 0.
        """
        if len(hashes) == 0:
            return np.zeros(0, dtype=np.bool_)
        table = self._table
        if table.size == 0:
            table.allocate(table.limit)
        size = table.size
        unique, place = np.unique(buckets_of(hashes, size // WAYS), return_inverse=True)
        before = table["hash"][:size].reshape(-1, WAYS)[unique]
        part = Seen(before.copy(), table["next"][unique])
        found = first_times_at(part, place, hashes)
        new = places((part.hashes != before).ravel())
        where = (unique[:, None] * WAYS + _SLOTS).ravel()[new]
        table.touch("hash", where)
        table["hash"][where] = part.hashes.ravel()[new]
        moved = places(part.next != table["next"][unique])
        table.touch("next", unique[moved])
        table["next"][unique[moved]] = part.next[moved]
        return found

    def forget(self) -> None:
        """Remember nothing."""
        self._table.free(places(self._table.live))
