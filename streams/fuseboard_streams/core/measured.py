"""What objectives count: good and bad events of each target in rings, asked about at whole minutes of stream time.

What belongs to the cell under way is a sum of its own, so that an ordinary event changes some thirty bytes and not the
rings. A row is asked about at the first whole minute that is `CoreSettings.piece_us` after an event of it, and then
each time a cell of its window is over, until nothing can be said of it any more.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors import objectives
from fuseboard_detectors.objectives import CELLS, WINDOW_CELLS, ObjectiveCounts, ObjectiveParams, ObjectiveState
from fuseboard_detectors.segments import different
from fuseboard_schemas.keys import Target
from fuseboard_streams.core.agenda import Agenda, whole_minute
from fuseboard_streams.core.firing import Facts, Firing
from fuseboard_streams.core.objective_words import Finding, level_of, words_of
from fuseboard_streams.core.ruleset import ObjectiveTest
from fuseboard_streams.core.runs import places, run_starts
from fuseboard_streams.core.tables import Column, Family, Table
from fuseboard_streams.core.variants import state_id
from fuseboard_streams.core.waiting import due_family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fuseboard_schemas.records import Scope
    from fuseboard_streams.core.rulebook import RuleView
    from fuseboard_streams.core.settings import CoreSettings

I64: TypeAlias = NDArray[np.int64]
U64: TypeAlias = NDArray[np.uint64]
Rows: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]

SAY_AGAIN_US: Final = 12 * 3_600_000_000
"""A state that lasts is said again, so that whoever looks back over a day meets it."""
_TOOL: Final = 32
"""Above the actor's row in an owner: the number of the tool's name and one."""
_ACTOR: Final = (1 << _TOOL) - 1
_UNKNOWN, _MET, _VIOLATED = ObjectiveState
_MOST: Final = np.int64(2**31 - 1)


def measured_table(settings: CoreSettings) -> Table:
    """One row per target and objective of which anything was counted."""
    key = Family("key", (Column("owner", "u8"), Column("measure", "u8"), Column("width", "i8")))
    now = Family("now", (Column("cell", "i8"), Column("total", "i8"), Column("bad", "i8"), Column("worse", "i8")))
    rings = Family(
        "rings",
        (
            Column("total_cells", "i4", width=CELLS),
            Column("bad_cells", "i4", width=CELLS),
            Column("newest", "i8"),
        ),
    )
    # Of objectives with two limits only.
    worse = Family("worse_rings", (Column("worse_cells", "i4", width=CELLS),))
    said = Family("said", (Column("said", "u1"), Column("said_at", "i8")))
    return Table(
        "measured", (key, now, rings, worse, said, due_family()), limit=settings.max_tools, key=("owner", "measure")
    )


def owner_of(actor: Rows, tool: Rows | None = None) -> U64:
    """What a row of the table is about: an actor's row, with the number of a tool's name above it."""
    if tool is None:
        return actor.astype(np.uint64)
    return (actor + ((tool.astype(np.int64) + 1) << _TOOL)).astype(np.uint64)


def actor_of(owner: U64) -> Rows:
    """The row of the actor that a row of the table is about."""
    return (owner & np.uint64(_ACTOR)).astype(np.int64)


class Measured:
    """The counts of all objectives that one shard can measure by itself.

    Args:
        table: `measured_table`.
        actors: The actors' table.
        views: The objectives.
        settings: Of the shard.
        refer: Notes that so many rows more, or fewer, point at actors.
        tool_name: A tool's name by its number.
    """

    def __init__(
        self,
        table: Table,
        actors: Table,
        views: Sequence[RuleView],
        settings: CoreSettings,
        refer: Callable[[Rows, int], None],
        tool_name: Callable[[int], str],
    ) -> None:
        self._table = table
        self._actors = actors
        self._refer = refer
        self._tool_name = tool_name
        self._ahead_us = settings.piece_us
        self._agenda = Agenda(table)
        self._numbers = {
            view.order: np.array(
                [int(state_id(view.rule, variant.test), 16) for variant in view.variants], dtype=np.uint64
            )
            for view in views
        }
        self._by_number = {number: view for view in views for number in self._numbers[view.order].tolist()}
        self._widths = {
            int(state_id(view.rule, variant.test), 16): _test(view, i).window_us // WINDOW_CELLS
            for view in views for i, variant in enumerate(view.variants)
        }  # fmt: skip
        self.untracked = 0
        """Events of targets beyond the limit, which are not counted."""

    # --- which objective is whose

    def variants(self, view: RuleView, owner: U64) -> NDArray[np.intp]:
        """Which variant of an objective each target has, shape (n,); targets should not repeat."""
        if view.plain:
            return np.zeros(len(owner), dtype=np.intp)
        names = (self._target(view.rule.scope, each) for each in owner.tolist())
        return np.array([view.number(each.tenant, each.actor or "", each.tool or "") for each in names], dtype=np.intp)

    def numbers(self, view: RuleView, owner: U64) -> U64:
        """What stands for the objective of each target in the tables, shape (n,); targets should not repeat."""
        known = self._numbers[view.order]
        if (known == known[0]).all():
            return np.full(len(owner), known[0], dtype=np.uint64)
        found: U64 = known[self.variants(view, owner)]
        return found

    def _target(self, scope: Scope, owner: int) -> Target:
        actor, tool = owner & _ACTOR, owner >> _TOOL
        name = self._tool_name(tool - 1) if tool else None
        return Target(scope, str(self._actors["tenant"][actor]), str(self._actors["actor"][actor]), name)

    # --- counting

    def fold(
        self, view: RuleView, owner: U64, stream: I64, bad: Bools, worse: Bools | None = None, *, counted: bool = True
    ) -> None:
        """Count n events in order; every array has shape (n,).

        Args:
            view: The objective.
            owner: What each is about (`owner_of`).
            stream: Stream time at each.
            bad: Whether it counts against the objective.
            worse: Likewise against its second limit.
            counted: Whether they are events of their own: False where each only makes another one bad.
        """
        if len(owner) == 0:
            return
        for part in self._stretches(view, stream):
            unique, total = np.unique(owner[part], return_counts=True)
            numbers = self.numbers(view, unique)
            rows = self._rows(unique, numbers)
            known = rows >= 0
            self.untracked += int(total[~known].sum())
            sums = [_counts(unique, owner[part], each[part]) for each in (bad, worse) if each is not None]
            now, due = int(stream[part.start]), whole_minute(int(stream[part.start]) + self._ahead_us)
            if not counted:
                total = np.zeros_like(total)
            self._add(rows[known], numbers[known], now, total[known], [each[known] for each in sums])
            self._agenda.ask(rows[known], due)

    def tick(self, view: RuleView, owner: U64, now_us: int, bad: Bools, worse: Bools | None = None) -> None:
        """Count n events that are known at a tick, a whole minute, before `advance` runs it."""
        unique, total = np.unique(owner, return_counts=True)
        numbers = self.numbers(view, unique)
        rows = self._rows(unique, numbers)
        known = rows >= 0
        self.untracked += int(total[~known].sum())
        sums = [_counts(unique, owner, each)[known] for each in (bad, worse) if each is not None]
        self._add(rows[known], numbers[known], now_us, total[known], sums)
        self._agenda.ask(rows[known], now_us)

    def take_back(self, view: RuleView, owner: U64, at_us: I64, stream: I64) -> None:
        """Events that were counted as bad at some times turn out to be good at others, shape (n,) each."""
        unique, inverse = np.unique(owner, return_inverse=True)
        numbers = self.numbers(view, unique)
        rows = self._table.find(unique, numbers).astype(np.int64)[inverse]
        known = rows >= 0
        rows, at_us, stream, width = rows[known], at_us[known], stream[known], self._width(numbers[inverse[known]])
        if len(rows) == 0:
            return
        table, cell = self._table, at_us // width
        here = cell == table["cell"][rows]
        table.touch("now", rows[here])
        np.add.at(table["bad"], rows[here], -1)
        # The cell has been put into the ring: it was rolled to a later one then. What it has dropped is in no window.
        before = places(~here)
        age = table["newest"][rows[before]] // width[before] - cell[before]
        before = before[age < CELLS]
        table.touch("rings", rows[before])
        np.add.at(table["bad_cells"], (rows[before], cell[before] % CELLS), -1)
        for minute in different(due := whole_minute(stream + self._ahead_us)).tolist():
            self._agenda.ask(different(rows[due == minute]), minute)

    def has(self, view: RuleView, owner: U64, stream: I64) -> Bools:
        """Of which of these targets anything is remembered at a time, shape (n,) each; targets may repeat."""
        unique = different(owner)
        rows = self._table.find(unique, self.numbers(view, unique)).astype(np.int64)
        if (rows < 0).all():
            return np.zeros(len(owner), dtype=np.bool_)
        rows = rows[np.searchsorted(unique, owner)]
        cell, width = self._table["cell"][rows], self._table["width"][rows]
        found: Bools = (rows >= 0) & ~_over(cell, stream // np.maximum(width, 1))
        return found

    def _stretches(self, view: RuleView, stream: I64) -> Iterator[slice]:
        """Runs of events that are in one cell each, and due at one minute."""
        edges = {0, len(stream)}
        numbers = self._numbers[view.order].tolist()
        for grid in (
            lambda at: whole_minute(at + self._ahead_us),
            *(_grid(self._widths[each]) for each in set(numbers)),
        ):
            if grid(stream[0]) != grid(stream[-1]):
                edges.update(run_starts(grid(stream)).tolist())
        return (slice(a, b) for a, b in pairwise(sorted(edges)))

    def _width(self, numbers: U64) -> I64:
        """The width of the cells of some objectives, shape (n,)."""
        if len(numbers) and (numbers == numbers[0]).all():
            return np.full(len(numbers), self._widths[int(numbers[0])], dtype=np.int64)
        unique, inverse = np.unique(numbers, return_inverse=True)
        found: I64 = np.array([self._widths[each] for each in unique.tolist()], dtype=np.int64)[inverse]
        return found

    def _add(self, rows: Rows, numbers: U64, now_us: int, total: I64, sums: Sequence[I64]) -> None:
        """Add to the cell under way at a time; rows do not repeat."""
        if len(rows) == 0:
            return
        table, width = self._table, self._width(numbers)
        table.touch("now", rows)
        cell = now_us // width
        self._settle(rows, cell, width)
        table["total"][rows] += total
        for name, amount in zip(("bad", "worse"), sums, strict=False):
            table[name][rows] += amount

    def _settle(self, rows: Rows, cell: I64, width: I64) -> None:
        """Put the sums of cells that are over into the rings, and begin others."""
        table = self._table
        moved = places(table["cell"][rows] != cell)
        if len(moved) == 0:
            return
        rows, cell, width = rows[moved], cell[moved], width[moved]
        some = places((table["total"][rows] != 0) | (table["bad"][rows] != 0) | (table["worse"][rows] != 0))
        for one in different(width[some]).tolist():
            mine = some[width[some] == one]
            self._store(rows[mine], self._at(rows[mine], cell[mine] * one, one))
        for name in ("total", "bad", "worse"):
            table[name][rows] = 0
        table["cell"][rows] = cell

    def _at(self, rows: Rows, now: I64 | int, width: int) -> tuple[ObjectiveCounts, ObjectiveCounts]:
        """The rings of some rows at a time, for both limits, with what has not been put into them yet."""
        table = self._table
        params = _params((1, 2), width * WINDOW_CELLS)
        begun = table["cell"][rows] * width
        found = []
        for name, of in (("bad", "bad_cells"), ("worse", "worse_cells")):
            state = ObjectiveCounts(
                table[of][rows].astype(np.int64), table["total_cells"][rows].astype(np.int64), table["newest"][rows]
            )
            objectives.roll(state, np.maximum(begun, now), params)
            objectives.count(state, np.arange(len(rows)), begun, table[name][rows], table["total"][rows], params)
            found.append(state)
        return found[0], found[1]

    def _store(self, rows: Rows, states: tuple[ObjectiveCounts, ObjectiveCounts]) -> None:
        table, (one, other) = self._table, states
        table.touch("rings", rows)
        table["total_cells"][rows] = np.minimum(one.total, _MOST)
        table["bad_cells"][rows] = np.minimum(one.bad, _MOST)
        table["newest"][rows] = one.newest
        two = places((other.bad != 0).any(axis=1) | (table["worse_cells"][rows] != 0).any(axis=1))
        if len(two):
            table.touch("worse_rings", rows[two])
            table["worse_cells"][rows[two]] = np.minimum(other.bad[two], _MOST)

    # --- ticks

    @property
    def next_tick(self) -> int | None:
        """When somebody may be due; None if nobody is."""
        return self._agenda.next

    def advance(self, to_us: int) -> list[Firing]:
        """Run the tick at a time: what is to be said of whose state."""
        rows = self._agenda.take(to_us)
        found: list[Firing] = []
        measures = self._table["measure"][rows]
        for number in different(measures).tolist():
            mine = rows[measures == number]
            view = self._by_number.get(number)
            if view is None:
                self._free(mine)
            else:
                found += self._ask(view, number, mine, to_us)
        return found

    def _ask(self, view: RuleView, number: int, rows: Rows, now_us: int) -> list[Firing]:
        width = self._widths[number]
        variants = self.variants(view, self._table["owner"][rows])
        # An override that has changed may have made another objective of it.
        kept = self._numbers[view.order][variants] == number
        self._free(rows[~kept])
        rows, variants = rows[kept], variants[kept]
        if len(rows) == 0:
            return []
        states = self._at(rows, now_us, width)
        findings: list[Firing] = []
        for variant in different(variants).tolist():
            mine = places(variants == variant)
            part = tuple(ObjectiveCounts(each.bad[mine], each.total[mine], each.newest[mine]) for each in states)
            findings += self._judge(view, variant, rows[mine], part, now_us)
        lasting = (self._table["said"][rows] != _UNKNOWN) | (states[0].total.sum(axis=1) >= self._least(view))
        self._agenda.ask(rows[lasting], whole_minute((now_us // width + 1) * width))
        return findings

    @staticmethod
    def _least(view: RuleView) -> int:
        return min(_test(view, i).minimum for i in range(len(view.variants)))

    def _judge(
        self, view: RuleView, variant: int, rows: Rows, states: Sequence[ObjectiveCounts], now_us: int
    ) -> list[Firing]:
        """What is to be said of some rows that have one variant."""
        test, table = _test(view, variant), self._table
        params = [_params(share, test.window_us, test.minimum, test.grace_us) for share in test.shares]
        each = [
            objectives.states(state, one, error=test.error)
            for state, one in zip(states, params, strict=False)
        ]  # fmt: skip
        counts = [objectives.window(state, one) for state, one in zip(states, params, strict=False)]
        found = objectives.join(*each)
        # What was said holds until the opposite is found: a share near its limit would change its state all the time.
        before, enough = table["said"][rows], counts[0][1] >= test.minimum
        state = np.where(found != _UNKNOWN, found, np.where(enough, before, _UNKNOWN)).astype(np.uint8)
        again = (state != _UNKNOWN) & (now_us - table["said_at"][rows] >= SAY_AGAIN_US)
        at = places((state != before) | again)
        if len(at) == 0:
            return []
        table.touch("said", rows[at])
        table["said"][rows[at]] = state[at]
        table["said_at"][rows[at]] = now_us
        bad = [np.clip(one[at], 0, total[at]) for one, total in counts]
        finding = Finding(test, view.rule.metric, state[at], [one[at] for one in each], bad, counts[0][1][at])
        words = words_of(finding)
        return [
            self._said(view, variant, int(rows[i]), int(state[i]), words[k], now_us) for k, i in enumerate(at.tolist())
        ]

    def _said(self, view: RuleView, variant: int, row: int, state: int, facts: Facts, now_us: int) -> Firing:
        target = self._target(view.rule.scope, int(self._table["owner"][row]))
        return Firing(0, now_us, view, variant, target, facts, level=level_of(ObjectiveState(state)))

    # --- rows

    def _rows(self, owner: U64, numbers: U64) -> Rows:
        """The rows of these targets, which do not repeat, made where they are missing; -1 where there is no room."""
        table = self._table
        rows = table.find(owner, numbers).astype(np.int64)
        new = places(rows < 0)[: table.room]
        if len(new):
            rows[new] = table.add(owner[new], numbers[new])
            table["width"][rows[new]] = self._width(numbers[new])
            self._refer(actor_of(owner[new]), 1)
        return rows

    def _free(self, rows: Rows) -> None:
        if len(rows):
            self._refer(actor_of(self._table["owner"][rows]), -1)
            self._table.free(rows)

    def forget(self) -> None:
        """Drop what is counted for no objective in force, in a transaction."""
        rows = places(self._table.live)
        self._free(rows[~self.in_force(self._table["measure"][rows])].astype(np.int64))

    def in_force(self, numbers: U64) -> Bools:
        """Which of these numbers stand for objectives in force, shape (n,)."""
        found: Bools = np.isin(numbers, np.array(sorted(self._by_number), dtype=np.uint64))
        return found

    def rebuild(self) -> None:
        """Find who is due, after a restore or a rollback."""
        self._agenda.rebuild()


def emptied(table: Table, rows: NDArray[np.int32], now_us: int) -> Bools:
    """Which rows have nothing left to say or to lose: nobody will ask about them, and their window is empty.

    Whether such a row is still there never shows: at its next event it begins anew.
    """
    found: Bools = _over(table["cell"][rows], now_us // np.maximum(table["width"][rows], 1))
    found &= (table["due"][rows] == 0) & (table["said"][rows] == _UNKNOWN)
    return found


def _over(cell: I64, now: I64) -> Bools:
    """Whether a row that was last written in one cell has nothing left in another."""
    found: Bools = now - cell > CELLS
    return found


def _test(view: RuleView, number: int) -> ObjectiveTest:
    return view.test(number, ObjectiveTest)


@lru_cache(maxsize=256)
def _params(share: tuple[int, int], window_us: int, minimum: int = 1, grace_us: int = 0) -> ObjectiveParams:
    return ObjectiveParams(share, window_us, minimum, grace_us)


def _grid(width: int) -> Callable[[Any], Any]:
    """A time, or an array of them, to its cell."""
    return lambda at: at // width


def _counts(unique: U64, owner: U64, chosen: Bools) -> I64:
    """How many of the chosen events each of these owners has, shape of ``unique``."""
    found = np.zeros(len(unique), dtype=np.int64)
    some, count = np.unique(owner[chosen], return_counts=True)
    found[np.searchsorted(unique, some)] = count
    return found
