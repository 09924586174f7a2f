"""Which targets are nearest to a trip for failing, for people to look at. Reads only, and decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors.arithmetic import log10
from fuseboard_detectors.failure import fold_successes, mean_r
from fuseboard_streams.core.layout import EPOCH_S
from fuseboard_streams.core.nearing import Nearing
from fuseboard_streams.core.rulebook import NONE
from fuseboard_streams.core.runs import places
from fuseboard_streams.core.settings import SECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuseboard_streams.core.parts import Parts
    from fuseboard_streams.core.rulebook import FailureLevel
    from fuseboard_streams.core.statistics import Statistic

Rows: TypeAlias = NDArray[np.intp]
Floats: TypeAlias = NDArray[np.float64]

RECENT_S: Final = 3_600
"""A target that nobody has called for longer is not on its way anywhere."""
LEAST_FAILURES: Final = 2
"""Counted failures since the evidence last rested: after a single one nearly every target would be on its way."""
_FIRST: Final = 64
_MOST_ROWS: Final = 16_384
"""Of so many rows, the strongest at their last failure, the evidence is computed at most."""


def nearest_to_trip(parts: Parts, most: int) -> list[Nearing]:
    """The targets of a shard that are nearest to a trip, the nearest first.

    Those at rest, those that have tripped, and those that nobody has called for an hour of stream time are left out; so
    is one that has not been called since the rules changed.

    Args:
        parts: Of the shard.
        most: How many at most.
    """
    state, book = parts.state, parts.book
    found = _of(parts, state.tool_statistic, book.tools, most) + _of(parts, state.actor_statistic, book.actors, most)
    return sorted(found + parts.second.nearing(most), key=lambda each: each.order)[:most]


def _of(parts: Parts, statistic: Statistic, level: FailureLevel, most: int) -> list[Nearing]:
    """Of one table: rows in runs of doubling length, those first that were the strongest at their last failure."""
    rows = _candidates(parts, statistic)
    if len(rows) == 0:
        return []
    table = statistic.table
    trip = _levels(table["rule"][rows], level)
    # Since then it has fallen, or come back to rest, which is below 1 / p0.
    bound = (mean_r(table["r"][rows]) + 1.0 / table["p0"][rows]) / trip
    order = np.argsort(-bound, kind="stable")[:_MOST_ROWS]
    kept: list[tuple[float, int]] = []
    """What each has reached of its level, negated, and its row."""
    begin, step = 0, _FIRST
    while begin < len(order):
        chosen = order[begin : begin + step]
        if len(kept) == most and bound[chosen[0]] < -kept[-1][0]:
            break
        share = _mean(statistic, level, rows[chosen]) / trip[chosen]
        above = places(share * trip[chosen] * table["p0"][rows[chosen]] > 1.0)
        kept += zip((-share[above]).tolist(), rows[chosen[above]].tolist(), strict=True)
        kept = sorted(kept)[:most]
        begin, step = begin + step, step * 2
    chosen = np.array([row for _, row in kept], dtype=np.intp)
    return _nearing(parts, statistic, level, chosen)


def _candidates(parts: Parts, statistic: Statistic) -> Rows:
    table = statistic.table
    top = table.high_water
    since = parts.stream_time // SECOND - EPOCH_S - RECENT_S
    # The rarest first: everything else is asked of few rows.
    rows = places(table["run_failures"][:top] >= LEAST_FAILURES)
    some = table.live[rows] & (table["frozen"][rows] == 0) & (table["last_seen"][rows] >= since)
    some &= (table["stamp"][rows] == parts.book.stamp) & (table["rule"][rows] != NONE)
    rows = rows[some]
    # What was below this at its last failure is at rest now.
    kept: Rows = rows[mean_r(table["r"][rows]) > 0.5 / table["p0"][rows]]
    return kept


def _levels(numbers: NDArray[np.int16], level: FailureLevel) -> Floats:
    """The level at which each row trips."""
    unique, inverse = np.unique(numbers, return_inverse=True)
    found: Floats = np.array([level.params(number).trip for number in unique.tolist()])[inverse]
    return found


def _mean(statistic: Statistic, level: FailureLevel, rows: Rows) -> Floats:
    table = statistic.table
    successes = table["successes"][rows].astype(np.int64)
    return mean_r(fold_successes(table["r"][rows], table["p0"][rows], successes, level.params(0).odds))


def _nearing(parts: Parts, statistic: Statistic, level: FailureLevel, rows: Rows) -> list[Nearing]:
    table, actors = statistic.table, parts.state.actors
    of_tool = table is parts.state.tools
    owners: Sequence[int] = (table["actor"][rows] if of_tool else rows).tolist()
    tools = [parts.identities.tool_names[each] for each in table["tool"][rows].tolist()] if of_tool else None
    evidence = np.round(log10(_mean(statistic, level, rows)), 6).tolist()
    trip = np.round(log10(_levels(table["rule"][rows], level)), 6).tolist() if len(rows) else []
    calls = (table["run_calls"][rows].astype(np.int64) + table["successes"][rows]).tolist()
    return [
        Nearing(
            str(actors["tenant"][owner]), str(actors["actor"][owner]), None if tools is None else tools[i], evidence[i],
            trip[i], calls[i], int(table["run_failures"][rows[i]]),
        )
        for i, owner in enumerate(owners)
    ]  # fmt: skip
