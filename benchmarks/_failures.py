"""Many keys of the failure detector at once, driven from counted failure to counted failure.

Nothing happens at a success but a count, so a Bernoulli stream is drawn as the gaps between its failures, and every
failure goes through the core's own `count_failure`. What comes out is what the core does event by event.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from fuseboard_detectors.attribution import given_calls
from fuseboard_detectors.failure import FailureParams, FailureState, FailureStep, count_failure, restart

if TYPE_CHECKING:
    from fuseboard_detectors.arithmetic import Floats, Ints

_STATE = tuple(f.name for f in fields(FailureState))


class Keys:
    """The statistics of k keys."""

    def __init__(self, k: int, params: FailureParams) -> None:
        self.params = params
        self.state = FailureState.fresh(k, params)

    def succeed(self, rows: Ints, successes: Ints) -> None:
        """Add successes to some keys (unique)."""
        self.state.successes[rows] += successes

    def fail(self, rows: Ints) -> tuple[FailureState, FailureStep]:
        """Count a failure of each of some keys (unique); a key that trips begins anew. The states before that."""
        part = FailureState(*(getattr(self.state, name)[rows] for name in _STATE))
        step = count_failure(part, np.zeros(len(rows), dtype=np.int64), self.params)
        after = part
        fired = np.flatnonzero(step.tripped)
        if len(fired):
            after = FailureState(*(getattr(part, name).copy() for name in _STATE))
            begun = FailureState(*(getattr(part, name)[fired] for name in _STATE))
            restart(begun)
            for name in _STATE:
                getattr(after, name)[fired] = getattr(begun, name)
        for name in _STATE:
            getattr(self.state, name)[rows] = getattr(after, name)
        return part, step


def gaps(rate: float | Floats, size: int, rng: np.random.Generator) -> Ints:
    """Successes before the next failure of each of ``size`` keys."""
    return rng.geometric(np.maximum(rate, 1e-12), size).astype(np.int64) - 1


def delays(
    params: FailureParams, *, healthy: int, before: float, after: float, keys: int, rng: np.random.Generator
) -> Ints:
    """Events from a change of the failure rate to the trip, the deciding one included.

    Args:
        params: the detector's settings.
        healthy: events at the rate ``before``; a key that trips in them is left out.
        before: failure rate before the change.
        after: failure rate from the change on.
        keys: how many keys are driven.
        rng: draws the events.

    Returns:
        One delay for each key that had not tripped when its rate changed.
    """
    all_keys = Keys(keys, params)
    tripped = np.zeros(keys, dtype=np.bool_)
    left = np.full(keys, healthy, dtype=np.int64)
    active = np.arange(keys)
    while len(active):
        gap = gaps(before, len(active), rng)
        fails = gap < left[active]
        all_keys.succeed(active, np.minimum(gap, left[active]))
        active, gap = active[fails], gap[fails]
        tripped[active] = all_keys.fail(active)[1].tripped
        left[active] -= gap + 1
        active = active[(left[active] > 0) & ~tripped[active]]
    result = np.zeros(keys, dtype=np.int64)
    active = np.flatnonzero(~tripped)
    kept = active
    while len(active):
        gap = gaps(after, len(active), rng)
        all_keys.succeed(active, gap)
        result[active] += gap + 1
        active = active[~all_keys.fail(active)[1].tripped]
    return result[kept]


@dataclass
class Tally:
    """Events and trips of the keys with a certain number of learned events."""

    events: int = 0
    """All of them."""
    healthy: int = 0
    """Those at which the key's true rate was not above the null in force."""
    false: int = 0
    """Trips at which it was not."""
    right: int = 0
    """Trips at which it was."""
    warnings: int = 0
    """Warnings at which it was not."""


@dataclass
class Tallies:
    """By the number of learned events: a tally from each of ``bounds`` up to the next."""

    bounds: tuple[int, ...]
    parts: list[Tally] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parts = self.parts or [Tally() for _ in self.bounds]

    def total(self, since: int = 0, until: int | None = None) -> Tally:
        """The sum of the tallies from ``since`` learned events on, up to ``until``."""
        result = Tally()
        for bound, part in zip(self.bounds, self.parts, strict=True):
            if bound >= since and (until is None or bound < until):
                for f in fields(Tally):
                    setattr(result, f.name, getattr(result, f.name) + getattr(part, f.name))
        return result


def false_trips(params: FailureParams, rates: Floats, horizon: int, tallies: Tallies, rng: np.random.Generator) -> None:
    """Drive keys of constant rates through ``horizon`` events each, and note every trip.

    A key that trips begins anew at once, with what it has learned. It has n learned events from the event on at which
    n and one more block have been given to its null.
    """
    keys = Keys(len(rates), params)
    left = np.full(len(rates), horizon, dtype=np.int64)
    active = np.arange(len(rates))
    edges = np.array([bound + params.period if bound else 0 for bound in tallies.bounds], dtype=np.int64)
    while len(active):
        gap = np.minimum(gaps(rates[active], len(active), rng), left[active])
        _note_successes(keys.state, active, gap, rates, edges, tallies)
        keys.succeed(active, gap)
        left[active] -= gap
        active = active[left[active] > 0]
        if len(active) == 0:
            break
        seen = given_calls(keys.state)[active] + _unsettled(keys.state, active)
        part, step = keys.fail(active)
        _note_failures(part, step, seen, rates[active], edges, tallies)
        left[active] -= 1
        active = active[left[active] > 0]


def _unsettled(state: FailureState, rows: Ints) -> Ints:
    """Successes that the null will be given at the next failure."""
    unlearned = np.maximum(state.settled[rows], np.maximum(state.suspect_left[rows] - 1, 0))
    return np.maximum(state.successes[rows] - unlearned, 0)


def _note_successes(state: FailureState, rows: Ints, gap: Ints, rates: Floats, edges: Ints, tallies: Tallies) -> None:
    seen = given_calls(state)[rows] + _unsettled(state, rows)
    suspect = (state.suspect_left[rows] > 0) & (state.successes[rows] < state.suspect_left[rows])
    # A suspect key learns nothing: what it had been given stays (to within the few successes that end it).
    reach = np.where(suspect, seen, seen + gap)
    healthy = rates[rows] <= state.p0[rows]
    for i, tally in enumerate(tallies.parts):
        upper = edges[i + 1] if i + 1 < len(edges) else np.iinfo(np.int64).max
        inside = np.maximum(np.minimum(reach, upper) - np.maximum(seen, edges[i]), 0)
        inside = np.where(suspect, np.where((seen >= edges[i]) & (seen < upper), gap, 0), inside)
        tally.events += int(inside.sum())
        tally.healthy += int(inside[healthy].sum())


def _note_failures(
    state: FailureState, step: FailureStep, seen: Ints, rates: Floats, edges: Ints, tallies: Tallies
) -> None:
    healthy = rates <= state.p0
    which = np.searchsorted(edges, seen, side="right") - 1
    for i, tally in enumerate(tallies.parts):
        mine = which == i
        tally.events += int(np.count_nonzero(mine))
        tally.healthy += int(np.count_nonzero(mine & healthy))
        tally.false += int(np.count_nonzero(mine & healthy & step.tripped))
        tally.right += int(np.count_nonzero(mine & ~healthy & step.tripped))
        tally.warnings += int(np.count_nonzero(mine & healthy & step.warned))


def mean_interval(values: Ints) -> tuple[float, float]:
    """The mean and half the width of its 95% interval (normal approximation; there are thousands of values)."""
    return float(values.mean()), float(1.96 * values.std(ddof=1) / np.sqrt(len(values)))


def poisson_interval(count: int, exposure: float) -> tuple[float, float]:
    """The exact 95% interval of a rate: Garwood, Biometrika 28 (1936)."""
    low = stats.chi2.ppf(0.025, 2 * count) / 2 if count else 0.0
    high = stats.chi2.ppf(0.975, 2 * (count + 1)) / 2
    return float(low / exposure), float(high / exposure)
