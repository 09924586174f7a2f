"""The tool-failure detector: a mixture Shiryaev-Roberts e-detector for Bernoulli events.

For a null p0 and odds multipliers theta the alternatives are q = theta p0 / (1 + (theta - 1) p0). With likelihood
ratios L1 = q / p0 on a failure and L0 = (1 - q) / (1 - p0) on a success each component follows R <- (R + 1) L, and the
mean over the components is an e-detector: the expected number of events to a false alarm at level A is at least A
when failures are conditionally no likelier than p0 (Shin, Ramdas and Rinaldo, "E-detectors", NEJSDS 2024).

Nothing happens at a success but a count. After s successes R has become L0^s R + L0 (1 - L0^s) / (1 - L0), so the
floating-point state moves only at counted failures, and any way of cutting the events into batches gives the same
bits. With these odds L0 = 1 / (1 + (theta - 1) p0), L1 = theta L0 and L0 / (1 - L0) = 1 / ((theta - 1) p0).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors.arithmetic import Floats, Ints, power
from fuseboard_detectors.beta import LearnedNull, learned_null
from fuseboard_schemas.errors import ConfigurationError

Bools: TypeAlias = NDArray[np.bool_]

_CEILING = 1e150
"""Far above any level: evidence that nobody acts on must not grow until it overflows."""


@dataclass(frozen=True, slots=True)
class FailureParams:
    """Settings of the failure detector. Levels are e-values; counts are calls."""

    trip: float = 1e6
    """Trip when the mean of R reaches this: at most one false trip per this many events of a key."""
    warn: float = 1e4
    """Suspect from here on: say so, and learn nothing."""
    explained: float = 10.0
    """An actor trips only if without any one of its tools the mean would still reach ``trip`` divided by this."""
    floor: float = 0.005
    """The null is never below this failure rate."""
    quantile: float = 0.99
    """The null is this quantile of the failure rate's posterior."""
    prior_alpha: float = 0.72
    prior_beta: float = 12.7
    effective: int = 500
    """History never counts for more calls than this."""
    period: int = 200
    """Calls are learned in blocks of this many, one block later."""
    cap: int = 3
    """At most this many failures of a trace are counted ..."""
    cap_window_us: int = 300_000_000
    """... in this much stream time from the first of them."""
    odds: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0, 64.0)
    """The multipliers theta of the odds under the alternatives."""
    known_null: float | None = None
    """A failure rate that is known and not learned (simulations, agreed limits)."""

    def __post_init__(self) -> None:
        lowest = self.floor if self.known_null is None else self.known_null
        rates = (lowest, self.quantile, self.floor)
        counts = (self.prior_alpha, self.prior_beta, self.effective, self.period, self.cap, self.cap_window_us)
        if not all(0.0 < rate < 1.0 for rate in rates) or not all(count > 0 for count in counts):
            raise ConfigurationError(
                f"a failure detector has settings out of their range: {self}; expected rates between 0 and 1, and "
                "priors, counts and times above 0: correct them or remove them for the defaults."
            )
        if not self.explained >= 1.0:
            raise ConfigurationError(
                f"a failure detector has explained={self.explained!r}, expected a factor of at least 1: correct it."
            )
        if not self.odds or not all(odds > 1.0 for odds in self.odds):
            raise ConfigurationError(
                f"a failure detector has odds={self.odds!r}, expected factors above 1: correct them."
            )
        # Successes alone bring the mean to at most 1 / p0: below that level nothing would ever cease to be suspect.
        if not 1.0 / lowest <= self.warn <= self.trip:
            raise ConfigurationError(
                f"a failure detector has warn={self.warn!r} and trip={self.trip!r} with nulls from {lowest!r} on; "
                f"expected 1 / null = {1.0 / lowest:g} <= warn <= trip: raise the levels, or the null."
            )

    @property
    def unexplained(self) -> float:
        """What must remain of an actor's evidence without any one of its tools."""
        return self.trip / self.explained

    def null(self) -> LearnedNull:
        """The null learned from counts under these settings."""
        return learned_null(self.prior_alpha, self.prior_beta, self.quantile, self.floor, self.effective, self.period)


@lru_cache(maxsize=64)
def initial_null(params: FailureParams) -> float:
    """The null of a key without history."""
    if params.known_null is not None:
        return params.known_null
    zero = np.zeros(1, dtype=np.int64)
    return float(params.null().p0(zero, zero)[0])


@dataclass(slots=True)
class FailureState:
    """The statistic of k keys, one row each: shape (k, odds) for ``r``, (k,) for the rest."""

    r: Floats
    """The e-detector's components right after the last counted failure (0 at the start)."""
    p0: Floats
    """The null in force."""
    successes: Ints
    """Successes since the last counted failure."""
    settled: Ints
    """How many of these the null has learned already."""
    suspect_left: Ints
    """The number of successes after the last counted failure with which the mean falls below warn; 0: not suspect."""
    pending_calls: Ints
    pending_failures: Ints
    """The block that is filling."""
    parked_calls: Ints
    parked_failures: Ints
    """The last full block, not yet learned."""
    learned_calls: Ints
    learned_failures: Ints
    run_calls: Ints
    run_failures: Ints
    """Calls and failures since the evidence last rested."""
    run_since: Ints
    """Time of the first failure of this run, in microseconds since the epoch."""

    @classmethod
    def fresh(cls, k: int, params: FailureParams) -> FailureState:
        """K keys that have never been seen."""
        zeros = {f.name: np.zeros(k, dtype=np.int64) for f in fields(cls) if f.name not in ("r", "p0")}
        return cls(r=np.zeros((k, len(params.odds))), p0=np.full(k, initial_null(params)), **zeros)


@dataclass(slots=True)
class FailureStep:
    """What one counted failure of each of k keys did."""

    mean: Floats
    """The mean of R after it, shape (k,)."""
    warned: Bools
    """It brought the mean to warn."""
    tripped: Bools
    """It brought the mean to trip."""


def likelihoods(p0: Floats, odds: tuple[float, ...]) -> tuple[Floats, Floats, Floats]:
    """L0, L1 and the resting value L0 / (1 - L0) for each null and multiplier, shape (k, odds) each."""
    theta = np.array(odds)
    excess = (theta - 1.0) * p0[:, None]
    l0 = 1.0 / (1.0 + excess)
    return l0, theta * l0, 1.0 / excess


def fold_successes(r: Floats, p0: Floats, successes: Ints, odds: tuple[float, ...]) -> Floats:
    """R after so many successes, by the closed form."""
    l0, _, rest = likelihoods(p0, odds)
    decay = power(l0, successes)
    return decay * r + rest * (1.0 - decay)


def mean_r(r: Floats) -> Floats:
    """The mean over the components, added in their order."""
    total: Floats = r[:, 0]
    for j in range(1, r.shape[1]):
        total = total + r[:, j]
    mean: Floats = total / r.shape[1]
    return mean


def count_failure(state: FailureState, at_us: Ints, params: FailureParams) -> FailureStep:
    """Apply one counted failure to every key, in place.

    In this order: the successes since the last one are folded in with the old null and learned; the null is taken
    anew from what has been learned; the failure is applied with it.

    Args:
        state: k keys; their ``successes`` are those before this failure.
        at_us: the time of each failure in microseconds, shape (k,).
        params: the settings.
    """
    before = fold_successes(state.r, state.p0, state.successes, params.odds)
    mean_before = mean_r(before)
    _track_run(state, mean_before, at_us)
    learn_successes(state, params)
    renew_null(state, params)
    _, l1, _ = likelihoods(state.p0, params.odds)
    state.r = np.minimum((before + 1.0) * l1, _CEILING)
    mean = mean_r(state.r)
    suspect = mean >= params.warn
    _learn(state, (~suspect).astype(np.int64), 1, params)
    state.successes = np.zeros_like(state.successes)
    state.settled = np.zeros_like(state.settled)
    state.suspect_left = successes_until_below(state, suspect, params)
    return FailureStep(mean, suspect & (mean_before < params.warn), mean >= params.trip)


def renew_null(state: FailureState, params: FailureParams) -> None:
    """Take the null from the learned counts."""
    if params.known_null is None:
        state.p0 = params.null().p0(state.learned_calls, state.learned_failures)


def _track_run(state: FailureState, mean_before: Floats, at_us: Ints) -> None:
    # After successes alone the mean tends to at most 1 / p0 (0.31 / p0 for the shipped odds): evidence at rest.
    rested = mean_before <= 1.0 / state.p0
    state.run_calls = np.where(rested, 1, state.run_calls + state.successes + 1)
    state.run_failures = np.where(rested, 1, state.run_failures + 1)
    state.run_since = np.where(rested, at_us, state.run_since)


def learn_successes(state: FailureState, params: FailureParams) -> None:
    """Learn the successes since the last counted failure, but for those settled already or made while suspect."""
    skipped = np.maximum(state.settled, np.maximum(state.suspect_left - 1, 0))
    _learn(state, np.maximum(state.successes - skipped, 0), 0, params)


def _learn(state: FailureState, calls: Ints, failed: int, params: FailureParams) -> None:
    """Add calls (all successes, or one failure each) to the filling block, and move full blocks along."""
    period = params.period
    filled = state.pending_calls + calls
    failures = state.pending_failures + (calls if failed else 0)
    blocks = filled // period
    one, more = blocks >= 1, blocks >= 2
    # The first full block carries the pending failures; a second and later one of the same run are successes only.
    state.learned_calls = (
        state.learned_calls + np.where(one, state.parked_calls, 0) + np.where(more, period * (blocks - 1), 0)
    )
    state.learned_failures = (
        state.learned_failures + np.where(one, state.parked_failures, 0) + np.where(more, failures, 0)
    )
    state.parked_calls = np.where(one, period, state.parked_calls)
    state.parked_failures = np.where(more, 0, np.where(one, failures, state.parked_failures))
    state.pending_calls = filled - blocks * period
    state.pending_failures = np.where(one, 0, failures)


def successes_until_below(state: FailureState, suspect: Bools, params: FailureParams) -> Ints:
    """How many successes after the last counted failure bring the mean below warn, 0 where it is not suspect.

    Above warn the mean falls at every success (while warn p0 is well above 1), so bisection finds the first.
    """
    result = np.zeros(len(suspect), dtype=np.int64)
    rows = np.flatnonzero(suspect)
    if len(rows) == 0:
        return result
    r, p0 = state.r[rows], state.p0[rows]
    high = np.ones(len(rows), dtype=np.int64)
    above = mean_r(fold_successes(r, p0, high, params.odds)) >= params.warn
    while above.any():
        high = np.where(above, high * 2, high)
        above = mean_r(fold_successes(r, p0, high, params.odds)) >= params.warn
    low = high // 2
    while (high - low > 1).any():
        middle = (low + high) // 2
        above = mean_r(fold_successes(r, p0, middle, params.odds)) >= params.warn
        low = np.where(above, middle, low)
        high = np.where(above, high, middle)
    result[rows] = high
    return result


def restart(state: FailureState) -> None:
    """Begin the statistic anew, as at a trip; what the null has learned stays."""
    for name in ("successes", "settled", "suspect_left", "run_calls", "run_failures", "run_since"):
        setattr(state, name, np.zeros_like(state.successes))
    state.r = np.zeros_like(state.r)
