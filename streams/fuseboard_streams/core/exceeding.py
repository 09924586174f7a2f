"""Latency and cost per call: whether a tool's calls exceed their reference more often than they did.

Per rule, actor and tool the first observations make a reference, and every later one is an event of a failure
statistic: `fuseboard_detectors.exceed`. Of a trace the first call that has a value is observed. The histogram of a
reference that is being made has rows of its own, which are freed with its last observation.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors.exceed import BINS, ExceedParams, ReferenceState, bins_of, observe
from fuseboard_detectors.seen import combine
from fuseboard_detectors.segments import different, sizes, stable_order
from fuseboard_schemas.keys import Target
from fuseboard_schemas.records import Scope
from fuseboard_streams.core.firsts import Firsts
from fuseboard_streams.core.hard_caps import usd
from fuseboard_streams.core.rates import Rates, Trials, rates_table
from fuseboard_streams.core.ruleset import ExceedTest
from fuseboard_streams.core.runs import places, run_starts
from fuseboard_streams.core.tables import Column, Family, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from fuseboard_streams.core.firing import Firing
    from fuseboard_streams.core.rulebook import Rulebook, RuleView
    from fuseboard_streams.core.settings import CoreSettings
    from fuseboard_streams.core.statistics import Finding

I64: TypeAlias = NDArray[np.int64]
U64: TypeAlias = NDArray[np.uint64]
Bools: TypeAlias = NDArray[np.bool_]
Rows: TypeAlias = NDArray[np.int64]

LATENCY: Final = "calls.latency"
LOWEST: Final = {LATENCY: 1_000, "calls.cost_usd": 10}
"""The lowest edge between bins of each metric: microseconds, micro-dollars."""
_WIDTH: Final = 8
_BLOCK: Final = BINS // _WIDTH
"""Rows of a histogram. They are made and freed together, so that they always follow each other."""
_OFFSETS = np.arange(_BLOCK)


def references_table(settings: CoreSettings) -> Table:
    """One row per tool of an actor and rule, as of `rates_table`: its reference, and the first row of its histogram."""
    reference = Family(
        "reference", (Column("seen", "i4"), Column("threshold", "i8"), Column("histogram", "i4", default=-1))
    )
    return rates_table("references", settings, settings.max_tools, reference)


def histograms_table(settings: CoreSettings) -> Table:
    """References that are being made: a few rows each, a few bins a row."""
    bins = Family("bins", (Column("bins", "u2", width=_WIDTH),))
    return Table("histograms", (bins,), limit=min(settings.max_tools, 1 << 26) * _BLOCK)


def free_histograms(references: Table, histograms: Table, rows: Rows | NDArray[np.int32]) -> None:
    """Free the histograms of these references, where they have one; who asks writes that they are gone."""
    first = references["histogram"][rows]
    histograms.free(_block(first[first >= 0]).ravel())


def _block(first: NDArray[np.int32]) -> Rows:
    found: Rows = first.astype(np.int64)[:, None] + _OFFSETS
    return found


@dataclass(frozen=True, slots=True)
class Measured:
    """n calls in order that ran: no refusals, no probes. Every array has shape (n,)."""

    position: NDArray[np.intp]
    """In the run of events."""
    tool: Rows
    """Rows of the tools' table."""
    trace: U64
    """A hash of the trace; 0 without one."""
    latency: I64
    """Microseconds, below 0 where unknown."""
    cost: I64
    """Micro-dollars, likewise."""
    ts: I64
    began: I64
    seconds: NDArray[np.int32]
    """Stream time as the tables keep it."""
    stream: I64


@dataclass(frozen=True, slots=True)
class _Observed:
    """Observations of all rules in the order of their calls, shape (n,) each."""

    call: NDArray[np.intp]
    row: Rows
    value: I64

    def take(self, chosen: NDArray[np.intp] | Bools) -> _Observed:
        return _Observed(self.call[chosen], self.row[chosen], self.value[chosen])


class Exceeding:
    """Follows values of calls, for the rules on ``calls.latency`` and ``calls.cost_usd``."""

    def __init__(
        self,
        references: Table,
        histograms: Table,
        firsts: Table,
        book: Rulebook,
        settings: CoreSettings,
        names: Callable[[int], tuple[str, str, str]],
        refer: Callable[[Rows, int], None],
    ) -> None:
        self._table = references
        self._histograms = histograms
        self._firsts = Firsts(firsts)
        self._names = names
        self._views = book.asking(ExceedTest, Scope.ACTOR_TOOL)
        self._rates = Rates(references, self._views, book, names, refer, settings.forget_after_us, self._empty)
        self._params = tuple(_reference(view, number) for view, number in self._rates.variants)
        self._sizes = np.array([params.reference for params in self._params], dtype=np.int64)
        self.wanted = bool(self._views)
        """Whether any rule asks."""
        self.unlearned = 0
        """Observations of references that there was no room to make."""

    def fold(self, calls: Measured) -> list[Firing]:
        """Take in the calls of a run."""
        observed = self._observed(calls)
        if len(observed.row) == 0:
            return []
        judged, reached = self._judge(observed)
        if not judged.any():
            return []
        some, failed = observed.take(judged), reached[judged]
        at = some.call
        trials = Trials(calls.position[at], some.row, failed, calls.ts[at], calls.began[at], calls.stream[at])
        return self._rates.fold(trials, self._target, self._words)

    def exceeds(self, rules: Collection[str], tool: int, latency: int, cost: int) -> bool:
        """Whether a call's value reaches its threshold by one of these rules.

        Args:
            rules: Names; those of other kinds say nothing.
            tool: Its row.
            latency: As in `Measured`.
            cost: Likewise. Without a value, or a reference, nothing is exceeded.
        """
        for which, view in enumerate(self._views):
            if view.rule.rule in rules:
                value = latency if view.rule.metric == LATENCY else cost
                row = self._rates.find(which, tool)
                threshold = int(self._table["threshold"][row]) if row >= 0 else 0
                if 0 < threshold <= value:
                    return True
        return False

    def forget(self) -> None:
        """Drop what no rule asks for any more."""
        self._rates.forget()
        if not self.wanted:
            self._firsts.forget()

    # --- observations

    def _observed(self, calls: Measured) -> _Observed:
        parts: list[_Observed] = []
        for which, view in enumerate(self._views):
            value = calls.latency if view.rule.metric == LATENCY else calls.cost
            at = places(value >= 0)
            rows = self._rates.rows(which, calls.tool[at], calls.seconds[at])
            parts.append(_Observed(at, rows, value[at]).take(rows >= 0))
        found = parts[0]
        if len(parts) > 1:
            call = np.concatenate([part.call for part in parts])
            # The memory is asked in the order of the calls: any cut of them asks the same.
            found = _Observed(
                call, np.concatenate([part.row for part in parts]), np.concatenate([part.value for part in parts])
            ).take(stable_order(call))
        return self._first_of_traces(calls, found)

    def _first_of_traces(self, calls: Measured, observed: _Observed) -> _Observed:
        trace = calls.trace[observed.call]
        first = np.ones(len(trace), dtype=np.bool_)
        traced = places(trace != 0)
        salt = self._table["salt"][observed.row[traced]]
        first[traced] = self._firsts.first(combine(trace[traced], salt))
        return observed.take(first)

    def _judge(self, observed: _Observed) -> tuple[Bools, Bools]:
        """Which observations are events, and which of them reached their threshold."""
        table = self._table
        number = table["rule"][observed.row]
        learning = table["seen"][observed.row] < self._sizes[number]
        judged = ~learning
        reached = judged & (observed.value >= table["threshold"][observed.row])
        for each in different(number[learning]).tolist():
            chosen = places(learning & (number == each))
            chosen = chosen[stable_order(observed.row[chosen])]
            chosen = chosen[self._with_histograms(observed.row[chosen])]
            if len(chosen):
                some = observed.take(chosen)
                judged[chosen], reached[chosen] = self._learn(some.row, some.value, self._params[each])
        return judged, reached

    def _learn(self, rows: Rows, values: I64, params: ExceedParams) -> tuple[Bools, Bools]:
        """Take observations into references, sorted by row; what comes after the last of a reference is judged."""
        table = self._table
        starts = run_starts(rows)
        heads, counts = rows[starts], sizes(starts, len(rows))
        table.touch("reference", heads)
        after = table["seen"][heads] + counts
        full = np.repeat(after >= params.reference, counts)
        judged, reached = np.zeros(len(rows), dtype=np.bool_), np.zeros(len(rows), dtype=np.bool_)
        if full.any():
            judged[full], reached[full] = self._complete(rows[full], values[full], params)
        begun = places(~full)
        table["seen"][heads] = np.minimum(after, params.reference)
        bins = bins_of(values[begun], params)
        where = table["histogram"][rows[begun]] + bins // _WIDTH
        self._histograms.touch("bins", where)
        # By one index, and of the same type, numpy adds forty times as fast.
        np.add.at(self._histograms["bins"].reshape(-1), where * _WIDTH + bins % _WIDTH, np.uint16(1))
        return judged, reached

    def _complete(self, rows: Rows, values: I64, params: ExceedParams) -> tuple[Bools, Bools]:
        """The same for references that have their last observation among these."""
        table, histograms = self._table, self._histograms
        starts = run_starts(rows)
        heads = rows[starts]
        counts = histograms["bins"][_block(table["histogram"][heads])].reshape(len(heads), BINS)
        seen, nothing = table["seen"][heads].astype(np.int64), np.zeros(len(heads), dtype=np.int64)
        state = ReferenceState(counts, seen, nothing, np.zeros(len(heads)))
        result = observe(state, starts, values, params)
        self._freeze(heads, state.threshold, state.p0)
        return result.judged, result.reached

    def _freeze(self, rows: Rows, threshold: I64, p0: NDArray[np.float64]) -> None:
        table = self._table
        free_histograms(table, self._histograms, rows)
        table["threshold"][rows] = threshold
        table["histogram"][rows] = -1
        table.touch("stat", rows)
        table["p0"][rows] = p0

    def _with_histograms(self, rows: Rows) -> Bools:
        """Make the histograms of references that begin; for which of these rows there is one."""
        table, histograms = self._table, self._histograms
        new = different(rows[table["histogram"][rows] < 0])[: histograms.room // _BLOCK]
        if len(new):
            made = histograms.allocate(len(new) * _BLOCK)
            table.touch("reference", new)
            table["histogram"][new] = made[::_BLOCK]
        having: Bools = table["histogram"][rows] >= 0
        self.unlearned += int(np.count_nonzero(~having))
        return having

    def _empty(self, rows: Rows) -> None:
        free_histograms(self._table, self._histograms, rows)
        self._table.touch("reference", rows)
        self._table["seen"][rows] = self._table["threshold"][rows] = 0
        self._table["histogram"][rows] = -1

    # --- what is said

    def _target(self, row: int) -> Target:
        tenant, actor, tool = self._names(int(self._table["owner"][row]))
        return Target(Scope.ACTOR_TOOL, tenant, actor, tool)

    def _words(self, finding: Finding, target: Target) -> str:
        view, _ = self._rates.variants[int(self._table["rule"][finding.row])]
        threshold = int(self._table["threshold"][finding.row])
        what = f"took {threshold / 1_000:g} ms" if view.rule.metric == LATENCY else f"cost {usd(threshold)}"
        return (
            f"calls of {target.tool} {what} or more in {finding.failures} of {finding.calls} traces, normally in at "
            f"most {100 * finding.p0:.3g}%"
        )


def _reference(view: RuleView, number: int) -> ExceedParams:
    test = view.test(number, ExceedTest)
    quantile = Fraction(test.quantile).limit_denominator(1_000_000)
    return ExceedParams(
        (quantile.numerator, quantile.denominator),
        test.reference,
        LOWEST[view.rule.metric],
        test.params.quantile,
        test.params.floor,
    )
