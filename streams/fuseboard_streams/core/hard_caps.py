"""Hard caps: what one event of an actor may cost, and what it may spend in a day by UTC.

Every rule with a daily cap counts for itself, from when it came into force. A cap that is exceeded fires at every
further spending, so that one that is lowered, enforced late, or reset by a person acts at the next; while it holds
already nothing more is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors import caps
from fuseboard_detectors.segments import stable_order
from fuseboard_schemas.keys import Target
from fuseboard_schemas.records import Scope
from fuseboard_streams.core.firing import Facts, Firing
from fuseboard_streams.core.per_actor import PerActor, going_on
from fuseboard_streams.core.ruleset import CapTest
from fuseboard_streams.core.runs import places, run_starts
from fuseboard_streams.core.tables import Column, Family, Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_streams.core.firing import Settled
    from fuseboard_streams.core.rulebook import Rulebook
    from fuseboard_streams.core.settings import CoreSettings

I64: TypeAlias = NDArray[np.int64]
Index: TypeAlias = NDArray[np.intp]
Rows: TypeAlias = NDArray[np.int64]

DAY_US: Final = caps.DAY
_EACH: Final = 8
"""Daily caps for each of which there is room with as many actors as there may be."""
_NO_LIMIT: Final = int(np.iinfo(np.int64).max)


def capped_table(settings: CoreSettings) -> Table:
    """One row per actor and rule with a daily cap (`RuleView.bases`), once the actor has spent something."""
    key = Family("key", (Column("actor", "u8"), Column("basis", "u8")))
    day = Family("day", (Column("day", "i4"), Column("spent", "i8")))
    return Table("capped", (key, day), limit=_EACH * settings.max_actors, key=("actor", "basis"))


@dataclass(frozen=True, slots=True)
class Costs:
    """What n events cost, in order; every array has shape (n,)."""

    actor: Rows
    """Rows of the actors' table."""
    micro_usd: I64
    ts: I64
    stream: I64
    """Stream time once the event has been seen."""
    counted: NDArray[np.bool_]
    """Whether it is in time."""


class HardCaps:
    """Follows what actors spend in a day, for the rules with a cap on ``spend.usd``."""

    def __init__(
        self, table: Table, actors: Table, book: Rulebook, refer: Callable[[Rows, int], None], settled: Settled
    ) -> None:
        self._table = table
        self._refer = refer
        self._settled = settled
        self._rules = tuple(PerActor(actors, view) for view in book.asking(CapTest, Scope.ACTOR))
        self.wanted = bool(self._rules)
        """Whether any rule asks."""
        self.untracked = 0
        """Spendings of actors beyond the limit, which no daily cap counts."""

    def fold(self, costs: Costs, paid: Index) -> list[Firing]:
        """Take in what a run of events costs; ``paid`` are those that are in time and cost something, ascending."""
        found: list[Firing] = []
        for rule in self._rules:
            number = rule.numbers(costs.actor[paid])
            for daily in (False, True):
                limits = _limits(rule, daily=daily)
                mine = places(limits[number] < _NO_LIMIT)
                if len(mine) and daily:
                    found += self._over_day(rule, costs, paid[mine], number[mine], limits)
                elif len(mine):
                    found += self._over_event(rule, costs, paid[mine], number[mine], limits)
        return found

    def forget_unasked(self) -> None:
        """Drop what no rule in force goes on with."""
        rows = places(self._table.live)
        actor = self._table["actor"][rows].astype(np.int64)
        gone = ~going_on(self._rules, actor, self._table["basis"][rows])
        if gone.any():
            self._refer(actor[gone], -1)
            self._table.free(rows[gone])

    # --- what is exceeded

    def _over_event(self, rule: PerActor, costs: Costs, at: Index, number: I64, limits: I64) -> list[Firing]:
        over = caps.over_event(costs.micro_usd[at], limits[number])
        chosen = places(over)
        chosen = chosen[stable_order(costs.actor[at[chosen]])]

        def words(i: int) -> Facts:
            cost, limit = int(costs.micro_usd[at[i]]), int(limits[number[i]])
            reason = f"one event cost {usd(cost)}, the limit is {usd(limit)}"
            return Facts(reason, value=cost / 1e6, since_us=int(costs.stream[at[i]]))

        return self._found(rule, costs, at, number, chosen, words)

    def _over_day(self, rule: PerActor, costs: Costs, at: Index, number: I64, limits: I64) -> list[Firing]:
        rows = self._rows(costs.actor[at], rule.bases(number))
        known = places(rows >= 0)
        self.untracked += len(rows) - len(known)
        if len(known) == 0:
            return []
        order = known[stable_order(rows[known])]
        at, number, rows = at[order], number[order], rows[order]
        starts = run_starts(rows)
        heads = rows[starts]
        table = self._table
        table.touch("day", heads)
        state = caps.DaySpending(table["day"][heads].astype(np.int64), table["spent"][heads])
        totals = caps.fold(state, starts, costs.ts[at], costs.stream[at], costs.micro_usd[at])
        table["day"][heads], table["spent"][heads] = state.day, state.micro_usd

        def words(i: int) -> Facts:
            spent, limit = int(totals.spent[i]), int(limits[number[i]])
            reason = f"spent {usd(spent)} since midnight UTC, the limit of a day is {usd(limit)}"
            return Facts(reason, value=spent / 1e6, since_us=int(costs.stream[at[i]]) // DAY_US * DAY_US)

        over = places(totals.counted & (totals.spent > limits[number]))
        return self._found(rule, costs, at, number, over, words)

    def _found(
        self, rule: PerActor, costs: Costs, at: Index, number: I64, over: Index, words: Callable[[int], Facts]
    ) -> list[Firing]:
        """What is to be said of events over a limit, given by their places in ``at``, an actor's own together."""
        found: list[Firing] = []
        if len(over) == 0:
            return found
        for part in np.split(over, run_starts(costs.actor[at[over]])[1:]):
            variant, last = int(number[part[-1]]), int(costs.stream[at[part[-1]]])
            target = Target(Scope.ACTOR, *rule.names(int(costs.actor[at[part[-1]]])))
            # Whoever is held already is not looked at event by event.
            if self._settled(rule.view, variant, target, last, next_day(last)):
                continue
            for i in part.tolist():
                where, now = int(at[i]), int(costs.stream[at[i]])
                found.append(
                    Firing(where, now, rule.view, variant, target, words(i), decided=where, until_us=next_day(now))
                )
        return found

    # --- rows

    def _rows(self, actor: Rows, basis: NDArray[np.uint64]) -> Rows:
        """The rows of these actors, made where they are missing; -1 where there is no room."""
        table, keys = self._table, actor.astype(np.uint64)
        rows = table.find(keys, basis).astype(np.int64)
        missing = places(rows < 0)
        if len(missing):
            rows[missing], new = table.add_missing(keys[missing], basis[missing])
            self._refer(actor[missing[new]], 1)
        return rows


def over(table: Table, rows: NDArray[np.int32], now_us: int) -> NDArray[np.bool_]:
    """Which rows are of a day that is over. Whether such a row is still there never shows: the next day begins anew."""
    found: NDArray[np.bool_] = table["day"][rows] < now_us // DAY_US
    return found


def usd(micro_usd: int) -> str:
    """An amount as people read it."""
    whole, rest = divmod(micro_usd, 1_000_000)
    return f"${whole}.{rest:06d}".rstrip("0").ljust(len(f"${whole}.00"), "0")


def next_day(time_us: int) -> int:
    """The next midnight by UTC after a time."""
    return (time_us // DAY_US + 1) * DAY_US


def _limits(rule: PerActor, *, daily: bool) -> I64:
    """The limit of each variant, and last that of those whom the rule is not for."""
    tests = [rule.view.test(number, CapTest) for number in range(len(rule.view.variants))]
    return np.array([*(test.micro_usd if test.daily is daily else _NO_LIMIT for test in tests), _NO_LIMIT])


__all__ = ["DAY_US", "Costs", "HardCaps", "capped_table", "next_day", "over", "usd"]
