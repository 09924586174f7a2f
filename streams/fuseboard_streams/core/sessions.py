"""Sessions that are stuck: failures in a row, or identical calls in a row, of one trace of one actor.

Every rule counts for itself, in a row per trace: which tools may poll, and since when it counts, is its own. Counts
stop at `MOST`: a rule that asks for more never fires.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors import loops
from fuseboard_detectors.segments import firsts, stable_order
from fuseboard_schemas.keys import Target
from fuseboard_schemas.records import Scope
from fuseboard_streams.core.firing import Facts, Firing
from fuseboard_streams.core.per_actor import NONE, PerActor, going_on
from fuseboard_streams.core.ruleset import RunsTest
from fuseboard_streams.core.runs import places, run_starts
from fuseboard_streams.core.tables import Column, Family, Table
from fuseboard_streams.rules.patterns import fits

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_streams.core.firing import Settled
    from fuseboard_streams.core.rulebook import Rulebook
    from fuseboard_streams.core.settings import CoreSettings

I64: TypeAlias = NDArray[np.int64]
U64: TypeAlias = NDArray[np.uint64]
Bools: TypeAlias = NDArray[np.bool_]
Index: TypeAlias = NDArray[np.intp]
Rows: TypeAlias = NDArray[np.int64]

SECOND: Final = 1_000_000
HELD_US: Final = 3_600 * SECOND
"""How long a stuck session is stopped."""
_HALF, _LOW, _ODD = np.uint64(32), np.uint64(0xFFFF_FFFF), np.uint64(0x9E37_79B1)
MOST: Final = 65_535
"""Where a count stops: it is kept in two bytes."""
_NO_CALLS: Final = np.empty(0, dtype=np.intp)


def sessions_table(settings: CoreSettings) -> Table:
    """One row per rule and trace of an actor that has called a tool lately.

    ``owner`` is the actor's row with half of what names the rule's state (`RuleView.bases`) above it.
    """
    key = Family("key", (Column("trace", "u8"), Column("owner", "u8")))
    run = Family(
        "run", (Column("last", "u4"), Column("failures", "u2"), Column("identical", "u2"), Column("last_seen", "i4"))
    )
    return Table("sessions", (key, run), limit=settings.max_sessions, key=("trace", "owner"))


@dataclass(frozen=True, slots=True)
class SessionCalls:
    """n calls in order that belong to a trace and count: no refusals, no probes. Every array has shape (n,)."""

    position: NDArray[np.intp]
    """In the run of events."""
    actor: Rows
    trace: U64
    """A hash of the trace."""
    tool: Rows
    """Number of the tool's name."""
    arguments: U64
    """A hash of the arguments; 0 where they are not known."""
    failed: Bools
    seconds: NDArray[np.int32]
    """Stream time as the tables keep it."""
    stream: I64


class Sessions:
    """Follows the runs of every trace, for the rules on ``calls.repeated``."""

    def __init__(self, table: Table, actors: Table, book: Rulebook, settings: CoreSettings, settled: Settled) -> None:
        self._table = table
        self._settled = settled
        # Rows of actors are used again once they are forgotten: nothing here may outlive them.
        self._idle_s = min(settings.session_idle_us, settings.forget_after_us // 2) // SECOND
        self._rules = tuple(PerActor(actors, view) for view in book.asking(RunsTest, Scope.SESSION))
        self._polling: dict[tuple[tuple[str, ...], str], bool] = {}
        self.wanted = bool(self._rules)
        """Whether any rule asks."""
        self.untracked = 0
        """Calls of new traces beyond the limit, which are not followed; once for each rule."""

    def fold(
        self, calls: SessionCalls, tool_name: Callable[[int], str], trace_of: Callable[[int], str]
    ) -> list[Firing]:
        """Take in the calls of a run, which spans less stream time than the idle limit.

        Args:
            calls: the calls that count.
            tool_name: a tool's name by its number.
            trace_of: the trace id of the call at a position of the run.
        """
        found: list[Firing] = []
        for rule in self._rules:
            number = rule.numbers(calls.actor)
            rows = self._rows(calls, rule, number)
            known = places(rows >= 0)
            self.untracked += int(np.count_nonzero(number != NONE)) - len(known)
            if len(known):
                self._start_anew(rows[known], calls.seconds[known])
                order = known[stable_order(rows[known])]
                counts = self._count(
                    calls, order, rows[order], self._polls(rule, number[order], calls.tool[order], tool_name)
                )
                found += self._found(rule, calls, order, number[order], counts, trace_of)
        return found

    def _count(self, calls: SessionCalls, order: Index, rows: Rows, polling: Bools) -> loops.LoopCounts:
        """Count the calls of each row, in their order."""
        starts = run_starts(rows)
        heads = rows[starts]
        table = self._table
        table.touch("run", heads)
        state = loops.LoopState(
            table["failures"][heads].astype(np.int64),
            table["last"][heads].astype(np.uint64),
            table["identical"][heads].astype(np.int64),
        )
        counts = loops.fold(state, starts, calls.failed[order], _call_hash(calls, order), polling)
        table["failures"][heads] = np.minimum(state.failures, MOST)
        table["last"][heads] = state.last
        table["identical"][heads] = np.minimum(state.identical, MOST)
        table["last_seen"][heads] = calls.seconds[order][np.append(starts[1:], len(order)) - 1]
        # A poller's call only repeats the count before it.
        counts.identical[polling] = 0
        return loops.LoopCounts(np.minimum(counts.failures, MOST), np.minimum(counts.identical, MOST))

    def expired(self, rows: NDArray[np.int32], now_s: int) -> Bools:
        """Which sessions have been idle for so long that they begin anew."""
        idle: Bools = now_s - self._table["last_seen"][rows].astype(np.int64) > self._idle_s
        return idle

    def forget_unasked(self) -> None:
        """Drop what no rule in force goes on with."""
        rows = places(self._table.live)
        owner = self._table["owner"][rows]
        kept = np.zeros(len(rows), dtype=np.bool_)
        if self._rules:
            # Half of the name is kept: it is compared with half of the names in force.
            halves = self._table["owner"][rows] >> _HALF
            kept = going_on(self._rules, (owner & _LOW).astype(np.int64), halves, shift=int(_HALF))
        self._table.free(rows[~kept])

    def forget(self, rule: str, actor: int, trace: int) -> None:
        """Begin anew with one session, for one rule: a person let go of it.

        Args:
            rule: the rule's name.
            actor: row of the actors' table.
            trace: the hash of the trace.
        """
        for each in self._rules:
            number = each.numbers(np.array([actor]))
            if each.view.rule.rule == rule and number[0] != NONE:
                row = self._table.find(
                    np.array([trace], dtype=np.uint64), owner_of(np.array([actor]), each.bases(number))
                )
                self._table.free(row[row >= 0])

    # --- what was found

    def _found(
        self,
        rule: PerActor,
        calls: SessionCalls,
        order: Index,
        number: I64,
        counts: loops.LoopCounts,
        trace_of: Callable[[int], str],
    ) -> list[Firing]:
        tests = [rule.view.test(variant, RunsTest) for variant in range(len(rule.view.variants))]
        stuck = calls.failed[order] & (counts.failures >= np.array([test.failures for test in tests])[number])
        same = counts.identical >= np.array([test.identical for test in tests])[number]
        found: list[Firing] = []
        for at in _by_session(calls, order, places(stuck | same)):
            last = int(order[at[-1]])
            variant = int(number[at[-1]])
            tenant, actor = rule.names(int(calls.actor[last]))
            target = Target(Scope.SESSION, tenant, actor, trace_id=trace_of(int(calls.position[last])))
            # A session that goes on looping is not looked at call by call once it is held.
            if self._settled(rule.view, variant, target, int(calls.stream[last]), int(calls.stream[last]) + HELD_US):
                continue
            for i in at:
                length = int(counts.failures[i] if stuck[i] else counts.identical[i])
                now, position = int(calls.stream[order[i]]), int(calls.position[order[i]])
                facts = Facts(
                    f"{'failed' if stuck[i] else 'made the same call'} {length} times in a row", value=float(length),
                    calls=length, failures=length if stuck[i] else None,
                )  # fmt: skip
                firing = Firing(
                    position, now, rule.view, variant, target, facts, decided=position, until_us=now + HELD_US
                )
                found.append(firing)
        return found

    def _polls(self, rule: PerActor, number: I64, tool: Rows, name: Callable[[int], str]) -> Bools:
        """Which calls are of tools that the rule, as it is for their actor, lets poll."""
        found = np.zeros(len(tool), dtype=np.bool_)
        for variant in range(len(rule.view.variants)):
            patterns = rule.view.test(variant, RunsTest).polling
            mine = places(number == variant) if patterns else _NO_CALLS
            if len(mine):
                unique, inverse = np.unique(tool[mine], return_inverse=True)
                found[mine] = np.array([self._fits(patterns, name(each)) for each in unique.tolist()])[inverse]
        return found

    def _fits(self, patterns: tuple[str, ...], name: str) -> bool:
        known = self._polling.get((patterns, name))
        if known is None:
            known = self._polling[patterns, name] = any(fits(each, name) for each in patterns)
        return known

    # --- rows

    def _rows(self, calls: SessionCalls, rule: PerActor, number: I64) -> Rows:
        """The rows of a rule for these calls, made where they are missing; -1 where there is none to be."""
        table = self._table
        rows = np.full(len(number), NONE, dtype=np.int64)
        mine = places(number != NONE)
        trace, owner = calls.trace[mine], owner_of(calls.actor[mine], rule.bases(number[mine]))
        rows[mine] = table.find(trace, owner)
        missing = places(rows[mine] < 0)
        if len(missing):
            rows[mine[missing]] = table.add_missing(trace[missing], owner[missing])[0]
        return rows

    def _start_anew(self, rows: Rows, seconds: NDArray[np.int32]) -> None:
        last = self._table["last_seen"][rows]
        old = (seconds - last > self._idle_s) & (last != 0)
        if old.any():
            # Only a session's first call of the run comes after ``last``.
            unique, first = firsts(rows)
            stale = unique[old[first]]
            self._table.touch("run", stale)
            for name in ("last", "failures", "identical"):
                self._table[name][stale] = 0


def owner_of(actor: Rows, basis: U64) -> U64:
    """What names the rows of these actors and rules, shape (n,)."""
    owner: U64 = actor.astype(np.uint64) | (basis >> _HALF << _HALF)
    return owner


def _by_session(calls: SessionCalls, order: Index, at: Index) -> list[list[int]]:
    """Places in ``order``, cut where another actor's or another trace's calls begin."""
    if len(at) == 0:
        return []
    trace, actor = calls.trace[order[at]], calls.actor[order[at]]
    begins = places((trace[1:] != trace[:-1]) | (actor[1:] != actor[:-1])) + 1
    return [part.tolist() for part in np.split(at, begins)]


def _call_hash(calls: SessionCalls, order: NDArray[np.intp]) -> U64:
    """32 bits that stand for a tool and its arguments; 0, which is like no other, where the arguments are unknown."""
    arguments = calls.arguments[order]
    mixed: U64 = (arguments ^ (arguments >> _HALF)) + calls.tool[order].astype(np.uint64) * _ODD
    mixed = np.maximum(mixed & _LOW, np.uint64(1))
    mixed[arguments == 0] = 0
    return mixed
