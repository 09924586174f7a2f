"""Latency and cost per call: does a value exceed its reference quantile more often than it used to?

A tool's first observations fill a histogram of whole numbers. When there are enough of them the reference is frozen:

* the threshold is the lowest bin edge that at most the nominal share (5% for the quantile 95%) of them reach, so that
  how often it was reached is known exactly;
* the null is the 99% quantile of the posterior of reaching it, Beta(1/2 + f, 1/2 + n - f) after f of n (Jeffreys).

From then on every observation is one Bernoulli event, reached or not, for the e-detector of `failure`, whose null is
set to this one and not learned (`detector_params`). With the nominal share as the null, and every call observed, calls
of slow traces would trip a healthy tool 570 times per million (simulated): calls of one trace share what makes it slow.
So **at most one observation of a trace and tool is given, the first**; `seen.first_times` remembers which were.
The delay to a trip is therefore one in traces, not in calls.

The bins grow by 13%: with ``lowest`` = 1 ms there are 128 from below 1 ms to above 70 minutes, and the threshold lies
within 13% above the reference quantile. A change by less than a bin's width may go unseen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors.beta import beta_quantile
from fuseboard_detectors.failure import FailureParams
from fuseboard_detectors.segments import I64, Bools, Places, ordinals, owners, sizes
from fuseboard_schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from fuseboard_detectors.arithmetic import Floats

U16: TypeAlias = NDArray[np.uint16]

BINS: Final = 128
_GROWTH: Final = (113, 100)
_HIGHEST: Final = 1.0 - 1e-9
"""Nothing is more frequent than always; here nothing more is ever found."""
_LARGEST_REFERENCE: Final = 50_000
"""Counts of a reference must fit into 16 bits."""


@dataclass(frozen=True, slots=True)
class ExceedParams:
    """Settings of a reference."""

    quantile: tuple[int, int] = (95, 100)
    """Of the reference, as a ratio of whole numbers."""
    reference: int = 1_000
    """Observations that make it."""
    lowest: int = 1_000
    """The lowest bin edge, in the unit of the values: 1,000 microseconds; for costs, 10 micro-dollars."""
    posterior: float = 0.99
    """The null is this quantile of the posterior."""
    floor: float = 0.005
    """The null is never below this rate."""

    def __post_init__(self) -> None:
        top, bottom = self.quantile
        if not 0 < top < bottom:
            raise ConfigurationError(
                f"a reference has the quantile {top}/{bottom}, expected one between 0 and 1: correct it."
            )
        if not 100 <= self.reference <= _LARGEST_REFERENCE:
            raise ConfigurationError(
                f"a reference has {self.reference} observations, expected 100 to {_LARGEST_REFERENCE}: correct it."
            )
        if self.lowest < 1 or not 0.0 < self.posterior < 1.0 or not 0.0 < self.floor < 1.0:
            raise ConfigurationError(
                f"a reference has settings out of their range: {self}; expected a lowest edge of at least 1 and rates "
                "between 0 and 1: correct them or remove them for the defaults."
            )


@dataclass(slots=True)
class ReferenceState:
    """What k keys know of their values: shape (k, BINS) for the histogram, (k,) for the rest."""

    counts: U16
    """Observations by bin; bin i holds the values from edge i - 1 on, below edge i."""
    seen: I64
    """Observations in the reference."""
    threshold: I64
    """An observation from here on is one Bernoulli failure; 0 until the reference is frozen."""
    p0: Floats
    """The null of reaching it; 0 until the reference is frozen."""

    @classmethod
    def fresh(cls, k: int) -> ReferenceState:
        """Keys without an observation."""
        return cls(
            np.zeros((k, BINS), dtype=np.uint16),
            np.zeros(k, dtype=np.int64),
            np.zeros(k, dtype=np.int64),
            np.zeros(k),
        )


@dataclass(slots=True)
class Observed:
    """What each of n observations of k keys was."""

    judged: Bools
    """Made after the reference was frozen: one Bernoulli event for the detector, shape (n,)."""
    reached: Bools
    """A judged one that reached the threshold, shape (n,)."""
    frozen: Bools
    """Keys whose reference was frozen by these observations, shape (k,): their ``p0`` is the detector's from now on."""


@lru_cache(maxsize=16)
def edges(lowest: int) -> I64:
    """The edges between the bins, ascending, whole numbers, shape (BINS - 1,)."""
    top, bottom = _GROWTH
    found = [lowest]
    while len(found) < BINS - 1:
        found.append(max(found[-1] + 1, -(-found[-1] * top // bottom)))
    result = np.array(found, dtype=np.int64)
    result.flags.writeable = False
    return result


def bins_of(values: I64, params: ExceedParams) -> Places:
    """The bin of each value of a reference that is being made, shape (n,)."""
    return np.searchsorted(edges(params.lowest), values, side="right")


def detector_params(params: ExceedParams, *, warn: float = 1e4, trip: float = 1e6) -> FailureParams:
    """Settings of the e-detector that takes the Bernoulli events.

    The null is not learned there: whoever owns the `failure.FailureState` sets its ``p0`` where `Observed.frozen` says
    so. One observation of a trace is counted by construction, so the cap per trace never acts.
    """
    return FailureParams(known_null=params.floor, warn=warn, trip=trip)


def largest_null(params: ExceedParams) -> float:
    """The null of a reference of which as many observations reached its threshold as may, but for the highest edge."""
    return float(_nulls(params)[-1])


def observe(state: ReferenceState, starts: Places, values: I64, params: ExceedParams) -> Observed:
    """Take the next observations of every key, in place.

    Args:
        state: k keys, each with at least one observation.
        starts: where each key's observations begin, shape (k,), ascending from 0; a key's are in their order.
        values: whole numbers, not negative, shape (n,).
        params: the settings.
    """
    n = len(values)
    place = ordinals(starts, n) + np.repeat(state.seen, sizes(starts, n))
    judged = place >= params.reference
    key = owners(starts, n)
    learning = np.flatnonzero(~judged)
    frozen = np.zeros(len(starts), dtype=np.bool_)
    if len(learning):
        np.add.at(state.counts, (key[learning], bins_of(values[learning], params)), 1)
        before = state.seen
        state.seen = before + np.bincount(key[learning], minlength=len(starts))
        frozen = (before < params.reference) & (state.seen == params.reference)
        _freeze(state, np.flatnonzero(frozen), params)
    return Observed(judged, judged & (values >= state.threshold[key]), frozen)


def _freeze(state: ReferenceState, rows: Places, params: ExceedParams) -> None:
    if len(rows) == 0:
        return
    top, bottom = params.quantile
    counts = state.counts[rows].astype(np.int64)
    # reached[:, i]: observations from edge i on.
    reached = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1][:, 1:]
    enough = reached * bottom <= params.reference * (bottom - top)
    # Where too many lie above the highest edge, that edge is the threshold; the null is then accordingly high.
    edge = np.where(enough.any(axis=1), enough.argmax(axis=1), BINS - 2)
    failures = reached[np.arange(len(rows)), edge]
    table = _nulls(params)
    state.threshold[rows] = edges(params.lowest)[edge]
    state.p0[rows] = table[np.minimum(failures, len(table) - 1)]
    more = np.flatnonzero(failures >= len(table))
    if len(more):
        state.p0[rows[more]] = _null(failures[more], params)


@lru_cache(maxsize=64)
def _nulls(params: ExceedParams) -> Floats:
    """The null after 0, 1, 2 ... observations that reached the threshold, as many as there usually are at most."""
    top, bottom = params.quantile
    return _null(np.arange(params.reference * (bottom - top) // bottom + 1), params)


def _null(failures: I64, params: ExceedParams) -> Floats:
    reached = failures.astype(np.float64)
    quantile = beta_quantile(params.posterior, 0.5 + reached, 0.5 + (params.reference - reached))
    return np.minimum(np.maximum(quantile, params.floor), _HIGHEST)


def forget(state: ReferenceState, rows: Places) -> None:
    """Begin a new reference for some keys, as after a change that somebody has accepted."""
    state.counts[rows] = 0
    state.seen[rows] = 0
    state.threshold[rows] = 0
    state.p0[rows] = 0.0
