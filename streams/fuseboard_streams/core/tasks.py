"""What tasks cost. A task is a trace of an actor; it costs what its steps and its tool calls say, together.

It is over at the first whole minute of stream time at which nothing has come of it for ten minutes, or for one minute
once a step has ended its session: tool calls are read beside the steps of traces and may come after it. What comes
later is another task. A task of which nothing tells a cost is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors.objectives import above
from fuseboard_detectors.segments import different
from fuseboard_streams.core.agenda import MINUTE, whole_minute
from fuseboard_streams.core.measured import owner_of
from fuseboard_streams.core.ruleset import COST, ObjectiveTest
from fuseboard_streams.core.runs import places
from fuseboard_streams.core.tables import Column, Family, Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_streams.core.measured import Measured
    from fuseboard_streams.core.rulebook import Rulebook, RuleView
    from fuseboard_streams.core.settings import CoreSettings

I64: TypeAlias = NDArray[np.int64]
U64: TypeAlias = NDArray[np.uint64]
Rows: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]

IDLE_US: Final = 10 * MINUTE
ENDED_US: Final = MINUTE


def tasks_table(settings: CoreSettings) -> Table:
    """One row per trace of an actor that is not over."""
    key = Family("key", (Column("trace", "u8"), Column("owner", "u8")))
    # ``until`` is the stream time from which on it is over.
    sums = Family("sums", (Column("cost", "i8"), Column("told", "u1"), Column("ended", "u1"), Column("until", "i8")))
    return Table("tasks", (key, sums), limit=settings.max_sessions, key=("trace", "owner"))


@dataclass(frozen=True, slots=True)
class Parts:
    """n steps or calls in order; every array has shape (n,)."""

    actor: Rows
    trace: U64
    """A hash, 0 for none."""
    micro_usd: I64
    """Below 0 where unknown."""
    stream: I64
    ends: Bools
    """Whether it ends its session."""

    def take(self, at: NDArray[np.intp] | Bools) -> Parts:
        """Some of them."""
        return Parts(self.actor[at], self.trace[at], self.micro_usd[at], self.stream[at], self.ends[at])


class Tasks:
    """Adds up what tasks cost, for the objectives on ``tasks.cost_usd``."""

    def __init__(
        self,
        table: Table,
        measured: Measured,
        book: Rulebook,
        settings: CoreSettings,
        refer: Callable[[Rows, int], None],
    ) -> None:
        self._table = table
        self._measured = measured
        self._refer = refer
        # No task that goes on within a run of events may be over within it.
        self._idle_us, self._ended_us = max(IDLE_US, settings.piece_us), max(ENDED_US, settings.piece_us)
        self._first: int | None = None
        self.views = book.measuring(COST)
        self.untracked = 0
        """Events of tasks beyond the limit, whose cost is not counted."""

    def fold(self, parts: Parts) -> None:
        """Take in the steps or calls of a run that are in time; none may be due before its last."""
        parts = parts.take(parts.trace != 0)
        rows = self._rows(parts)
        known = rows >= 0
        self.untracked += len(rows) - int(np.count_nonzero(known))
        if not known.any():
            return
        rows, parts, table = rows[known], parts.take(known), self._table
        table.touch("sums", rows)
        told = parts.micro_usd >= 0
        np.add.at(table["cost"], rows[told], parts.micro_usd[told])
        table["told"][rows[told]] = 1
        table["ended"][rows[parts.ends]] = 1
        # Where rows repeat the last one stays, and stream time never falls.
        table["until"][rows] = parts.stream + np.where(table["ended"][rows] > 0, self._ended_us, self._idle_us)
        first = int(table["until"][rows].min())
        self._first = first if self._first is None else min(self._first, first)

    # --- ticks

    @property
    def next_tick(self) -> int | None:
        """When the first task may be over; None if there is none."""
        return None if self._first is None else int(whole_minute(self._first))

    def advance(self, to_us: int) -> None:
        """Count the tasks that are over at a whole minute, if a time is one; at others that timers have, do nothing."""
        # Whether another's timer comes between depends on how batches were cut.
        due = self.next_tick
        if due is None or due > to_us:
            return
        table = self._table
        live = places(table.live[: table.high_water]).astype(np.int64)
        until = table["until"][live]
        over = live[until <= due]
        self._note_first(until[until > due])
        if len(over) == 0:
            return
        owner, cost = table["owner"][over], table["cost"][over]
        told = table["told"][over] > 0
        for view in self.views:
            self._count(view, owner[told], cost[told], due)
        self._refer(owner.astype(np.int64), -1)
        table.free(over)

    def _count(self, view: RuleView, owner: U64, cost: I64, now_us: int) -> None:
        if len(owner) == 0:
            return
        unique, inverse = np.unique(owner, return_inverse=True)
        variants = self._measured.variants(view, unique)[inverse]
        bad = np.zeros((2, len(owner)), dtype=np.bool_)
        for variant in different(variants).tolist():
            mine = variants == variant
            for i, least in enumerate(view.test(variant, ObjectiveTest).least):
                bad[i, mine] = above(cost[mine], least, reached=True)
        self._measured.tick(view, owner, now_us, bad[0], bad[1])

    def _note_first(self, until: I64) -> None:
        self._first = int(until.min()) if len(until) else None

    # --- rows

    def _rows(self, parts: Parts) -> Rows:
        """The rows of these traces, made where they are missing; -1 where there is no room."""
        table, owner = self._table, owner_of(parts.actor)
        rows = table.find(parts.trace, owner).astype(np.int64)
        missing = places(rows < 0)
        if len(missing):
            rows[missing], new = table.add_missing(parts.trace[missing], owner[missing])
            self._refer(owner[missing[new]].astype(np.int64), 1)
        return rows

    def forget(self) -> None:
        """Drop all tasks, in a transaction: nobody asks what they cost."""
        rows = places(self._table.live)
        if len(rows):
            self._refer(self._table["owner"][rows].astype(np.int64), -1)
            self._table.free(rows)
        self._first = None

    def rebuild(self) -> None:
        """Find the first task that may be over, after a restore or a rollback."""
        live = places(self._table.live[: self._table.high_water])
        self._note_first(self._table["until"][live])
