"""Violations as a rate: whether an actor's actions are denied by policy more often than is normal, or was stated.

Every action is an event of a failure statistic. One that says that a policy denied it is a violation; so is a decision
in effect that denied one, which comes before the actor's next action. **One violation of a trace counts**: a decision
and the refused call that reports it are one, as is a stuck session that tries the same again and again. What a trace
does beyond its first violation counts neither way if it is denied. An action that a decision denied, and that does not
say so itself, counts as one without violation beside it, which only lowers the rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors.seen import combine
from fuseboard_schemas.keys import Target
from fuseboard_schemas.records import Scope
from fuseboard_streams.core.firsts import Firsts
from fuseboard_streams.core.rates import Rates, Trials, rates_table
from fuseboard_streams.core.ruleset import FailureTest
from fuseboard_streams.core.runs import places

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_streams.core.firing import Firing
    from fuseboard_streams.core.rulebook import Rulebook
    from fuseboard_streams.core.settings import CoreSettings
    from fuseboard_streams.core.statistics import Finding
    from fuseboard_streams.core.tables import Table

I64: TypeAlias = NDArray[np.int64]
U64: TypeAlias = NDArray[np.uint64]
Bools: TypeAlias = NDArray[np.bool_]
Rows: TypeAlias = NDArray[np.int64]

METRIC: Final = "actions.violating"


def violating_table(settings: CoreSettings) -> Table:
    """One row per actor and rule, as of `rates_table`."""
    return rates_table("violating", settings, settings.max_actors)


@dataclass(frozen=True, slots=True)
class Actions:
    """n actions in order, probes and refusals by a breaker not among them, or n denials; every array has shape (n,)."""

    position: NDArray[np.intp]
    """In the run of events."""
    actor: Rows
    denied: Bools
    trace: U64
    """A hash of the trace of those that are denied; 0 without one, and for the others."""
    ts: I64
    began: I64
    seconds: NDArray[np.int32]
    """Stream time as the tables keep it."""
    stream: I64


class Violating:
    """Follows how often actors are denied something, for the e-detectors on ``actions.violating``."""

    def __init__(
        self,
        table: Table,
        firsts: Table,
        book: Rulebook,
        settings: CoreSettings,
        names: Callable[[int], tuple[str, str, str]],
        refer: Callable[[Rows, int], None],
    ) -> None:
        self._table = table
        self._firsts = Firsts(firsts)
        self._names = names
        self._views = tuple(view for view in book.asking(FailureTest, Scope.ACTOR) if view.rule.metric == METRIC)
        self._rates = Rates(table, self._views, book, names, refer, settings.forget_after_us)
        self.wanted = bool(self._views)
        """Whether any rule asks."""

    def fold(self, actions: Actions) -> list[Firing]:
        """Take in a run of actions, or of decisions that denied some."""
        if len(actions.actor) == 0:
            return []
        every = [self._rates.rows(which, actions.actor, actions.seconds) for which in range(len(self._views))]
        # By action, then by rule: any cut of the actions asks the memory of traces the same.
        rows = np.stack(every, axis=1).ravel()
        at = np.repeat(np.arange(len(actions.actor)), len(every))
        chosen = places(rows >= 0)
        rows, at = rows[chosen], at[chosen]
        counted = self._counted(actions, rows, at)
        rows, at = rows[counted], at[counted]
        trials = Trials(
            actions.position[at], rows, actions.denied[at], actions.ts[at], actions.began[at], actions.stream[at]
        )
        return self._rates.fold(trials, self._target, _words)

    def forget(self) -> None:
        """Drop what no rule asks for any more."""
        self._rates.forget()
        if not self.wanted:
            self._firsts.forget()

    def _counted(self, actions: Actions, rows: Rows, at: NDArray[np.intp]) -> Bools:
        """All but violations of traces that have had one."""
        trace = actions.trace[at]
        counted = np.ones(len(at), dtype=np.bool_)
        hits = places(actions.denied[at] & (trace != 0))
        counted[hits] = self._firsts.first(combine(trace[hits], self._table["salt"][rows[hits]]))
        return counted

    def _target(self, row: int) -> Target:
        tenant, actor, _ = self._names(int(self._table["owner"][row]))
        return Target(Scope.ACTOR, tenant, actor)


def _words(finding: Finding, _: Target) -> str:
    share = f"{finding.failures} of {finding.calls} actions, one of a trace counted"
    return f"denied by policy in {share}, normally in at most {100 * finding.p0:.3g}%"
