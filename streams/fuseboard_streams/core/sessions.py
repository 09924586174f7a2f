"""Sessions that are stuck: failures in a row, or identical calls in a row, of one trace of one actor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors import loops
from fuseboard_schemas.keys import Target
from fuseboard_schemas.records import Scope
from fuseboard_streams.core.firing import Facts, Firing
from fuseboard_streams.core.ruleset import RunsTest
from fuseboard_streams.core.runs import places, run_starts
from fuseboard_streams.core.tables import Column, Family, Table
from fuseboard_streams.rules.patterns import fits

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_streams.core.rulebook import Rulebook
    from fuseboard_streams.core.settings import CoreSettings

I64: TypeAlias = NDArray[np.int64]
U64: TypeAlias = NDArray[np.uint64]
Bools: TypeAlias = NDArray[np.bool_]
Rows: TypeAlias = NDArray[np.int64]

SECOND: Final = 1_000_000
HELD_US: Final = 3_600 * SECOND
"""How long a stuck session is stopped."""
_HALF, _LOW, _ODD = np.uint64(32), np.uint64(0xFFFF_FFFF), np.uint64(0x9E37_79B1)
_MOST: Final = 255
"""Where a count stops: it is kept in one byte."""


def sessions_table(settings: CoreSettings) -> Table:
    """One row per trace of an actor that has called a tool lately."""
    key = Family("key", (Column("trace", "u8"), Column("owner", "u8")))
    run = Family(
        "run", (Column("last", "u4"), Column("failures", "u1"), Column("identical", "u1"), Column("last_seen", "i4"))
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

    def __init__(self, table: Table, actors: Table, book: Rulebook, settings: CoreSettings) -> None:
        self._table = table
        self._actors = actors
        # Rows of actors are used again once they are forgotten: nothing here may outlive them.
        self._idle_s = min(settings.session_idle_us, settings.forget_after_us // 2) // SECOND
        self._views = book.asking(RunsTest, Scope.SESSION)
        self._polling: dict[int, bool] = {}
        self.wanted = bool(self._views)
        """Whether any rule asks."""
        self.untracked = 0
        """Calls of new traces beyond the limit, which are not followed."""

    def fold(
        self, calls: SessionCalls, tool_name: Callable[[int], str], trace_of: Callable[[int], str]
    ) -> list[Firing]:
        """Take in the calls of a run, which spans less stream time than the idle limit.

        Args:
            calls: the calls that count.
            tool_name: a tool's name by its number.
            trace_of: the trace id of the call at a position of the run.
        """
        rows = self._rows(calls)
        known = places(rows >= 0)
        self.untracked += len(rows) - len(known)
        if len(known) == 0:
            return []
        self._start_anew(rows[known], calls.seconds[known])
        order = known[np.argsort(rows[known], kind="stable")]
        starts = run_starts(rows[order])
        heads = rows[order][starts]
        table = self._table
        table.touch("run", heads)
        state = loops.LoopState(
            table["failures"][heads].astype(np.int64),
            table["last"][heads].astype(np.uint64),
            table["identical"][heads].astype(np.int64),
        )
        polling = self._polls(calls.tool[order], tool_name)
        counts = loops.fold(state, starts, calls.failed[order], _call_hash(calls, order), polling)
        table["failures"][heads] = np.minimum(state.failures, _MOST)
        table["last"][heads] = state.last
        table["identical"][heads] = np.minimum(state.identical, _MOST)
        table["last_seen"][heads] = calls.seconds[order][np.append(starts[1:], len(order)) - 1]
        # A poller's call only repeats the count before it.
        counts.identical[polling] = 0
        return self._found(calls, order, counts, trace_of)

    def expired(self, rows: NDArray[np.int32], now_s: int) -> Bools:
        """Which sessions have been idle for so long that they begin anew."""
        idle: Bools = now_s - self._table["last_seen"][rows].astype(np.int64) > self._idle_s
        return idle

    # --- what was found

    def _found(
        self, calls: SessionCalls, order: NDArray[np.intp], counts: loops.LoopCounts, trace_of: Callable[[int], str]
    ) -> list[Firing]:
        found: list[Firing] = []
        failed = calls.failed[order]
        for view in self._views:
            for variant in range(len(view.variants)):
                test = view.test(variant, RunsTest)
                stuck = failed & (counts.failures == test.failures)
                same = counts.identical == test.identical
                for i in places(stuck | same).tolist():
                    at = int(order[i])
                    tenant, actor = self._names(int(calls.actor[at]))
                    if view.number(tenant, actor) == variant:
                        what = "failed" if stuck[i] else "made the same call"
                        length = test.failures if stuck[i] else test.identical
                        now, position = int(calls.stream[at]), int(calls.position[at])
                        facts = Facts(
                            f"{what} {length} times in a row", value=float(length), calls=length,
                            failures=length if stuck[i] else None,
                        )  # fmt: skip
                        target = Target(Scope.SESSION, tenant, actor, trace_id=trace_of(position))
                        found.append(
                            Firing(
                                position, now, view, variant, target, facts, decided=position, until_us=now + HELD_US
                            )
                        )
        return found

    def _names(self, actor: int) -> tuple[str, str]:
        return str(self._actors["tenant"][actor]), str(self._actors["actor"][actor])

    def _polls(self, tool: Rows, name: Callable[[int], str]) -> Bools:
        """Which calls are of tools that any rule declares to poll."""
        patterns = {
            pattern for view in self._views for number in range(len(view.variants))
            for pattern in view.test(number, RunsTest).polling
        }  # fmt: skip
        if not patterns:
            return np.zeros(len(tool), dtype=np.bool_)
        unique, inverse = np.unique(tool, return_inverse=True)
        for number in unique.tolist():
            if number not in self._polling:
                self._polling[number] = any(fits(each, name(number)) for each in patterns)
        flags = np.array([self._polling[number] for number in unique.tolist()], dtype=np.bool_)
        found: Bools = flags[inverse]
        return found

    # --- rows

    def _rows(self, calls: SessionCalls) -> Rows:
        table = self._table
        owner = calls.actor.astype(np.uint64)
        rows = table.find(calls.trace, owner).astype(np.int64)
        missing = places(rows < 0)
        if len(missing):
            pairs = np.unique(np.stack((calls.trace[missing], owner[missing])), axis=1)[:, : table.room]
            if pairs.size:
                table.add(np.ascontiguousarray(pairs[0]), np.ascontiguousarray(pairs[1]))
                rows[missing] = table.find(calls.trace[missing], owner[missing])
        return rows

    def _start_anew(self, rows: Rows, seconds: NDArray[np.int32]) -> None:
        last = self._table["last_seen"][rows]
        old = (seconds - last > self._idle_s) & (last != 0)
        if old.any():
            # Only a session's first call of the run comes after ``last``.
            unique, first = np.unique(rows, return_index=True)
            stale = unique[old[first]]
            self._table.touch("run", stale)
            for name in ("last", "failures", "identical"):
                self._table[name][stale] = 0


def _call_hash(calls: SessionCalls, order: NDArray[np.intp]) -> U64:
    """32 bits that stand for a tool and its arguments; 0, which is like no other, where the arguments are unknown."""
    arguments = calls.arguments[order]
    mixed: U64 = (arguments ^ (arguments >> _HALF)) + calls.tool[order].astype(np.uint64) * _ODD
    mixed = np.maximum(mixed & _LOW, np.uint64(1))
    mixed[arguments == 0] = 0
    return mixed
