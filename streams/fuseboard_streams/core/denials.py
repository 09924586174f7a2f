"""Denied actions: a denial counts once, be it told by a policy decision, by the call, or by both.

A decision and a call are about the same action if they name the same span; one without a span is an action of its own.
Which comes first does not matter, and neither does how many decisions there are about one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors.segments import firsts
from fuseboard_streams.core.measured import owner_of
from fuseboard_streams.core.runs import places
from fuseboard_streams.core.tables import Column, Family, Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_streams.core.settings import CoreSettings

I64: TypeAlias = NDArray[np.int64]
U64: TypeAlias = NDArray[np.uint64]
Rows: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]

REMEMBERED_US: Final = 600_000_000
"""How much later than the first another denial of the same action may come, besides being late."""


def denials_table(settings: CoreSettings) -> Table:
    """One row per span of an actor that was denied lately."""
    key = Family("key", (Column("span", "u8"), Column("owner", "u8")))
    known = Family("known", (Column("until", "i8"),))
    return Table("denials", (key, known), limit=settings.max_sessions, key=("span", "owner"))


class Denials:
    """Tells which denial is the first of its action."""

    def __init__(self, table: Table, settings: CoreSettings, refer: Callable[[Rows, int], None]) -> None:
        self._table = table
        self._refer = refer
        self._lasting_us = REMEMBERED_US + settings.late_after_us
        self.untracked = 0
        """Denials beyond the limit; another of the same action counts again."""

    def first(self, actor: Rows, span: U64, stream: I64) -> Bools:
        """Which of these denials, in order, are the first of their action; every array has shape (n,).

        Args:
            actor: Rows of the actors' table.
            span: Hashes of the spans, 0 for none.
            stream: Stream time at each.
        """
        table, found = self._table, np.ones(len(span), dtype=np.bool_)
        named = places(span != 0)
        if len(named) == 0:
            return found
        pairs, first, which = np.unique(
            np.stack((span[named], owner_of(actor[named]))), axis=1, return_index=True, return_inverse=True
        )
        found[named] = False
        at = named[first]
        spans, owners = np.ascontiguousarray(pairs[0]), np.ascontiguousarray(pairs[1])
        rows = table.find(spans, owners).astype(np.int64)
        new = places(rows < 0)[: table.room]
        if len(new):
            rows[new] = table.add(spans[new], owners[new])
            self._refer(actor[at[new]], 1)
        known = rows >= 0
        self.untracked += int(np.count_nonzero(~known))
        found[at[~known]] = True
        # What is remembered may end between two of a run; then it is the later one that counts.
        rows = rows[which.reshape(-1)]
        fresh = places(rows >= 0)
        fresh = fresh[table["until"][rows[fresh]] <= stream[named[fresh]]]
        rows, first = firsts(rows[fresh])
        at = named[fresh[first]]
        found[at] = True
        table.touch("known", rows)
        table["until"][rows] = stream[at] + self._lasting_us
        return found

    def forget(self) -> None:
        """Forget all, in a transaction: nobody asks."""
        rows = places(self._table.live)
        if len(rows):
            self._refer(self._table["owner"][rows].astype(np.int64), -1)
            self._table.free(rows)
