"""One level's failure statistics over one piece of a shard: all keys at once, in event order for each.

The events of a piece are sorted by key; a key's successes between two failures are counted, and its failures are
applied in rounds: the first failure of every key, then the second of those that have one, and so on. That is the same
arithmetic in the same order for each key as one event at a time, whatever the piece.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors.attribution import RING, FailureRing, given_calls, least_without_a_tool, remember, take_out
from fuseboard_detectors.failure import Bools, FailureState, FailureStep, count_failure, initial_null, restart
from fuseboard_detectors.segments import different, stable_order
from fuseboard_streams.core.runs import places, run_starts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fuseboard_detectors.failure import FailureParams
    from fuseboard_streams.core.tables import Table

I64: TypeAlias = NDArray[np.int64]
I32: TypeAlias = NDArray[np.int32]

SUCCESS, FAILURE, TAKE_OUT, NOTHING = 0, 1, 2, 3
"""Kinds of entry: counts as a success, as a failure, removes a tool's failures, only asks whether it is included."""
_NEVER = np.iinfo(np.int64).max
_MOST_SUCCESSES = np.iinfo(np.int32).max
_STATE = tuple(f.name for f in fields(FailureState))
_RING = tuple(f.name for f in fields(FailureRing))


@dataclass(slots=True)
class Entries:
    """n entries of a piece in event order, shape (n,) each."""

    row: I32
    kind: NDArray[np.uint8]
    at: I64
    """Event time in microseconds."""
    tool: I32
    """The tool's number: of the failing call, or of the one to take out."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A key whose evidence reached a level."""

    entry: int
    """Which entry of the piece decided it."""
    row: int
    tripped: bool
    warned: bool
    """The evidence came from below the warn level."""
    mean: float
    p0: float
    calls: int
    failures: int
    since: int


@dataclass(slots=True)
class Sorted:
    """The entries of a piece by key: shape (n,) in sorted order, (m,) for the m failures and take-outs."""

    index: NDArray[np.int64]
    row: NDArray[np.int64]
    starts: NDArray[np.intp]
    successes: I64
    """Successes up to and including this entry, over the whole piece."""
    before: I64
    """Successes before each key's first entry."""
    op: NDArray[np.intp]
    op_segment: NDArray[np.intp]
    op_rank: NDArray[np.intp]
    op_gap: I64
    """Successes between the key's previous failure or take-out, or its start, and this one."""


def sort_entries(entries: Entries) -> Sorted:
    """Sort by key, keeping the order of events."""
    n = len(entries.row)
    keys = (entries.row.astype(np.uint64) << np.uint64(32)) | np.arange(n, dtype=np.uint64)
    keys.sort()
    index = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    row = (keys >> np.uint64(32)).astype(np.int64)
    kind = entries.kind[index]
    success = kind == SUCCESS
    successes = np.cumsum(success)
    starts = run_starts(row)
    before = successes[starts] - success[starts]
    op = places((kind == FAILURE) | (kind == TAKE_OUT))
    segment = np.searchsorted(starts, op, side="right") - 1
    first = run_starts(segment)
    rank = np.arange(len(op)) - np.repeat(first, np.diff(np.append(first, len(op))))
    at_op = successes[op]
    at_previous = before[segment]
    at_previous[1:] = np.where(rank[1:] > 0, at_op[:-1], at_previous[1:])
    return Sorted(index, row, starts, successes, before, op, segment, rank, at_op - at_previous)


class Level(Protocol):
    """Which settings the keys of a statistic have, by the number in their column ``rule``."""

    @property
    def general(self) -> bool:
        """Whether every key has number 0."""

    def params(self, number: int, /) -> FailureParams:
        """The settings of a number."""


class Statistic:
    """The failure statistics of a table's rows: the table has the columns of `FailureState`."""

    def __init__(self, table: Table, level: Level, rings: Table | None = None) -> None:
        self.table = table
        self.rings = rings
        self.level = level

    def run(self, entries: Entries, want_included: bool) -> tuple[list[Finding], Bools | None]:
        """Fold a piece.

        Args:
            entries: in event order; no row is frozen.
            want_included: whether the second result is needed.

        Returns:
            What reached a level, in no particular order, and for each entry whether the key was below the warn level,
            and had not tripped, once the entry was in (None stands for all).
        """
        by_key = sort_entries(entries)
        rows = by_key.row[by_key.starts]
        initial = self._initial(rows) if want_included else None
        suspect_left = np.zeros(len(by_key.op), dtype=np.int64)
        tripped = np.zeros(len(by_key.starts), dtype=np.bool_)
        findings: list[Finding] = []
        for chosen in _rounds(by_key.op_rank):
            alive = chosen[~tripped[by_key.op_segment[chosen]]]
            suspect_left[chosen] = _NEVER
            if len(alive):
                self._round(entries, by_key, alive, suspect_left, tripped, findings)
        self._trailing(by_key, rows, tripped)
        if initial is None:
            return findings, None
        return findings, self._included(entries, by_key, initial, suspect_left)

    def _initial(self, rows: I64) -> tuple[I64, I64]:
        left = self.table["suspect_left"][rows].astype(np.int64)
        return left, self.table["successes"][rows].astype(np.int64)

    def _round(
        self,
        entries: Entries,
        by_key: Sorted,
        ops: NDArray[np.intp],
        suspect_left: I64,
        tripped: Bools,
        findings: list[Finding],
    ) -> None:
        where = by_key.index[by_key.op[ops]]
        rows = by_key.row[by_key.op[ops]]
        self.table.touch("hot", rows)
        self.table.touch("stat", rows)
        self._add_successes(rows, by_key.op_gap[ops])
        removes = entries.kind[where] == TAKE_OUT
        if removes.any():
            chosen = places(removes)
            suspect_left[ops[chosen]] = self._take_out(rows[chosen], entries.tool[where[chosen]])
        chosen = places(~removes)
        if len(chosen) == 0:
            return
        rows, where, ops = rows[chosen], where[chosen], ops[chosen]
        state, step = self._count(rows, entries.at[where], entries.tool[where])
        suspect_left[ops] = np.where(step.tripped, _NEVER, state.suspect_left)
        found = places(step.warned | step.tripped).tolist()
        findings.extend(_finding(int(where[i]), int(rows[i]), state, step, i) for i in found)
        fired = places(step.tripped)
        if len(fired):
            tripped[by_key.op_segment[ops[fired]]] = True
            self.restart(rows[fired])

    def _count(self, rows: I64, at: I64, tool: I32) -> tuple[FailureState, FailureStep]:
        state = self.load(rows)
        gap, old_p0 = state.successes, state.p0
        numbers = self.table["rule"][rows]
        if (numbers == numbers[0]).all():
            step = count_failure(state, at, self.level.params(int(numbers[0])))
        else:
            step = self._count_by_rule(state, at, numbers)
        self.save(rows, state)
        if self.rings is not None:
            self._remember(rows, state, gap, old_p0, tool, at)
            self._spare(rows, state, step)
        return state, step

    def _count_by_rule(self, state: FailureState, at: I64, numbers: NDArray[np.int16]) -> FailureStep:
        mean = np.empty(len(at))
        warned, tripped = np.empty(len(at), np.bool_), np.empty(len(at), np.bool_)
        for number in different(numbers).tolist():
            some = places(numbers == number)
            part = FailureState(*(getattr(state, name)[some] for name in _STATE))
            step = count_failure(part, at[some], self.level.params(number))
            for name in _STATE:
                getattr(state, name)[some] = getattr(part, name)
            mean[some], warned[some], tripped[some] = step.mean, step.warned, step.tripped
        return FailureStep(mean, warned, tripped)

    def load(self, rows: I64 | I32) -> FailureState:
        """The statistics of some rows; one that has had no failure yet has the null of its rule."""
        state = FailureState(**{name: _widened(self.table[name][rows]) for name in _STATE})
        unset = places(state.p0 == 0.0)
        if len(unset):
            if self.level.general:
                state.p0[unset] = initial_null(self.level.params(0))
            else:
                numbers = self.table["rule"][rows[unset]].tolist()
                state.p0[unset] = [initial_null(self.level.params(number)) for number in numbers]
        return state

    def save(self, rows: I64 | I32, state: FailureState) -> None:
        """Write the statistics of some rows; they have been touched."""
        for name in _STATE:
            self.table[name][rows] = getattr(state, name)

    def restart(self, rows: I64 | I32) -> None:
        """Begin the statistics of some rows anew; what was learned stays."""
        state = self.load(rows)
        restart(state)
        self.save(rows, state)
        if self.rings is not None:
            self._drop_rings(rows)

    # Rings exist only for actors that have had a counted failure since their statistic began.

    def _remember(
        self, rows: I64, state: FailureState, gap: I64, old_p0: NDArray[np.float64], tool: I32, at: I64
    ) -> None:
        rings = self._rings()
        without = places(self.table["ring"][rows] < 0)
        if len(without):
            fresh = rings.allocate(len(without))
            rings.touch("ring", fresh)
            rings["base_p0"][fresh] = old_p0[without]
            self.table["ring"][rows[without]] = fresh
        slots = self.table["ring"][rows]
        rings.touch("ring", slots)
        ring = self._load_ring(slots)
        learned = np.where(state.suspect_left == 0, given_calls(state) - 1, -1)
        remember(ring, tool.astype(np.int64), gap, state.p0, learned, self.level.params(0), at)
        self._save_ring(slots, ring)

    def _by_rule(self, rows: I64) -> Iterator[tuple[NDArray[np.intp], FailureParams]]:
        """Which of some rows have the same settings, and these."""
        numbers = self.table["rule"][rows]
        for number in different(numbers).tolist():
            yield places(numbers == number), self.level.params(number)

    def _spare(self, rows: I64, state: FailureState, step: FailureStep) -> None:
        """Do not trip an actor for what one of its tools explains: that is the tool's own statistic's to find."""
        for some, params in self._by_rule(rows):
            # Of a longer run the first failures could no longer be taken out, whoever is to blame for them.
            long = (step.mean[some] >= params.warn) & (state.run_failures[some] >= RING)
            chosen = places(step.tripped[some] | long)
            if len(chosen) == 0:
                continue
            asked = some[chosen]
            part = FailureState(*(getattr(state, name)[asked] for name in _STATE))
            least, tool = least_without_a_tool(self._load_ring(self.table["ring"][rows[asked]]), part, params)
            step.tripped[asked[least < params.unexplained]] = False
            # Less is asked before evidence is given up: what many tools share evenly must go on growing.
            blamed = (least < params.warn) & long[chosen]
            if blamed.any():
                self._take_out(rows[asked[blamed]], tool[blamed].astype(np.int32))

    def _take_out(self, rows: I64, tool: I32, since_us: int | None = None) -> I64:
        state = self.load(rows)
        having = places(self.table["ring"][rows] >= 0) if self.rings is not None else np.empty(0, np.intp)
        for some, params in self._by_rule(rows[having]):
            mine = having[some]
            slots = self.table["ring"][rows[mine]]
            self._rings().touch("ring", slots)
            ring = self._load_ring(slots)
            part = FailureState(*(getattr(state, name)[mine] for name in _STATE))
            since = None if since_us is None else np.full(len(mine), since_us, dtype=np.int64)
            take_out(ring, part, tool[mine].astype(np.int64), params, since)
            for name in _STATE:
                getattr(state, name)[mine] = getattr(part, name)
            self._save_ring(slots, ring)
        if len(having):
            self.save(rows, state)
        return state.suspect_left

    def blame(self, rows: I64, tool: int, since_us: int) -> None:
        """Take a tool's failures since a time out of some rows' evidence: the tool's own breaker owns them.

        What is left is what it would be had those calls not been made, as far as the rings go back.
        """
        having = places(self.table["ring"][rows] >= 0)
        if len(having) == 0:
            return
        rows = rows[having]
        slots = self.table["ring"][rows]
        chosen = places(((self._rings()["tool"][slots] == tool) & (self._rings()["at"][slots] >= since_us)).any(axis=1))
        if len(chosen) == 0:
            return
        rows = rows[chosen]
        self.table.touch("hot", rows)
        self.table.touch("stat", rows)
        self._take_out(rows, np.full(len(rows), tool, dtype=np.int32), since_us)

    def _drop_rings(self, rows: I64 | I32) -> None:
        slots = self.table["ring"][rows]
        slots = slots[slots >= 0]
        if len(slots):
            self._rings().free(slots)
            self.table["ring"][rows] = -1

    def _rings(self) -> Table:
        if self.rings is None:
            raise AssertionError("this level keeps no rings")
        return self.rings

    def _load_ring(self, slots: I32) -> FailureRing:
        return FailureRing(**{name: _widened(self._rings()[name][slots]) for name in _RING})

    def _save_ring(self, slots: I32, ring: FailureRing) -> None:
        for name in _RING:
            self._rings()[name][slots] = getattr(ring, name)

    def _trailing(self, by_key: Sorted, rows: I64, tripped: Bools) -> None:
        """Count the successes after each key's last failure."""
        ends = np.append(by_key.starts[1:], len(by_key.row)) - 1
        since = by_key.before.copy()
        if len(by_key.op):
            # Later assignments win: what stays is each key's last failure.
            since[by_key.op_segment] = by_key.successes[by_key.op]
        trailing = np.where(tripped, 0, by_key.successes[ends] - since)
        self.table.touch("hot", rows)
        self._add_successes(rows, trailing)

    def _add_successes(self, rows: I64, more: I64) -> None:
        # A key may go on for years without a failure; a count that wrapped around would be no count at all.
        self.table["successes"][rows] = np.minimum(self.table["successes"][rows] + more, _MOST_SUCCESSES)

    def _included(self, entries: Entries, by_key: Sorted, initial: tuple[I64, I64], suspect_left: I64) -> Bools | None:
        left, count = initial
        if not left.any() and not suspect_left.any():
            return None
        n = len(by_key.row)
        segment = np.searchsorted(by_key.starts, np.arange(n), side="right") - 1
        governing = np.searchsorted(by_key.op, np.arange(n), side="right") - 1
        safe = np.maximum(governing, 0)
        own = (governing >= 0) & (by_key.op_segment[safe] == segment) if len(by_key.op) else np.zeros(n, np.bool_)
        needed = left[segment]
        made = count[segment] + by_key.successes - by_key.before[segment]
        if len(by_key.op):
            needed = np.where(own, suspect_left[safe], needed)
            made = np.where(own, by_key.successes - by_key.successes[by_key.op[safe]], made)
        result = np.empty(n, dtype=np.bool_)
        result[by_key.index] = (needed == 0) | (made >= needed)
        return result


def _widened(column: NDArray[Any]) -> NDArray[Any]:
    """Integers as the arithmetic wants them."""
    return column if column.dtype == np.float64 else column.astype(np.int64)


def _rounds(rank: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """The numbers of the first failures of all keys, then of the second ones, ..."""
    if len(rank) == 0:
        return []
    order = stable_order(rank)
    return np.split(order, run_starts(rank[order])[1:])


def _finding(entry: int, row: int, state: FailureState, step: FailureStep, i: int) -> Finding:
    return Finding(
        entry,
        row,
        bool(step.tripped[i]),
        bool(step.warned[i]),
        float(step.mean[i]),
        float(state.p0[i]),
        int(state.run_calls[i]),
        int(state.run_failures[i]),
        int(state.run_since[i]),
    )


def ring_columns(odds: int) -> tuple[tuple[str, str, int], ...]:
    """Name, dtype and width of the columns that a ring's table needs."""
    return (
        ("base_r", "f8", odds),
        ("base_p0", "f8", 1),
        ("size", "i4", 1),
        ("tool", "i4", RING),
        ("gap", "i4", RING),
        ("p0", "f8", RING),
        ("ordinal", "i8", RING),
        ("at", "i8", RING),
    )
