"""First uses: a call of a tool that its actor, after many calls, has never made before.

An actor's calls are counted only up to the largest number that any rule asks for: from then on an ordinary call changes
nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors import first_use
from fuseboard_detectors.segments import ordinals, sizes, stable_order
from fuseboard_schemas.keys import Target
from fuseboard_schemas.records import Scope
from fuseboard_streams.core.firing import Facts, Firing
from fuseboard_streams.core.ruleset import FirstUseTest
from fuseboard_streams.core.runs import places, run_starts

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_streams.core.rulebook import Rulebook
    from fuseboard_streams.core.tables import Table

I64: TypeAlias = NDArray[np.int64]
Rows: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Uses:
    """n calls in order, probes and refusals by a breaker not among them; every array has shape (n,)."""

    position: NDArray[np.intp]
    """In the run of events."""
    actor: Rows
    tool: Rows
    """Rows of the tools' table."""
    stream: I64
    """Stream time once the call has been seen."""


class FirstUses:
    """Follows which tools actors have called, for the rules on ``tools.first_use``.

    It keeps ``calls`` of the actors' table and ``used`` of the tools': both begin anew with their rows.
    """

    def __init__(self, tools: Table, actors: Table, book: Rulebook) -> None:
        self._tools = tools
        self._actors = actors
        self._views = book.asking(FirstUseTest, Scope.ACTOR_TOOL)
        after = [view.test(i, FirstUseTest).after for view in self._views for i in range(len(view.variants))]
        self._least, self._most = min(after, default=0), max(after, default=0)
        self.wanted = bool(self._views)
        """Whether any rule asks."""

    def fold(self, uses: Uses, tool_name: Callable[[int], str]) -> list[Firing]:
        """Take in the calls of a run.

        Args:
            uses: the calls that count.
            tool_name: a tool's name by its number.
        """
        tools, actors = self._tools, self._actors
        # All other calls are of tools that are known, by actors whose calls need not be counted any more.
        chosen = places((actors["calls"][uses.actor] < self._most) | (tools["used"][uses.tool] == 0))
        if len(chosen) == 0:
            return []
        at = chosen[stable_order(uses.actor[chosen])]
        starts = run_starts(uses.actor[at])
        heads = uses.actor[at][starts]
        rows, which = np.unique(uses.tool[at], return_inverse=True)
        made = actors["calls"][heads].astype(np.int64)
        before = ordinals(starts, len(at)) + np.repeat(made, sizes(starts, len(at)))
        experience = first_use.Experience(made)
        used = first_use.Used(tools["used"][rows] > 0)
        unused = rows[~used.used]
        first = places(first_use.fold(experience, used, starts, which, after=self._least))
        counted = made < self._most
        actors.touch("experience", heads[counted])
        actors["calls"][heads[counted]] = np.minimum(experience.calls[counted], self._most)
        tools.touch("used", unused)
        tools["used"][unused] = 1
        return self._found(uses, at[first], before[first], tool_name)

    def forget(self) -> None:
        """Begin anew with every actor."""
        for table, family, column in ((self._tools, "used", "used"), (self._actors, "experience", "calls")):
            rows = places(table[column] != 0)
            table.touch(family, rows)
            table[column][rows] = 0

    def _found(self, uses: Uses, at: NDArray[np.intp], before: I64, tool_name: Callable[[int], str]) -> list[Firing]:
        found = []
        for where, calls in zip(at.tolist(), before.tolist(), strict=True):
            row = int(uses.actor[where])
            tenant, actor = str(self._actors["tenant"][row]), str(self._actors["actor"][row])
            tool = tool_name(int(self._tools["tool"][uses.tool[where]]))
            for view in self._views:
                number = view.number(tenant, actor, tool)
                if number < 0 or calls < view.test(number, FirstUseTest).after:
                    continue
                after = view.test(number, FirstUseTest).after
                position, now = int(uses.position[where]), int(uses.stream[where])
                facts = Facts(f"calls {tool} for the first time, after {after} calls or more without it")
                target = Target(Scope.ACTOR_TOOL, tenant, actor, tool)
                found.append(Firing(position, now, view, number, target, facts, decided=position))
        return found
