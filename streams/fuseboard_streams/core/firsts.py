"""Which observation is the first of its trace: `fuseboard_detectors.seen`, kept in a table.

A row is one hash, eight rows in a row a bucket: what is remembered anew changes nine bytes. The rows are made all at
once, with the first observation; they hold nothing until they are written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors.seen import WAYS, buckets_of, turns, unknown
from fuseboard_streams.core.runs import places
from fuseboard_streams.core.tables import Column, Family, Table

if TYPE_CHECKING:
    from fuseboard_streams.core.settings import CoreSettings

U64: TypeAlias = NDArray[np.uint64]
Bools: TypeAlias = NDArray[np.bool_]


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
        bucket = buckets_of(hashes, table.size // WAYS)
        found = np.zeros(len(hashes), dtype=np.bool_)
        for chosen in turns(bucket, hashes):
            found[chosen] = self._new(bucket[chosen], hashes[chosen])
        return found

    def _new(self, bucket: NDArray[np.intp], hashes: U64) -> Bools:
        """As `first`, for hashes of which each has a bucket for itself."""
        table = self._table
        new = unknown(table["hash"][: table.size].reshape(-1, WAYS)[bucket], hashes)
        bucket = bucket[new]
        place = table["next"][bucket]
        where = bucket * WAYS + place
        table.touch("hash", where)
        table["hash"][where] = hashes[new]
        table.touch("next", bucket)
        table["next"][bucket] = (place + 1) % WAYS
        return new

    def forget(self) -> None:
        """Remember nothing."""
        self._table.free(places(self._table.live))
