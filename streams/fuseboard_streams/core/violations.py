"""Policy violations: in how many distinct traces an actor was denied something among its last actions.

An action is a call of a tool, refusals by a breaker and probes excepted. It is a violation if a policy decision in
effect denied it, or if the call itself says that a policy did; several decisions about one trace count once.

Every rule counts for itself: which denials count, how old they may be, and since when it counts, is its own. Rules that
differ in nothing but their levels for some actors share a row per actor.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors.recent import SLOTS, RecentHits, distinct, hit
from fuseboard_detectors.segments import different, stable_order
from fuseboard_schemas.keys import Target
from fuseboard_schemas.records import Scope, Severity
from fuseboard_streams.core.firing import Facts, Firing
from fuseboard_streams.core.per_actor import NONE, PerActor, going_on
from fuseboard_streams.core.ruleset import DistinctTest
from fuseboard_streams.core.runs import places, run_starts
from fuseboard_streams.core.tables import Column, Family, Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_streams.core.rulebook import Rulebook
    from fuseboard_streams.core.settings import CoreSettings

I64: TypeAlias = NDArray[np.int64]
U64: TypeAlias = NDArray[np.uint64]
Rows: TypeAlias = NDArray[np.int64]

SEVERITIES: Final = tuple(Severity)
_HITS: Final = tuple(field.name for field in fields(RecentHits))
FLAG: Final = "violated"
"""The actors' column that says whether they may have rows here."""


def violators_table(settings: CoreSettings) -> Table:
    """One row per actor and rule (`RuleView.bases`), once the actor has had a hit that counts for it.

    ``keep_us``: for how long after its newest hit a row is of any use, by stream time.
    """
    key = Family("key", (Column("actor", "u8"), Column("basis", "u8")))
    kept = Family("kept", (Column("keep_us", "i8"),))
    count = Family("count", (Column("actions", "i8"),))
    hits = Family(
        "hits", (Column("trace", "u8", SLOTS), Column("number", "i8", SLOTS), Column("at", "i8", SLOTS))
    )  # fmt: skip
    return Table("violators", (key, kept, count, hits), limit=settings.max_actors, key=("actor", "basis"))


def faded(table: Table, rows: NDArray[np.integer], now_us: int | I64) -> NDArray[np.bool_]:
    """Which rows begin anew with their next hit. Whether one is still there never shows."""
    found: NDArray[np.bool_] = now_us - table["at"][rows].max(axis=1) > table["keep_us"][rows]
    return found


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


@dataclass(frozen=True, slots=True)
class _Counted:
    """m hits that count, each for one rule, in order; a hit that counts for several is there for each. Shape (m,)."""

    hit: NDArray[np.intp]
    """Its place among the hits."""
    rule: NDArray[np.intp]
    variant: I64
    row: Rows
    number: I64
    """Of the actor's action, as the row counts them."""

    def part(self, at: NDArray[np.intp]) -> _Counted:
        return _Counted(self.hit[at], self.rule[at], self.variant[at], self.row[at], self.number[at])


class Violations:
    """Follows who was denied what, for the rules on ``policy.denied``."""

    def __init__(
        self, table: Table, actors: Table, book: Rulebook, settings: CoreSettings, refer: Callable[[Rows, int], None]
    ) -> None:
        self._table = table
        self._actors = actors
        self._refer = refer
        # Hits of a topic that lags behind stream time are as old as they are, not as they come.
        self._lag_us = settings.forget_after_us
        self._rules = tuple(PerActor(actors, view) for view in book.asking(DistinctTest, Scope.ACTOR))
        self._tests = tuple(
            tuple(rule.view.test(number, DistinctTest) for number in range(len(rule.view.variants)))
            for rule in self._rules
        )
        self._bases = tuple(sorted({basis for rule in self._rules for basis in rule.view.bases}))
        self._within = {
            basis: test.within_us
            for rule, tests in zip(self._rules, self._tests, strict=True)
            for basis, test in zip(rule.view.bases, tests, strict=True)
        }
        self.wanted = bool(self._rules)
        """Whether any rule asks."""
        self.untracked = 0
        """Hits of actors beyond the limit, which are not followed; once for each rule."""

    def fold(self, hits: Hits, actions: Rows) -> list[Firing]:
        """Take in the violations of a run, and then count its actions.

        Args:
            hits: the violations; those of a call come as its own action, those of decisions before the actor's next.
            actions: the actors of the run's actions, in order; where a hit is one of them, ``hits.position`` is its
                place in ``actions``. Empty for a run of decisions.
        """
        found = self._fold(hits, actions) if len(hits.actor) else []
        self._count(actions)
        return found

    def _fold(self, hits: Hits, actions: Rows) -> list[Firing]:
        counted = self._counted(hits, actions)
        if len(counted.row) == 0:
            return []
        order = stable_order(counted.row)
        first = run_starts(counted.row[order])
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order)) - np.repeat(first, np.diff(np.append(first, len(order))))
        found: list[Firing] = []
        for turn in range(int(rank.max()) + 1):
            now = counted.part(places(rank == turn))
            state = self._load(now.row)
            old = faded(self._table, now.row, hits.stream[now.hit])
            for name in _HITS:
                getattr(state, name)[old] = 0
            hit(state, hits.trace[now.hit], now.number, hits.ts[now.hit])
            self._save(now.row, state)
            for i, rule in enumerate(self._rules):
                mine = places(now.rule == i)
                if len(mine):
                    part = RecentHits(*(getattr(state, name)[mine] for name in _HITS))
                    found += self._reached(rule, self._tests[i], hits, now.part(mine), part)
        return found

    def _counted(self, hits: Hits, actions: Rows) -> _Counted:
        """Which hits count for which rules; rows are made where they are missing and there is room."""
        at, rule, variant = [], [], []
        for i, each in enumerate(self._rules):
            number = each.numbers(hits.actor)
            masks = np.array([*(mask_of(test.severities) for test in self._tests[i]), 0])
            chosen = places((masks[number] >> hits.severity.astype(np.int64)) & 1 == 1)
            at.append(chosen)
            rule.append(np.full(len(chosen), i, dtype=np.intp))
            variant.append(number[chosen])
        where, rules, variants = np.concatenate(at), np.concatenate(rule), np.concatenate(variant)
        # In the order of the hits: where room is short, it must not matter how they were cut.
        order = stable_order(where)
        where, rules, variants = where[order], rules[order], variants[order]
        basis = np.zeros(len(where), dtype=np.uint64)
        for i, each in enumerate(self._rules):
            basis[rules == i] = each.bases(variants[rules == i])
        rows = self._rows(hits.actor[where], basis)
        known = places(rows >= 0)
        self.untracked += len(rows) - len(known)
        where, rows = where[known], rows[known]
        number = self._table["actions"][rows] + 1 + _before(actions, hits.actor[where], hits.position[where])
        return _Counted(where, rules[known], variants[known], rows, number)

    def _reached(
        self, rule: PerActor, tests: tuple[DistinctTest, ...], hits: Hits, now: _Counted, state: RecentHits
    ) -> list[Firing]:
        found = []
        for variant in different(now.variant).tolist():
            test = tests[variant]
            mine = places(now.variant == variant)
            some = RecentHits(*(getattr(state, name)[mine] for name in _HITS))
            at = now.hit[mine]
            count = distinct(some, now.number[mine], hits.ts[at], actions=test.of_last, max_age_us=test.within_us)
            enough = places(count >= test.traces).tolist()
            found += [self._fired(rule, variant, hits, int(at[i]), int(count[i])) for i in enough]
        return found

    def _fired(self, rule: PerActor, variant: int, hits: Hits, at: int, traces: int) -> Firing:
        of_last = rule.view.test(variant, DistinctTest).of_last
        severity = SEVERITIES[int(hits.severity[at])].value.lower()
        reason = (
            f"denied by policy in {traces} distinct trace{'s' if traces > 1 else ''} among its last {of_last} "
            f"actions, now with severity {severity}"
        )
        position, now = int(hits.position[at]), int(hits.stream[at])
        target = Target(Scope.ACTOR, *rule.names(int(hits.actor[at])))
        return Firing(position, now, rule.view, variant, target, Facts(reason, value=float(traces)), decided=position)

    def _count(self, actions: Rows) -> None:
        """Count the actions of actors that have had a hit."""
        if self._table.size == 0 or len(actions) == 0:
            return
        some = actions[self._actors[FLAG][actions] > 0]
        if len(some) == 0:
            return
        unique, counts = np.unique(some, return_counts=True)
        for basis in self._bases:
            rows = self._table.find(unique.astype(np.uint64), np.full(len(unique), basis, dtype=np.uint64))
            having = places(rows >= 0)
            self._table.touch("count", rows[having])
            self._table["actions"][rows[having]] += counts[having]

    # --- what is forgotten

    def forget_unasked(self) -> None:
        """Drop what no rule in force goes on with."""
        rows = places(self._table.live)
        actor = self._table["actor"][rows].astype(np.int64)
        self._free(rows[~going_on(self._rules, actor, self._table["basis"][rows])])

    def forget(self, rule: str, actor: int) -> None:
        """Begin anew with one actor, for one rule: a person let go of it."""
        for each in self._rules:
            number = each.numbers(np.array([actor]))
            if each.view.rule.rule == rule and number[0] != NONE:
                row = self._table.find(np.array([actor], dtype=np.uint64), each.bases(number)).astype(np.int64)
                self._free(row[row >= 0])

    def _free(self, rows: Rows | NDArray[np.intp]) -> None:
        if len(rows):
            self._refer(self._table["actor"][rows].astype(np.int64), -1)
            self._table.free(rows)

    # --- rows

    def _rows(self, actor: Rows, basis: U64) -> Rows:
        """The rows of these actors and rules, made where they are missing; -1 where there is no room."""
        table, keys = self._table, actor.astype(np.uint64)
        rows = table.find(keys, basis).astype(np.int64)
        missing = places(rows < 0)
        if len(missing):
            rows[missing], first = table.add_missing(keys[missing], basis[missing])
            new = missing[first]
            table.touch("kept", rows[new])
            table["keep_us"][rows[new]] = [self._within[each] + self._lag_us for each in basis[new].tolist()]
            self._actors.touch("slots", actor[new])
            self._actors[FLAG][actor[new]] = 1
            self._refer(actor[new], 1)
        return rows

    def _load(self, rows: Rows) -> RecentHits:
        return RecentHits(*(self._table[name][rows] for name in _HITS))

    def _save(self, rows: Rows, state: RecentHits) -> None:
        self._table.touch("hits", rows)
        for name in _HITS:
            self._table[name][rows] = getattr(state, name)


def _before(actions: Rows, actor: Rows, position: NDArray[np.intp]) -> I64:
    """How many of an actor's actions of this run precede a place in it."""
    if len(actions) == 0:
        return np.zeros(len(actor), dtype=np.int64)
    order = stable_order(actions)
    by_actor = actions[order]
    # Actors by row, then by place: a place's rank among its actor's is a difference of two searches.
    span = np.int64(len(actions) + 1)
    ranked = by_actor * span + order
    found: I64 = np.searchsorted(ranked, actor * span + position) - np.searchsorted(by_actor, actor)
    return found
