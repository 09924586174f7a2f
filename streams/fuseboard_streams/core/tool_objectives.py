"""Success of tools over all actors of a tenant: what their owner counts, second by second.

An actor's calls come to one shard, a tool's to many. Whoever is told by all shards how many calls of a tool there were
in a second, and how many of them ended well, counts them here, in the order of the seconds. Plain data comes out and
goes back in, for the owner's state.
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
    from fuseboard_streams.core.rulebook import Rulebook, RuleView

Key: TypeAlias = tuple[str, str, str]
"""Objective, tenant and tool."""
_UNKNOWN = ObjectiveState.UNKNOWN


@dataclass(slots=True)
class _Count:
    basis: str
    """What it was counted under: with rules of another one it begins anew."""
    counts: ObjectiveCounts = field(default_factory=lambda: ObjectiveCounts.fresh(1))
    said: int = 0
    said_at: int = 0
    due: int | None = None


class ToolObjectives:
    """The objectives on ``calls.ok`` per ``TOOL`` of the tools that a shard owns.

    Args:
        book: The rules in force.
    """

    def __init__(self, book: Rulebook) -> None:
        self._views = {view.rule.rule: view for view in book.measuring(SUCCESS, Scope.TOOL)}
        self._bases = {
            name: [state_id(view.rule, variant.test) for variant in view.variants] for name, view in self._views.items()
        }
        self.wanted = bool(self._views)
        """Whether any objective asks."""
        self._counts: dict[Key, _Count] = {}
        self.changed: set[Key] = set()
        """Those whose state differs from what was saved last; one of which nothing is left is forgotten."""

    # --- seconds

    def fold(self, tenant: str, tool: str, second: int, calls: int, ok: int) -> None:
        """Count the calls of a second since 1970 that is complete; seconds of a tool never go back."""
        now = second * SECOND
        for name, view in self._views.items():
            test, basis = self._test(view, tenant, tool)
            key = (name, tenant, tool)
            count = self._counts.get(key)
            if count is None or count.basis != basis:
                count = self._counts[key] = _Count(basis)
            params = _params(test)
            objectives.roll(count.counts, now, params)
            at, bad, total = (np.array([each], dtype=np.int64) for each in (now, calls - ok, calls))
            objectives.count(count.counts, np.array([0]), at, bad, total, params)
            due = whole_minute(now + 1)
            count.due = due if count.due is None else min(count.due, due)
            self.changed.add(key)

    # --- ticks

    @property
    def next_tick(self) -> int | None:
        """The whole minute at which a state is to be asked for, microseconds; None if none is."""
        return min((each.due for each in self._counts.values() if each.due is not None), default=None)

    def advance(self, to_us: int) -> list[Firing]:
        """Run the tick at a time, once all seconds before it are complete: what is to be said, by name."""
        found: list[Firing] = []
        for key, count in sorted(self._counts.items()):
            if count.due is not None and count.due <= to_us:
                found += self._judge(key, count, to_us)
                self.changed.add(key)
        return found

    def _judge(self, key: Key, count: _Count, now_us: int) -> list[Firing]:
        view = self._views[key[0]]
        test, basis = self._test(view, key[1], key[2])
        if count.basis != basis:
            del self._counts[key]
            return []
        params = _params(test)
        objectives.roll(count.counts, now_us, params)
        (bad,), (total,) = objectives.window(count.counts, params)
        found = int(objectives.states(count.counts, params, error=test.error)[0])
        # What was said holds until the opposite is found, as in `Measured`.
        state = found if found != _UNKNOWN else count.said if total >= test.minimum else int(_UNKNOWN)
        again = state != _UNKNOWN and now_us - count.said_at >= SAY_AGAIN_US
        said = (
            [self._said(view, key, found, state, int(bad), int(total), now_us)] if state != count.said or again else []
        )
        if said:
            count.said, count.said_at = state, now_us
        width = params.width_us
        if state != _UNKNOWN or int(count.counts.total.sum()) > 0:
            count.due = whole_minute((now_us // width + 1) * width)
        else:
            del self._counts[key]
        return said

    def _said(self, view: RuleView, key: Key, found: int, state: int, bad: int, total: int, now_us: int) -> Firing:
        number = view.number(key[1], "", key[2])
        finding = Finding(
            view.test(number, ObjectiveTest),
            SUCCESS,
            np.array([state], dtype=np.int8),
            [np.array([found], dtype=np.int8)],
            [np.array([bad], dtype=np.int64)],
            np.array([total], dtype=np.int64),
        )
        target = Target(Scope.TOOL, key[1], None, key[2])
        return Firing(0, now_us, view, number, target, words_of(finding)[0], level=level_of(ObjectiveState(state)))

    def _test(self, view: RuleView, tenant: str, tool: str) -> tuple[ObjectiveTest, str]:
        number = view.number(tenant, "", tool)
        return view.test(number, ObjectiveTest), self._bases[view.rule.rule][number]

    # --- state

    def saved(self, key: Key) -> dict[str, Any] | None:
        """Everything about one objective of one tool, as JSON holds it; None if it is forgotten."""
        count = self._counts.get(key)
        if count is None:
            return None
        counts = count.counts
        return {
            "basis": count.basis, "bad": counts.bad[0].tolist(), "total": counts.total[0].tolist(),
            "newest": int(counts.newest[0]), "said": count.said, "said_at": count.said_at, "due": count.due,
        }  # fmt: skip

    def restore(self, saved: dict[Key, dict[str, Any]]) -> None:
        """Put back what was saved, and nothing else; of objectives that are not in force nothing is kept."""
        self.changed.clear()
        self._counts = {
            key: _Count(
                each["basis"],
                ObjectiveCounts(
                    np.array([each["bad"]], dtype=np.int64),
                    np.array([each["total"]], dtype=np.int64),
                    np.array([each["newest"]], dtype=np.int64),
                ),
                each["said"],
                each["said_at"],
                each["due"],
            )
            for key, each in saved.items()
            if key[0] in self._views
        }


def _params(test: ObjectiveTest) -> ObjectiveParams:
    return ObjectiveParams(test.shares[0], test.window_us // WINDOW_CELLS * WINDOW_CELLS, test.minimum)
