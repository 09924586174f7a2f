"""Policy violations: in how many distinct traces an actor was denied something among its last actions.

An action is a call of a tool, refusals by a breaker and probes excepted. It is a violation if a policy decision in
effect denied it, or if the call itself says that a policy did; several decisions about one trace count once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors.recent import SLOTS, RecentHits, distinct, hit
from fuseboard_schemas.keys import Target
from fuseboard_schemas.records import Scope, Severity
from fuseboard_streams.core.firing import Facts, Firing
from fuseboard_streams.core.ruleset import DistinctTest
from fuseboard_streams.core.runs import places, run_starts
from fuseboard_streams.core.tables import Column, Family, Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_streams.core.rulebook import Rulebook, RuleView
    from fuseboard_streams.core.settings import CoreSettings

I64: TypeAlias = NDArray[np.int64]
U64: TypeAlias = NDArray[np.uint64]
Rows: TypeAlias = NDArray[np.int64]

SEVERITIES: Final = tuple(Severity)
_HITS: Final = tuple(field.name for field in fields(RecentHits))
FLAG: Final = "violated"
"""The actors' column that says whether they may have rows here."""


def violators_table(settings: CoreSettings) -> Table:
    """One row per actor and set of severities, once it has had a hit."""
    key = Family("key", (Column("actor", "u8"), Column("mask", "u8")))
    count = Family("count", (Column("actions", "i8"),))
    hits = Family(
        "hits", (Column("trace", "u8", SLOTS), Column("number", "i8", SLOTS), Column("at", "i8", SLOTS))
    )  # fmt: skip
    return Table("violators", (key, count, hits), limit=settings.max_actors, key=("actor", "mask"))


@dataclass(frozen=True, slots=True)
class Hits:
    """n violations in order; every array has shape (n,)."""

    position: NDArray[np.intp]
    """In the run of events that they come from."""
    actor: Rows
    trace: U64
    """A hash of the trace."""
    severity: NDArray[np.uint8]
    """A number in `SEVERITIES`."""
    ts: I64
    stream: I64


def mask_of(severities: frozenset[Severity]) -> int:
    """A set of severities as bits; none stands for all."""
    return sum(1 << i for i, each in enumerate(SEVERITIES) if not severities or each in severities)


class Violations:
    """Follows who was denied what, for the rules on ``policy.denied``."""

    def __init__(self, table: Table, actors: Table, book: Rulebook, refer: Callable[[Rows, int], None]) -> None:
        self._table = table
        self._actors = actors
        self._refer = refer
        self._views = book.asking(DistinctTest, Scope.ACTOR)
        self._masks = tuple(sorted({mask_of(_test(view, number).severities) for view, number in self._tests()}))
        self.wanted = bool(self._views)
        """Whether any rule asks."""

    def _tests(self) -> list[tuple[RuleView, int]]:
        return [(view, number) for view in self._views for number in range(len(view.variants))]

    def fold(self, hits: Hits, actions: Rows) -> list[Firing]:
        """Take in the violations of a run, and then count its actions.

        Args:
            hits: the violations; those of a call come as its own action, those of decisions before the actor's next.
            actions: the actors of the run's actions, in order; where a hit is one of them, ``hits.position`` is its
                place in ``actions``. Empty for a run of decisions.
        """
        found: list[Firing] = []
        if len(hits.actor):
            for mask in self._masks:
                chosen = places((mask >> hits.severity.astype(np.int64)) & 1 == 1)
                if len(chosen):
                    found += self._fold_mask(hits, chosen, mask, actions)
        self._count(actions)
        return found

    def _fold_mask(self, hits: Hits, chosen: NDArray[np.intp], mask: int, actions: Rows) -> list[Firing]:
        actor = hits.actor[chosen]
        rows = self._rows(actor, mask)
        number = self._table["actions"][rows] + 1 + _before(actions, actor, hits.position[chosen])
        order = np.argsort(rows, kind="stable")
        first = run_starts(rows[order])
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order)) - np.repeat(first, np.diff(np.append(first, len(order))))
        found: list[Firing] = []
        for turn in range(int(rank.max()) + 1):
            now = places(rank == turn)
            state = self._load(rows[now])
            at = chosen[now]
            hit(state, hits.trace[at], number[now], hits.ts[at])
            self._save(rows[now], state)
            for view in self._views:
                found += self._reached(view, mask, hits, at, state, number[now])
        return found

    def _reached(
        self, view: RuleView, mask: int, hits: Hits, at: NDArray[np.intp], state: RecentHits, number: I64
    ) -> list[Firing]:
        found = []
        for variant in range(len(view.variants)):
            test = _test(view, variant)
            if mask_of(test.severities) != mask:
                continue
            count = distinct(state, number, hits.ts[at], actions=test.of_last, max_age_us=test.within_us)
            for i in places(count >= test.traces).tolist():
                where = int(at[i])
                if self._variant(view, int(hits.actor[where])) == variant:
                    found.append(self._fired(view, variant, hits, where, int(count[i])))
        return found

    def _fired(self, view: RuleView, variant: int, hits: Hits, at: int, traces: int) -> Firing:
        test = _test(view, variant)
        severity = SEVERITIES[int(hits.severity[at])].value.lower()
        reason = (
            f"denied by policy in {traces} distinct trace{'s' if traces > 1 else ''} among its last {test.of_last} "
            f"actions, now with severity {severity}"
        )
        row = int(hits.actor[at])
        tenant, actor = str(self._actors["tenant"][row]), str(self._actors["actor"][row])
        position, now = int(hits.position[at]), int(hits.stream[at])
        facts = Facts(reason, value=float(traces))
        return Firing(position, now, view, variant, Target(Scope.ACTOR, tenant, actor), facts, decided=position)

    def _count(self, actions: Rows) -> None:
        """Count the actions of actors that have had a hit."""
        if self._table.size == 0 or len(actions) == 0:
            return
        some = actions[self._actors[FLAG][actions] > 0]
        if len(some) == 0:
            return
        unique, counts = np.unique(some, return_counts=True)
        for mask in self._masks:
            rows = self._table.find(unique.astype(np.uint64), np.full(len(unique), mask, dtype=np.uint64))
            having = places(rows >= 0)
            self._table.touch("count", rows[having])
            self._table["actions"][rows[having]] += counts[having]

    # --- rows

    def _rows(self, actor: Rows, mask: int) -> Rows:
        table = self._table
        keys = actor.astype(np.uint64)
        rows = table.find(keys, np.full(len(keys), mask, dtype=np.uint64)).astype(np.int64)
        new = np.unique(keys[rows < 0])
        if len(new):
            table.add(new, np.full(len(new), mask, dtype=np.uint64))
            owners = new.astype(np.int64)
            self._actors.touch("slots", owners)
            self._actors[FLAG][owners] = 1
            self._refer(owners, 1)
            rows = table.find(keys, np.full(len(keys), mask, dtype=np.uint64)).astype(np.int64)
        return rows

    def _load(self, rows: Rows) -> RecentHits:
        return RecentHits(*(self._table[name][rows] for name in _HITS))

    def _save(self, rows: Rows, state: RecentHits) -> None:
        self._table.touch("hits", rows)
        for name in _HITS:
            self._table[name][rows] = getattr(state, name)

    def _variant(self, view: RuleView, actor: int) -> int:
        if view.plain:
            return 0
        return view.number(str(self._actors["tenant"][actor]), str(self._actors["actor"][actor]))


def _test(view: RuleView, number: int) -> DistinctTest:
    return view.test(number, DistinctTest)


def _before(actions: Rows, actor: Rows, position: NDArray[np.intp]) -> I64:
    """How many of an actor's actions of this run precede a place in it."""
    if len(actions) == 0:
        return np.zeros(len(actor), dtype=np.int64)
    order = np.argsort(actions, kind="stable")
    by_actor = actions[order]
    # Actors by row, then by place: a place's rank among its actor's is a difference of two searches.
    span = np.int64(len(actions) + 1)
    ranked = by_actor * span + order
    found: I64 = np.searchsorted(ranked, actor * span + position) - np.searchsorted(by_actor, actor)
    return found
