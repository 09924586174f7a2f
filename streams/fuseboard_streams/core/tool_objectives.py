"""Success of tools over all actors of a tenant: what their owner counts, second by second.

An actor's calls come to one shard, a tool's to many. All shards tell a tool's owner how many calls of it there were in
a second, and how many of them ended well. A second waits here until it is complete, and then it counts. States are
asked for at whole minutes before which everything is complete: that is the time here, and not the owner's own stream
time. What comes later counts in its own second, from the next minute on.

As in `Measured` the sums of the cell under way are kept apart from the rings. Plain data comes out and goes back in,
for the owner's state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fuseboard_detectors import objectives
from fuseboard_detectors.objectives import WINDOW_CELLS, ObjectiveCounts, ObjectiveParams, ObjectiveState
from fuseboard_schemas.keys import Target
from fuseboard_schemas.records import Scope
from fuseboard_streams.core.agenda import whole_minute
from fuseboard_streams.core.firing import Firing
from fuseboard_streams.core.measured import SAY_AGAIN_US
from fuseboard_streams.core.objective_words import Finding, level_of, words_of
from fuseboard_streams.core.ruleset import SUCCESS, ObjectiveTest
from fuseboard_streams.core.settings import SECOND
from fuseboard_streams.core.variants import state_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fuseboard_streams.core.rulebook import Rulebook, RuleView

Key: TypeAlias = tuple[str, str, str]
"""Objective, tenant and tool."""
_UNKNOWN = ObjectiveState.UNKNOWN
_ONE = np.array([0])


@dataclass(slots=True)
class _Count:
    basis: str
    """What it was counted under: with rules of another one it begins anew."""
    cell: int
    """The newest one, whose sums are not in the rings yet."""
    bad: int = 0
    total: int = 0
    said: int = 0
    said_at: int = 0
    due: int | None = None
    rings: ObjectiveCounts = field(default_factory=lambda: ObjectiveCounts.fresh(1))


class ToolObjectives:
    """The objectives on ``calls.ok`` per ``TOOL`` of the tools that a shard owns.

    Args:
        book: The rules in force.
    """

    def __init__(self, book: Rulebook) -> None:
        self._counts: dict[Key, _Count] = {}
        self._agenda: dict[int, set[Key]] = {}
        """Which may be due at which whole minute, microseconds."""
        self._waiting: dict[int, dict[tuple[str, str], tuple[int, int]]] = {}
        """By second, tenant and tool: calls and bad ones."""
        self.changed: set[Key] = set()
        """Those whose state differs from what was saved last; one of which nothing is left is forgotten."""
        self.rolled: set[Key] = set()
        """Likewise those whose rings differ."""
        self.touched: set[int] = set()
        """Seconds that wait, or do no longer, other than what was saved last."""
        self.adopt(book)

    # --- rules

    def adopt(self, book: Rulebook) -> None:
        """Follow other rules from now on; call `rules_changed` too where that happens in a transaction."""
        self._views = {view.rule.rule: view for view in book.measuring(SUCCESS, Scope.TOOL)}
        self._bases = {
            name: [state_id(view.rule, variant.test) for variant in view.variants] for name, view in self._views.items()
        }
        self.wanted = bool(self._views)
        """Whether any objective asks."""

    def rules_changed(self) -> None:
        """Other rules are in force: drop what was counted for an objective that is gone, or is another one now."""
        for key in [key for key, count in self._counts.items() if not self._goes_on(key, count)]:
            self._drop(key)
        if not self.wanted:
            self.touched.update(self._waiting)
            self._waiting.clear()

    def _goes_on(self, key: Key, count: _Count) -> bool:
        view = self._views.get(key[0])
        return view is not None and count.basis == self._test(view, key[1], key[2])[1]

    def _test(self, view: RuleView, tenant: str, tool: str) -> tuple[ObjectiveTest, str]:
        number = view.number(tenant, "", tool)
        return view.test(number, ObjectiveTest), self._bases[view.rule.rule][number]

    # --- seconds

    def take(self, tenant: str, tool: str, second: int, calls: int, bad: int) -> None:
        """Keep what a shard tells of a second until that is complete."""
        waiting = self._waiting.setdefault(second, {})
        before = waiting.get((tenant, tool), (0, 0))
        waiting[tenant, tool] = before[0] + calls, before[1] + bad
        self.touched.add(second)

    def seconds(self, before: int) -> list[int]:
        """The seconds before one that wait, ascending."""
        return sorted(second for second in self._waiting if second < before)

    def step(self, second: int) -> None:
        """Count a second that is complete."""
        waiting = self._waiting.pop(second, None)
        if waiting is not None:
            self.touched.add(second)
            for (tenant, tool), (calls, bad) in sorted(waiting.items()):
                self.fold(tenant, tool, second, calls, bad)

    def fold(self, tenant: str, tool: str, second: int, calls: int, bad: int, complete: int = 0) -> None:
        """Count calls of a second since 1970.

        Args:
            tenant: The tool's tenant.
            tool: Its name.
            second: When they ended.
            calls: That ended with OK, ERROR or TIMEOUT.
            bad: Those among them that did not end with OK.
            complete: The second before which everything has been counted, and asked about.
        """
        for name, view in self._views.items():
            test, basis = self._test(view, tenant, tool)
            key, width = (name, tenant, tool), test.window_us // WINDOW_CELLS
            cell = second * SECOND // width
            count = self._counts.get(key)
            if count is None or count.basis != basis:
                count = self._counts[key] = _Count(basis, cell)
                self.rolled.add(key)
            if cell < count.cell:
                self._add(key, count, cell, width, (bad, calls))
            else:
                if cell > count.cell:
                    self._add(key, count, count.cell, width, (count.bad, count.total))
                    count.cell, count.bad, count.total = cell, 0, 0
                count.bad += bad
                count.total += calls
            self._ask(key, count, whole_minute(max(second, complete) * SECOND + 1))
            self.changed.add(key)

    def _add(self, key: Key, count: _Count, cell: int, width: int, sums: tuple[int, int]) -> None:
        """Put sums of a cell into the rings; nothing happens if it is older than all of them."""
        if sums == (0, 0):
            return
        self.rolled.add(key)
        params = _params(width)
        objectives.roll(count.rings, cell * width, params)
        at, bad, total = (np.array([each], dtype=np.int64) for each in (cell * width, *sums))
        objectives.count(count.rings, _ONE, at, bad, total, params)

    def _ask(self, key: Key, count: _Count, minute: int) -> None:
        if count.due is None or minute < count.due:
            count.due = minute
            self._agenda.setdefault(minute, set()).add(key)

    # --- ticks

    @property
    def next_tick(self) -> int | None:
        """The whole minute at which a state may have to be asked for, microseconds; None if none has."""
        return min(self._agenda, default=None)

    def advance(self, to_us: int) -> list[Firing]:
        """Run the ticks at or before a time before which all seconds are complete: what is to be said, in order."""
        found: list[Firing] = []
        while (tick := self.next_tick) is not None and tick <= to_us:
            groups: dict[tuple[str, int], list[Key]] = {}
            for key in sorted(self._agenda.pop(tick)):
                count = self._counts.get(key)
                # Others were asked about sooner, or are gone.
                if count is None or count.due != tick:
                    continue
                if self._goes_on(key, count):
                    groups.setdefault((key[0], self._views[key[0]].number(key[1], "", key[2])), []).append(key)
                else:
                    self._drop(key)
            said = [each for group, keys in groups.items() for each in self._judge(*group, keys, tick)]
            found += sorted(said, key=lambda each: each.order)
        return found

    def _judge(self, name: str, number: int, keys: list[Key], now_us: int) -> list[Firing]:
        """What is to be said of some tools that have one variant of an objective."""
        view = self._views[name]
        test = view.test(number, ObjectiveTest)
        width = test.window_us // WINDOW_CELLS
        params = _params(width, test.shares[0], test.minimum)
        counts = [self._counts[key] for key in keys]
        rings = self._rings_at(counts, now_us, params)
        found = objectives.states(rings, params, error=test.error)
        bad, total = objectives.window(rings, params)
        before = np.array([each.said for each in counts], dtype=np.int8)
        # What was said holds until the opposite is found, as in `Measured`.
        state = np.where(found != _UNKNOWN, found, np.where(total >= test.minimum, before, _UNKNOWN)).astype(np.int8)
        again = (state != _UNKNOWN) & (now_us - np.array([each.said_at for each in counts]) >= SAY_AGAIN_US)
        at = np.flatnonzero((state != before) | again)
        left = (state != _UNKNOWN) | (rings.total.sum(axis=1) > 0)
        for i, (key, count) in enumerate(zip(keys, counts, strict=True)):
            self.changed.add(key)
            count.due = None
            if left[i]:
                self._ask(key, count, whole_minute((now_us // width + 1) * width))
            else:
                self._drop(key)
        for i in at.tolist():
            counts[i].said, counts[i].said_at = int(state[i]), now_us
        if len(at) == 0:
            return []
        words = words_of(Finding(test, SUCCESS, state[at], [found[at]], [bad[at]], total[at]))
        return [
            Firing(
                0, now_us, view, number, Target(Scope.TOOL, keys[i][1], None, keys[i][2]), facts,
                level=level_of(ObjectiveState(int(state[i]))),
            )
            for i, facts in zip(at.tolist(), words, strict=True)
        ]  # fmt: skip

    @staticmethod
    def _rings_at(counts: list[_Count], now_us: int, params: ObjectiveParams) -> ObjectiveCounts:
        """The rings of some tools at a time, with what has not been put into them yet."""
        rings = [each.rings for each in counts]
        found = ObjectiveCounts(
            np.concatenate([each.bad for each in rings]),
            np.concatenate([each.total for each in rings]),
            np.concatenate([each.newest for each in rings]),
        )
        begun = np.array([each.cell for each in counts], dtype=np.int64) * params.width_us
        objectives.roll(found, np.maximum(begun, now_us), params)
        bad, total = (np.array(each, dtype=np.int64) for each in zip(*((c.bad, c.total) for c in counts), strict=True))
        objectives.count(found, np.arange(len(counts)), begun, bad, total, params)
        return found

    def _drop(self, key: Key) -> None:
        del self._counts[key]
        self.changed.add(key)
        self.rolled.add(key)

    # --- state

    def saved(self, key: Key) -> dict[str, Any] | None:
        """Everything about one objective of one tool but its rings, as JSON holds it; None if it is forgotten."""
        count = self._counts.get(key)
        if count is None:
            return None
        return {
            "basis": count.basis, "cell": count.cell, "bad": count.bad, "total": count.total, "said": count.said,
            "said_at": count.said_at, "due": count.due,
        }  # fmt: skip

    def saved_rings(self, key: Key) -> dict[str, Any] | None:
        """Its rings; None if there is nothing in them."""
        count = self._counts.get(key)
        if count is None or not int(count.rings.newest[0]):
            return None
        rings = count.rings
        return {"bad": rings.bad[0].tolist(), "total": rings.total[0].tolist(), "newest": int(rings.newest[0])}

    def saved_second(self, second: int) -> list[Any] | None:
        """What waits for a second to be complete; None if nothing does."""
        waiting = self._waiting.get(second)
        return None if waiting is None else [[*name, *sums] for name, sums in sorted(waiting.items())]

    def restore(
        self,
        saved: Iterable[tuple[Key, dict[str, Any]]],
        rings: dict[Key, dict[str, Any]],
        seconds: dict[int, list[Any]],
    ) -> None:
        """Put back what was saved, and nothing else; what other rules than those in force left is dropped with them."""
        self._counts = {key: _Count(**each) for key, each in saved}
        self._agenda = {}
        for key, count in self._counts.items():
            if count.due is not None:
                self._agenda.setdefault(count.due, set()).add(key)
            if (kept := rings.get(key)) is not None:
                count.rings = ObjectiveCounts(
                    np.array([kept["bad"]], dtype=np.int64),
                    np.array([kept["total"]], dtype=np.int64),
                    np.array([kept["newest"]], dtype=np.int64),
                )
        self._waiting = {
            second: {(tenant, tool): (calls, bad) for tenant, tool, calls, bad in several}
            for second, several in seconds.items()
        }
        self.kept()

    def kept(self) -> None:
        """What has changed has been saved for good."""
        self.changed.clear()
        self.rolled.clear()
        self.touched.clear()


def _params(width_us: int, limit: tuple[int, int] = (1, 2), minimum: int = 1) -> ObjectiveParams:
    return ObjectiveParams(limit, width_us * WINDOW_CELLS, minimum)
