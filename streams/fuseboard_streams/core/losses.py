"""Lost events: the share of an actor's numbered events that never came, within a window of stream time.

The replay windows show what is missing. What belongs to the cell of the ring under way is a sum of its own, so that an
ordinary event changes some twenty bytes and not the whole ring. An actor is asked about only while numbers of it are
missing: at the first tick that is `CoreSettings.piece_us` after a numbered event or later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors import lost
from fuseboard_detectors.segments import different, owners, stable_order
from fuseboard_schemas.keys import Target
from fuseboard_schemas.records import Scope
from fuseboard_streams.core.firing import Facts, Firing
from fuseboard_streams.core.rulebook import NONE
from fuseboard_streams.core.ruleset import LostTest
from fuseboard_streams.core.runs import places, run_starts
from fuseboard_streams.core.tables import Column, Family, Table
from fuseboard_streams.core.waiting import NEVER, SECOND, Waiting, due_family, whole_second

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_streams.core.rulebook import Rulebook, RuleView
    from fuseboard_streams.core.settings import CoreSettings

I64: TypeAlias = NDArray[np.int64]
Rows: TypeAlias = NDArray[np.int64]

MOST: Final = 1_000_000
"""A client that skips more numbers at once has lost its count, not its events: more are not counted."""


def losses_table(settings: CoreSettings) -> Table:
    """One row per actor and window."""
    key = Family("key", (Column("actor", "u8"), Column("within", "u8")))
    now = Family(
        "now",
        (Column("cell", "i8"), Column("expected", "i8"), Column("missing", "i8"), Column("lossy", "u1")),
    )  # fmt: skip
    rings = Family(
        "rings",
        (
            Column("expected_cells", "i8", width=lost.CELLS),
            Column("missing_cells", "i8", width=lost.CELLS),
            Column("newest", "i8"),
        ),
    )
    families = (key, now, rings, due_family())
    return Table("losses", families, limit=settings.max_actors, key=("actor", "within"))


def emptied(table: Table, rows: NDArray[np.int32], now_us: int) -> NDArray[np.bool_]:
    """Which rows have nothing left in their window, and are not to be asked about.

    Whether such a row is still there never shows: at its next event it begins anew.
    """
    width = table["within"][rows].astype(np.int64) // lost.CELLS
    found: NDArray[np.bool_] = _over(table["cell"][rows], now_us // width) & (table["due"][rows] == 0)
    return found


class Losses:
    """Follows whose events are missing, for the rules on ``events.lost``."""

    def __init__(
        self, table: Table, actors: Table, book: Rulebook, settings: CoreSettings, refer: Callable[[Rows, int], None]
    ) -> None:
        self._table = table
        self._actors = actors
        self._refer = refer
        self._ahead_us = settings.piece_us
        self._waiting = Waiting(table)
        self.views = book.asking(LostTest, Scope.ACTOR)
        self._windows = tuple(sorted({_window(test) for view in self.views for test in _tests(view)}))
        self.wanted = bool(self.views)
        """Whether any rule asks."""
        self.untracked = 0
        """Events of actors beyond the limit, which are not followed."""

    # --- events

    def fold(self, actor: Rows, expected: I64, gaps: I64, stream: I64) -> None:
        """Take in what a run of numbered events shows; every array has shape (n,).

        Args:
            actor: rows of the actors' table.
            expected: how many numbers each event shows to be due.
            gaps: how many of them it skipped; below 0 where it had itself been skipped.
            stream: stream time at each.
        """
        # Of an event that has been seen before nothing is new.
        at = places((expected > 0) | (gaps != 0))
        if not self.wanted or len(at) == 0:
            return
        actor, stream = actor[at], stream[at]
        expected, gaps = np.minimum(expected[at], MOST), np.minimum(gaps[at], MOST)
        for within in self._windows:
            rows = self._rows(actor, within)
            known = rows >= 0
            self.untracked += int(np.count_nonzero(~known))
            if known.any():
                self._add(rows[known], expected[known], gaps[known], stream[known], within // lost.CELLS)

    def _add(self, rows: Rows, expected: I64, gaps: I64, stream: I64, width: int) -> None:
        table = self._table
        cells = stream // width
        starts = run_starts(cells)
        for a, b in zip(starts.tolist(), [*starts[1:].tolist(), len(cells)], strict=True):
            part, cell = rows[a:b], int(cells[a])
            order = stable_order(part)
            heads = run_starts(part[order])
            unique = part[order[heads]]
            table.touch("now", unique)
            self._settle(unique[table["cell"][unique] != cell], cell, width)
            table["expected"][unique] += np.add.reduceat(expected[a:b][order], heads)
            table["missing"][unique] += np.add.reduceat(gaps[a:b][order], heads)
            self._wait(unique, heads, gaps[a:b][order] > 0, stream[a:b][order])

    def _wait(self, rows: Rows, heads: NDArray[np.intp], skipped: NDArray[np.bool_], stream: I64) -> None:
        """Ask about the rows of which numbers are missing, after the first event from which on they are.

        Args:
            rows: shape (k,).
            heads: where each row's events begin, shape (k,).
            skipped: which events show that numbers are missing, shape (n,), each row's own together.
            stream: stream time at each.
        """
        table = self._table
        before = table["lossy"][rows] > 0
        if not (skipped.any() or before.any()):
            return
        owner = owners(heads, len(skipped))
        lossy = places(_from_first(owner, skipped, before))
        due = np.full(len(rows), NEVER, dtype=np.int64)
        np.minimum.at(due, owner[lossy], whole_second(stream[lossy] + self._ahead_us))
        table["lossy"][rows[due < NEVER]] = 1
        self._waiting.ask(rows, due)

    def _settle(self, rows: Rows, cell: int, width: int) -> None:
        """Put the sums of cells that are over into the rings, and begin another."""
        table = self._table
        some = rows[(table["expected"][rows] != 0) | (table["missing"][rows] != 0)]
        if len(some):
            table.touch("rings", some)
            state = self._at(some, cell * width, width)
            table["expected_cells"][some], table["missing_cells"][some] = state.expected, state.missing
            table["newest"][some] = state.newest
            table["expected"][some] = table["missing"][some] = 0
        table["lossy"][rows[_over(table["cell"][rows], cell)]] = 0
        table["cell"][rows] = cell

    def _at(self, rows: Rows, now: int, width: int) -> lost.LostCounts:
        """The rings of some rows at a time, with what has not been put into them yet."""
        table, within = self._table, width * lost.CELLS
        state = lost.LostCounts(table["expected_cells"][rows], table["missing_cells"][rows], table["newest"][rows])
        begun = table["cell"][rows] * width
        lost.roll(state, np.maximum(begun, now), within)
        lost.count(state, np.arange(len(rows)), begun, table["expected"][rows], table["missing"][rows], within)
        return state

    # --- ticks

    @property
    def next_tick(self) -> int | None:
        """When somebody is to be asked about; None if nobody is."""
        return self._waiting.next if self.wanted else None

    def advance(self, to_us: int) -> list[Firing]:
        """Run the tick at a time."""
        found: list[Firing] = []
        if not self.wanted:
            return found
        rows = self._waiting.take(to_us)
        for within in different(self._table["within"][rows]).tolist():
            mine = rows[self._table["within"][rows] == within]
            state = self._at(mine, to_us, within // lost.CELLS)
            whole = mine[state.missing.sum(axis=1) <= 0]
            self._table.touch("now", whole)
            self._table["lossy"][whole] = 0
            for view in self.views:
                for number, test in enumerate(_tests(view)):
                    if _window(test) == within:
                        found += self._losing(view, number, mine, state, to_us)
        return found

    def _losing(self, view: RuleView, number: int, rows: Rows, state: lost.LostCounts, now_us: int) -> list[Firing]:
        test, found = view.test(number, LostTest), []
        for i in places(lost.losing(state, test.share, test.minimum)).tolist():
            actor = int(self._table["actor"][rows[i]])
            if self._variant(view, actor) == number:
                missing, expected = int(state.missing[i].sum()), int(state.expected[i].sum())
                minutes = test.within_us / (60 * SECOND)
                facts = Facts(
                    f"{missing} of {expected} numbered events of the last {minutes:.3g} minutes are missing",
                    value=missing / expected, calls=expected, failures=missing, since_us=now_us - test.within_us,
                )  # fmt: skip
                target = Target(Scope.ACTOR, str(self._actors["tenant"][actor]), str(self._actors["actor"][actor]))
                found.append(Firing(0, now_us, view, number, target, facts))
        return found

    def still_on(self, view: RuleView, actor: Rows, now_us: int) -> tuple[NDArray[np.bool_], I64]:
        """Whether too many of actors' events are missing, and until when that cannot change by itself, shape (n,) each.

        It can while their windows are not empty, whenever a cell begins.
        """
        number = np.array([self._variant(view, row) for row in actor.tolist()], dtype=np.int64)
        on, until = np.zeros(len(actor), dtype=np.bool_), np.full(len(actor), NEVER, dtype=np.int64)
        for variant in different(number[number != NONE]).tolist():
            test = view.test(variant, LostTest)
            within, width = _window(test), _window(test) // lost.CELLS
            mine = places(number == variant)
            rows = self._find(actor[mine], within)
            mine, rows = mine[rows >= 0], rows[rows >= 0]
            state = self._at(rows, now_us, width)
            on[mine] = lost.losing(state, test.share, test.minimum)
            filled = (state.expected != 0).any(axis=1) | (state.missing != 0).any(axis=1)
            until[mine[filled]] = (now_us // width + 1) * width
        return on, until

    def forget_unasked(self) -> None:
        """Drop the windows that no rule asks for: they are not kept up."""
        rows = places(self._table.live)
        gone = rows[~np.isin(self._table["within"][rows], np.array(self._windows, dtype=np.uint64))]
        if len(gone):
            self._refer(self._table["actor"][gone].astype(np.int64), -1)
            self._table.free(gone)

    def rebuild(self) -> None:
        """Find who is to be asked about, after a restore or a rollback."""
        self._waiting.rebuild()

    # --- rows

    def _find(self, actor: Rows, within: int) -> Rows:
        return self._table.find(actor.astype(np.uint64), np.full(len(actor), within, dtype=np.uint64)).astype(np.int64)

    def _rows(self, actor: Rows, within: int) -> Rows:
        """The rows of these actors, made where they are missing; -1 where there is no room."""
        rows = self._find(actor, within)
        new = different(actor[rows < 0])[: self._table.room]
        if len(new):
            self._table.add(new.astype(np.uint64), np.full(len(new), within, dtype=np.uint64))
            self._refer(new, 1)
            rows = self._find(actor, within)
        return rows

    def _variant(self, view: RuleView, actor: int) -> int:
        if view.plain:
            return 0
        return view.number(str(self._actors["tenant"][actor]), str(self._actors["actor"][actor]))


def missing_of(table: Table, actor: int, test: LostTest, now_us: int) -> tuple[int, int]:
    """How many of an actor's numbered events are missing at a time, and of how many; nothing is changed.

    Args:
        table: `losses_table`.
        actor: The actor's row.
        test: Says which window.
        now_us: The time, microseconds.
    """
    within = _window(test)
    row = table.find(np.array([actor], dtype=np.uint64), np.array([within], dtype=np.uint64))
    if row[0] < 0:
        return 0, 0
    state = lost.LostCounts(table["expected_cells"][row], table["missing_cells"][row], table["newest"][row])
    begun = table["cell"][row] * (within // lost.CELLS)
    lost.roll(state, np.maximum(begun, now_us), within)
    lost.count(state, np.array([0]), begun, table["expected"][row], table["missing"][row], within)
    return int(state.missing.sum()), int(state.expected.sum())


def _over(cell: I64, now: int | I64) -> NDArray[np.bool_]:
    """Whether a row that was last written in one cell has nothing left in another."""
    found: NDArray[np.bool_] = now - cell > lost.CELLS
    return found


def _tests(view: RuleView) -> list[LostTest]:
    return [view.test(number, LostTest) for number in range(len(view.variants))]


def _window(test: LostTest) -> int:
    """A test's window, a whole number of microseconds for each cell."""
    return test.within_us // lost.CELLS * lost.CELLS


def _from_first(owner: NDArray[np.intp], hit: NDArray[np.bool_], before: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which elements come at or after their owner's first hit; all of those who had one before.

    Owners are numbered from 0 without gaps, and sorted.
    """
    hits = np.cumsum(hit)
    starts = run_starts(owner)
    found: NDArray[np.bool_] = (hits > (hits[starts] - hit[starts])[owner]) | before[owner]
    return found
