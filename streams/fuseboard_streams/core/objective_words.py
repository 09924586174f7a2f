"""What is said when an objective's state changes: the counts, the bound that decided, and what was expected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from fuseboard_detectors.objectives import ObjectiveState, bound
from fuseboard_schemas.records import SignalLevel
from fuseboard_streams.core.firing import Facts
from fuseboard_streams.core.hard_caps import usd
from fuseboard_streams.core.ruleset import COST, SUCCESS, TRACED, VIOLATING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuseboard_detectors.objectives import I8
    from fuseboard_detectors.segments import I64
    from fuseboard_streams.core.ruleset import ObjectiveTest

_UNKNOWN, _MET, _VIOLATED = ObjectiveState
_COUNTED: Final = {TRACED: "requested sessions", SUCCESS: "calls", VIOLATING: "actions", COST: "tasks"}
_BAD: Final = {TRACED: "showed no event", SUCCESS: "failed", VIOLATING: "were denied by policy"}
_UPWARDS: Final = frozenset({TRACED, SUCCESS})
"""Metrics that are the share of the good ones."""
_UNITS: Final = ((3_600_000_000, "h"), (60_000_000, "min"), (1_000_000, "s"))


@dataclass(frozen=True, slots=True)
class Finding:
    """States that are to be said of n targets of one objective."""

    test: ObjectiveTest
    metric: str
    state: I8 | np.ndarray[tuple[int], np.dtype[np.uint8]]
    """What is said, shape (n,)."""
    each: Sequence[I8]
    """What was found of each limit, shape (n,) each."""
    bad: Sequence[I64]
    """Of each limit."""
    total: I64


def level_of(state: ObjectiveState) -> SignalLevel:
    """A violated objective alerts; whatever else is said of one is noted."""
    return SignalLevel.WARN if state is _VIOLATED else SignalLevel.INFO


def words_of(finding: Finding) -> list[Facts]:
    """What is said of each target."""
    states = finding.state.tolist()
    of = [_deciding(finding, i, state) for i, state in enumerate(states)]
    bad, total = np.choose(of, finding.bad), finding.total
    limits = bound(bad, total, np.array(states) != _VIOLATED, finding.test.error)
    found = []
    for i, state in enumerate(states):
        reason = _reason(finding, of[i], ObjectiveState(state), (int(bad[i]), int(total[i])), float(limits[i]))
        share = bad[i] / total[i] if total[i] else None
        if share is not None and finding.metric in _UPWARDS:
            share = 1.0 - share
        value = None if share is None else round(float(share), 6)
        found.append(Facts(reason, value=value, calls=int(total[i]), failures=int(bad[i])))
    return found


def _deciding(finding: Finding, i: int, state: int) -> int:
    """The limit that a state rests on: the first that is violated, or else the first that is not certainly met."""
    each = [int(one[i]) for one in finding.each]
    if state == _VIOLATED and state in each:
        return each.index(state)
    return next((at for at, one in enumerate(each) if one != _MET), 0)


def _reason(finding: Finding, of: int, state: ObjectiveState, counts: tuple[int, int], limit: float) -> str:
    test, metric, (bad, total) = finding.test, finding.metric, counts
    counted, window = _COUNTED[metric], _span(test.window_us)
    if state is _UNKNOWN:
        return f"unknown: {total:,} {counted} within {window}, it takes {test.minimum:,}"
    what = _BAD.get(metric) or f"cost {usd(test.least[of])} or more"
    return (
        f"{state.name.lower()}: {bad:,} of {total:,} {counted} {what} within {window} ({_percent(bad / total)}); "
        f"{'at least' if state is _VIOLATED else 'at most'} {_percent(limit)} with {_percent(1.0 - test.error)} "
        f"confidence, expected less than {_percent(test.shares[of][0] / test.shares[of][1])}"
    )


def _percent(share: float) -> str:
    return f"{100.0 * share:.3g}%"


def _span(time_us: int) -> str:
    size, unit = next((each for each in _UNITS if time_us % each[0] == 0), (1_000_000, "s"))
    return f"{time_us / size:g} {unit}"
