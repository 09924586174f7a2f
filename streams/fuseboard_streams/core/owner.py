"""The owner of tools: one statistic for each, over all actors of its tenant, fed with the panes of every shard."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fuseboard_detectors.arithmetic import log10
from fuseboard_detectors.breadth import ENOUGH, broad
from fuseboard_detectors.failure import mean_r
from fuseboard_detectors.pooled import PooledState, count_pane, restart
from fuseboard_streams.core.nearing import Nearing
from fuseboard_streams.core.panes import BREADTH_S
from fuseboard_streams.core.rulebook import NONE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fuseboard_schemas.records import Pane
    from fuseboard_streams.core.rulebook import FailureLevel

ToolKey: TypeAlias = tuple[str, str]
"""Tenant and tool."""
_COLUMNS = tuple(each.name for each in fields(PooledState))


@dataclass(slots=True)
class Owned:
    """One tool, beside the columns of its statistic."""

    row: int
    number: int
    """Of its rule's settings."""
    basis: int = 0
    """What its evidence was made under: with rules of another basis it begins anew."""
    frozen_by: str | None = None
    """The rule because of which its breaker holds: nothing is counted then."""
    warned: bool = False
    """Whether it has been said that its evidence is at warn level."""
    told: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By shard: the second of its last pane, and how many actors called lately then."""
    failing: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By the hash of an actor: how often it failed for it since the onset, up to `ENOUGH`, and in which second last;
    those of longest ago first."""

    def fail(self, actors: list[int], second: int) -> None:
        """It failed for these actors."""
        for actor in sorted(actors):
            times, _ = self.failing.pop(actor, (0, 0))
            self.failing[actor] = min(times + 1, ENOUGH), second
        while self.failing and next(iter(self.failing.values()))[1] < second - BREADTH_S:
            del self.failing[next(iter(self.failing))]


@dataclass(slots=True)
class ToolSum:
    """What all shards say about one tool and second."""

    calls: int = 0
    failures: int = 0
    told: dict[str, int] = field(default_factory=dict)
    """By shard: how many actors called lately at its end."""
    failing: list[int] = field(default_factory=list)
    """Hashes of the actors for which it failed, twice where it failed more than once."""


@dataclass(frozen=True, slots=True)
class Found:
    """A tool whose evidence reached a level, and which fails for enough actors."""

    tool: ToolKey
    number: int
    tripped: bool
    mean: float
    p0: float
    calls: int
    failures: int
    since: int
    """Second of the estimated onset."""
    suspects: int
    callers: int


class Owner:
    """The statistics of the tools whose home is this shard.

    Args:
        level: The rule of scope TOOL about failures.
        forget_after_s: A tool that nobody has called for longer begins anew.
    """

    def __init__(self, level: FailureLevel, forget_after_s: int) -> None:
        self._level = level
        self._forget_after_s = forget_after_s
        self.tools: dict[ToolKey, Owned] = {}
        self.changed: set[ToolKey] = set()
        """Those whose state differs from what was saved last; one that is not in `tools` is forgotten."""
        self.touched: set[int] = set()
        """Seconds whose sums differ from what was saved last."""
        self._swept = 0
        self._state = PooledState.fresh(0, level.params(0))
        self._waiting: dict[int, dict[ToolKey, ToolSum]] = {}

    # --- rules

    def rules_changed(self) -> None:
        """Other rules are in force: evidence that they cannot go on with begins anew, and what they do not follow goes.

        A tool whose breaker holds stays until it is free.
        """
        for name, owned in sorted(self.tools.items()):
            owned.number = self._level.number(name[0], "", name[1])
            basis = self._level.basis(owned.number)
            if owned.basis != basis:
                owned.basis, owned.warned = basis, False
                owned.failing.clear()
                fresh = PooledState.fresh(1, self._level.params(owned.number))
                for column in _COLUMNS:
                    getattr(self._state, column)[owned.row] = getattr(fresh, column)[0]
                self.changed.add(name)
        self._drop([name for name, owned in self.tools.items() if owned.number == NONE and owned.frozen_by is None])

    # --- panes

    def take(self, pane: Pane, second: int) -> None:
        """Keep the sums of a second until it is complete."""
        self.touched.add(second)
        waiting = self._waiting.setdefault(second, {}).setdefault((pane.tenant, pane.tool or ""), ToolSum())
        waiting.calls += pane.calls
        waiting.failures += pane.failures
        waiting.told[str(pane.source_shard)] = pane.actors
        waiting.failing += pane.actors_failing

    def seconds(self, before: int) -> list[int]:
        """The seconds before one that wait, ascending."""
        return sorted(second for second in self._waiting if second < before)

    def step(self, second: int) -> list[Found]:
        """Fold a second that is complete: one step for every tool that was called. What is found is by name."""
        sums = self._waiting.pop(second, {})
        self.touched.add(second)
        names = sorted(name for name in sums if self._level.number(name[0], "", name[1]) != NONE)
        # At its next call a tool forgets by its own last one: that it may be gone already never shows.
        self._forget(second, names)
        if second - self._swept > self._forget_after_s // 2:
            self._swept = second
            self._forget(second, list(self.tools))
        for name in names:
            owned = self._owned(name)
            owned.told.update({shard: (second, callers) for shard, callers in sums[name].told.items()})
            self.changed.add(name)
        found: list[Found] = []
        by_number: dict[int, list[ToolKey]] = {}
        for name in names:
            if sums[name].calls and self.tools[name].frozen_by is None:
                by_number.setdefault(self.tools[name].number, []).append(name)
        for number, several in sorted(by_number.items()):
            found += self._count(second, number, several, sums)
        return sorted(found, key=lambda each: each.tool)

    def _count(self, second: int, number: int, names: list[ToolKey], sums: dict[ToolKey, ToolSum]) -> list[Found]:
        params = self._level.params(number)
        rows = np.array([self.tools[name].row for name in names])
        part = PooledState(*(getattr(self._state, column)[rows] for column in _COLUMNS))
        failures = np.array([sums[name].failures for name in names], dtype=np.int64)
        successes = np.array([sums[name].calls for name in names], dtype=np.int64) - failures
        step = count_pane(part, successes, failures, np.full(len(names), second, dtype=np.int64), params)
        for column in _COLUMNS:
            getattr(self._state, column)[rows] = getattr(part, column)
        found = []
        for i, name in enumerate(names):
            owned, mean = self.tools[name], float(step.mean[i])
            if failures[i]:
                if part.run_since[i] == second:
                    owned.failing.clear()
                owned.fail(sums[name].failing, second)
            if mean < params.warn:
                owned.warned = False
                continue
            suspects, callers = self._actors(owned, second)
            if not self._broad(suspects, callers) or (owned.warned and not step.tripped[i]):
                continue
            owned.warned = True
            found.append(
                Found(
                    name, number, bool(step.tripped[i]), mean, float(part.p0[i]), int(part.run_calls[i]),
                    int(part.run_failures[i]), int(part.run_since[i]), suspects, callers,
                )
            )  # fmt: skip
        return found

    def _broad(self, suspects: int, callers: int) -> bool:
        breadth = self._level.breadth
        return bool(broad(np.array([suspects]), np.array([callers]), actors=breadth.actors, share=breadth.share)[0])

    @staticmethod
    def _actors(owned: Owned, second: int) -> tuple[int, int]:
        """For how many actors it fails, and how many call it."""
        suspects = sum(times >= ENOUGH and at >= second - BREADTH_S for times, at in owned.failing.values())
        callers = sum(callers for at, callers in owned.told.values() if at >= second - BREADTH_S)
        return suspects, callers

    def nearing(self, most: int) -> list[Nearing]:
        """The tools that are nearest to a trip, those at rest and those that have tripped left out."""
        free = [name for name, each in self.tools.items() if each.frozen_by is None and each.number != NONE]
        rows = np.array([self.tools[name].row for name in free], dtype=np.int64)
        mean = mean_r(self._state.r[rows])
        found = []
        for i in np.flatnonzero(mean > 1.0 / self._state.p0[rows]).tolist():
            tenant, tool = free[i]
            trip = self._level.params(self.tools[free[i]].number).trip
            evidence, level = (round(float(each), 6) for each in log10(np.array([mean[i], trip])))
            counts = int(self._state.run_calls[rows[i]]), int(self._state.run_failures[rows[i]])
            found.append(Nearing(tenant, None, tool, evidence, level, *counts))
        return sorted(found, key=lambda each: each.order)[:most]

    # --- breakers

    def restart(self, tool: ToolKey) -> None:
        """Begin a tool's evidence anew; what its null has learned stays."""
        rows = np.zeros(len(self._state.p0), dtype=np.bool_)
        rows[self.tools[tool].row] = True
        restart(self._state, rows)
        self.tools[tool].warned = False
        self.tools[tool].failing.clear()
        self.changed.add(tool)

    def frozen_by(self, tool: ToolKey) -> str | None:
        """The rule because of which a tool's breaker holds, None if it does not."""
        owned = self.tools.get(tool)
        return None if owned is None else owned.frozen_by

    def freeze(self, tool: ToolKey, rule: str | None) -> None:
        """A tool's own breaker holds because of a rule; None: it does no longer."""
        self._owned(tool).frozen_by = rule
        self.restart(tool)

    def callers(self, tenant: str) -> int:
        """How many actors call the most called of a tenant's tools whose breaker holds."""
        open_ones = [owned for (name, _), owned in self.tools.items() if name == tenant and owned.frozen_by]
        return max((sum(callers for _, callers in each.told.values()) for each in open_ones), default=0)

    def _forget(self, second: int, names: list[ToolKey]) -> None:
        idle = [
            name
            for name in names
            if (owned := self.tools.get(name)) is not None
            and owned.frozen_by is None
            and max((said for said, _ in owned.told.values()), default=second) < second - self._forget_after_s
        ]
        self._drop(idle)

    def _drop(self, names: list[ToolKey]) -> None:
        if not names:
            return
        for name in names:
            del self.tools[name]
            self.changed.add(name)
        rows = np.array([owned.row for owned in self.tools.values()], dtype=np.int64)
        self._state = PooledState(*(getattr(self._state, each)[rows] for each in _COLUMNS))
        for row, owned in enumerate(self.tools.values()):
            owned.row = row

    def _owned(self, tool: ToolKey) -> Owned:
        owned = self.tools.get(tool)
        if owned is None:
            number = self._level.number(tool[0], "", tool[1])
            owned = self.tools[tool] = Owned(len(self.tools), number, self._level.basis(number))
            fresh = PooledState.fresh(1, self._level.params(number))
            self._state = PooledState(
                *(np.concatenate((getattr(self._state, each), getattr(fresh, each))) for each in _COLUMNS)
            )
            self.changed.add(tool)
        return owned

    # --- state

    def saved(self, tool: ToolKey) -> dict[str, Any] | None:
        """Everything about one tool, as JSON holds it; None if it is forgotten."""
        owned = self.tools.get(tool)
        if owned is None:
            return None
        state = {name: getattr(self._state, name)[owned.row].tolist() for name in _COLUMNS}
        return {
            "state": state, "basis": owned.basis, "frozen_by": owned.frozen_by, "warned": owned.warned,
            "told": owned.told, "failing": [[actor, *told] for actor, told in owned.failing.items()],
        }  # fmt: skip

    def saved_sums(self, second: int) -> list[Any] | None:
        """The sums of a second that wait; None if there are none."""
        waiting = self._waiting.get(second)
        if waiting is None:
            return None
        return [[*name, each.calls, each.failures, each.told, each.failing] for name, each in sorted(waiting.items())]

    def restore(self, tools: Iterable[tuple[ToolKey, dict[str, Any]]], sums: dict[int, list[Any]]) -> None:
        """Put back what was saved, and nothing else."""
        self.tools.clear()
        self.changed.clear()
        self._state = PooledState.fresh(0, self._level.params(0))
        for name, saved in tools:
            owned = self._owned(name)
            owned.basis, owned.frozen_by, owned.warned = saved["basis"], saved["frozen_by"], saved["warned"]
            owned.told = {shard: (told[0], told[1]) for shard, told in saved["told"].items()}
            owned.failing = {actor: (times, second) for actor, times, second in saved["failing"]}
            for column, value in saved["state"].items():
                getattr(self._state, column)[owned.row] = value
        self.changed.clear()
        self.touched.clear()
        self._waiting = {
            second: {
                (tenant, tool): ToolSum(calls, failures, dict(told), list(failing))
                for tenant, tool, calls, failures, told, failing in several
            }
            for second, several in sums.items()
        }
