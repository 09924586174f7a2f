"""The pooled failure statistic of a tool over all actors of a tenant, fed with sums of a second.

Actors are spread over the shards, so a tool's owner gets **panes**: how many calls of the tool succeeded and how many
failures of it were counted in one second of event time, in one shard, with the range of offsets that they stand for.
An actor counts for at most three failures of a pane.

One second is one step: with n calls, f of them counted failures, R <- (R + 1) L1^f L0^(n - f) for each alternative,
with the likelihood ratios of `failure`. Within a second the order of the calls and the number of shards make no
difference, and the mean of R is still an e-detector (Shin, Ramdas and Rinaldo, "E-detectors", NEJSDS 2024): the level A
then bounds false trips per second with calls. A second without calls is no step.

A tool whose null is not stated is judged once its own history has given one: until the first block is learned, two
periods of calls after the first, R stays at 0 and everything is learned. A prior stands for what an actor risks with a
tool it does not know; over all actors a tool that usually fails in half of its calls would outrun any prior within
seconds, and be taken from everybody.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from fuseboard_detectors.arithmetic import exp, ln
from fuseboard_detectors.failure import FailureStep, initial_null, likelihoods, mean_r

if TYPE_CHECKING:
    from fuseboard_detectors.arithmetic import Floats
    from fuseboard_detectors.failure import FailureParams
    from fuseboard_detectors.segments import I64, Bools

_CEILING = 1e150
_LN_RANGE = (-600.0, 340.0)
"""One pane moves R by no more than this, on the logarithm: thousands of failures must not overflow."""


@dataclass(slots=True)
class Panes:
    """Sums as the shards sent them, shape (n,) each."""

    second: I64
    """Of event time."""
    tool: I64
    """The owner's number of it."""
    shard: I64
    first: I64
    """Offset of the first record that the sums stand for."""
    last: I64
    """Offset of the last."""
    successes: I64
    failures: I64
    """Counted ones."""


@dataclass(slots=True)
class Sums:
    """Sums over shards, or over actors, by second and tool, in this order; shape (m,) each."""

    second: I64
    tool: I64
    successes: I64
    failures: I64


@dataclass(slots=True)
class PooledState:
    """The statistic of k tools: shape (k, odds) for ``r``, (k,) for the rest."""

    r: Floats
    """The e-detector's components after the last pane."""
    p0: Floats
    """The null in force."""
    pending_calls: I64
    pending_failures: I64
    """The block that is filling: panes until they hold a period's calls."""
    parked_calls: I64
    parked_failures: I64
    """The last full block, not yet learned."""
    learned_calls: I64
    learned_failures: I64
    run_calls: I64
    run_failures: I64
    """Since the evidence last rested."""
    run_since: I64
    """The second of the first failure of this run: the estimated onset."""

    @classmethod
    def fresh(cls, k: int, params: FailureParams) -> PooledState:
        """Tools that have never been called."""
        zeros = {f.name: np.zeros(k, dtype=np.int64) for f in fields(cls) if f.name not in ("r", "p0")}
        return cls(r=np.zeros((k, len(params.odds))), p0=np.full(k, initial_null(params)), **zeros)


def capped(second: I64, tool: I64, actor: I64, successes: I64, failures: I64, *, cap: int) -> Sums:
    """What a shard sends: sums by second and tool in which no actor counts for more than ``cap`` failures.

    Args:
        second: of each call, or of each sum over calls, shape (n,), in any order.
        tool: a number of its tool, shape (n,).
        actor: a number of its actor, shape (n,).
        successes: 1 or 0, or how many, shape (n,).
        failures: likewise.
        cap: counted failures of an actor, tool and second.
    """
    by_actor = _grouped((second, tool, actor), (successes, failures))
    return _sums(by_actor[0], by_actor[1], by_actor[3], np.minimum(by_actor[4], cap))


def merge(panes: Panes) -> tuple[Sums, int]:
    """Sums over all shards by second and tool, whatever the order of the panes and however often each came.

    Panes of one tool, second and shard that stand for other offsets add up (calls that came late). One whose offsets
    overlap those of an earlier one, by their first offset, is a duplicate and left out; of two that begin at the same
    offset the longer one stays.

    Returns:
        The sums, and how many panes were duplicates.
    """
    n = len(panes.second)
    order = np.lexsort(
        (-panes.failures, -panes.successes, -panes.last, panes.first, panes.shard, panes.tool, panes.second)
    )
    second, tool, shard = panes.second[order], panes.tool[order], panes.shard[order]
    first, last = panes.first[order], panes.last[order]
    same = np.zeros(n, dtype=np.bool_)
    same[1:] = (second[1:] == second[:-1]) & (tool[1:] == tool[:-1]) & (shard[1:] == shard[:-1])
    group = np.cumsum(~same)
    # The highest offset before each pane within its group: ranks keep the product small.
    values, rank = np.unique(last, return_inverse=True)
    reach = np.maximum.accumulate(group * (n + 1) + rank)
    duplicate = np.zeros(n, dtype=np.bool_)
    duplicate[1:] = same[1:] & (first[1:] <= values[np.maximum(reach[:-1] - group[:-1] * (n + 1), 0)])
    kept = order[~duplicate]
    sums = _sums(panes.second[kept], panes.tool[kept], panes.successes[kept], panes.failures[kept])
    return sums, int(duplicate.sum())


def _sums(second: I64, tool: I64, successes: I64, failures: I64) -> Sums:
    return Sums(*_grouped((second, tool), (successes, failures)))


def _grouped(keys: tuple[I64, ...], values: tuple[I64, ...]) -> tuple[I64, ...]:
    """The distinct keys, ascending, and the sums of the values of each."""
    n = len(keys[0])
    order = np.lexsort(keys[::-1])
    ordered = [key[order] for key in keys]
    begins = np.ones(n, dtype=np.bool_)
    if n > 1:
        begins[1:] = np.any([key[1:] != key[:-1] for key in ordered], axis=0)
    starts = np.flatnonzero(begins)
    sums = [np.add.reduceat(value[order], starts) if n else value[:0] for value in values]
    return *(key[starts] for key in ordered), *sums


def count_pane(state: PooledState, successes: I64, failures: I64, second: I64, params: FailureParams) -> FailureStep:
    """Apply one second of every tool, in place.

    In this order: the null is taken anew from what has been learned, if anything failed; R takes one step, if anything
    has been learned or the null is stated; the calls are learned, unless the evidence is at warn level now.

    Args:
        state: k tools, each with at least one call in the second.
        successes: how many calls succeeded, shape (k,).
        failures: how many failures are counted, shape (k,).
        second: of event time, shape (k,).
        params: the settings; the cap is that of `capped`.
    """
    if params.known_null is None:
        learned = params.null().p0(state.learned_calls, state.learned_failures)
        state.p0 = np.where(failures > 0, learned, state.p0)
    mean_before = mean_r(state.r)
    l0, l1, _ = likelihoods(state.p0, params.odds)
    power = failures[:, None] * ln(l1) + successes[:, None] * ln(l0)
    known = state.learned_calls > 0 if params.known_null is None else np.ones(len(second), dtype=np.bool_)
    state.r = np.where(known[:, None], np.minimum((state.r + 1.0) * exp(np.clip(power, *_LN_RANGE)), _CEILING), 0.0)
    mean = mean_r(state.r)
    _track_run(state, mean_before, successes, failures, second)
    suspect = mean >= params.warn
    _learn(state, np.where(suspect, 0, successes), np.where(suspect, 0, failures), params.period)
    return FailureStep(mean, suspect & (mean_before < params.warn), mean >= params.trip)


def _track_run(state: PooledState, mean_before: Floats, successes: I64, failures: I64, second: I64) -> None:
    rested = (mean_before <= 1.0 / state.p0) & (failures > 0)
    state.run_calls = np.where(rested, 0, state.run_calls) + successes + failures
    state.run_failures = np.where(rested, 0, state.run_failures) + failures
    state.run_since = np.where(rested, second, state.run_since)


def _learn(state: PooledState, successes: I64, failures: I64, period: int) -> None:
    """Add a pane to the filling block; a block that is full is parked, and the one parked before it is learned."""
    state.pending_calls = state.pending_calls + successes + failures
    state.pending_failures = state.pending_failures + failures
    full = state.pending_calls >= period
    state.learned_calls = state.learned_calls + np.where(full, state.parked_calls, 0)
    state.learned_failures = state.learned_failures + np.where(full, state.parked_failures, 0)
    state.parked_calls = np.where(full, state.pending_calls, state.parked_calls)
    state.parked_failures = np.where(full, state.pending_failures, state.parked_failures)
    state.pending_calls = np.where(full, 0, state.pending_calls)
    state.pending_failures = np.where(full, 0, state.pending_failures)


def restart(state: PooledState, rows: Bools) -> None:
    """Begin the statistic of some tools anew, as at a trip; what the null has learned stays."""
    state.r[rows] = 0.0
    for values in (state.run_calls, state.run_failures, state.run_since):
        values[rows] = 0
