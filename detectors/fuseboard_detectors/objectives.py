"""Objectives: is a share as good as it should be, over a window? They are measured, they alert, they never trip.

Events are counted good or bad in a ring of cells. A target says that the share of bad ones is to stay below a limit
(a success rate above 99.5% is a share of failures below 0.5%). The state is

* ``VIOLATED`` if so many bad ones or more would come up with probability below 5% at a share that is just met;
* ``MET`` if so few or fewer would come up with probability below 5% at a share that just is not;
* ``UNKNOWN`` otherwise, and below the minimum count.

These are the one-sided 95% bounds of Clopper and Pearson (Biometrika 26, 1934): the upper one lies below the limit
exactly where P(X <= bad) < 5% at the limit, so that no bound needs to be solved for. The binomial's distribution
function is an incomplete beta function; where n p (1 - p) is above 25,000 its fraction converges too slowly, and the
normal distribution with a correction for continuity stands in, which errs there by less than 0.0005.

A target for a percentile is one for a share: P95 < $0.10 holds where fewer than 5% of the tasks cost $0.10 or more.
Exact counts decide, no sketch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors import rings
from fuseboard_detectors.arithmetic import Floats, exp
from fuseboard_detectors.beta import beta_quantile, regularized_incomplete_beta
from fuseboard_schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from fuseboard_detectors.segments import I64, Bools, Places

I8: TypeAlias = NDArray[np.int8]

WINDOW_CELLS: Final = 24
"""Of a window: one of 24 hours covers between 23 and 24."""
CELLS: Final = 32
"""Of a ring: the others are for what is not yet judged."""
_LARGE: Final = 25_000.0
_SOME: Final = 1_000.0
_MANY: Final = 300_000.0
_SQRT_2PI: Final = 2.5066282746310002


class ObjectiveState(IntEnum):
    """What can be said of a target, in the order in which states are joined."""

    UNKNOWN = 0
    MET = 1
    VIOLATED = 2


@dataclass(frozen=True, slots=True)
class ObjectiveParams:
    """One target on a share of bad events."""

    limit: tuple[int, int]
    """The share that must not be reached (or exceeded), as a ratio of whole numbers."""
    window_us: int = 86_400_000_000
    minimum: int = 1_000
    """Fewer events say nothing."""
    grace_us: int = 0
    """Events are judged when they are so old: a session has ten minutes to show itself."""

    def __post_init__(self) -> None:
        top, bottom = self.limit
        if not 0 < top < bottom:
            raise ConfigurationError(
                f"an objective has the limit {top}/{bottom}, expected a share between 0 and 1: correct it."
            )
        if self.window_us < WINDOW_CELLS or self.window_us % WINDOW_CELLS:
            raise ConfigurationError(
                f"an objective has a window of {self.window_us} microseconds, expected a multiple of {WINDOW_CELLS}."
            )
        longest = (CELLS - WINDOW_CELLS - 1) * self.width_us
        if not 0 <= self.grace_us <= longest:
            raise ConfigurationError(
                f"an objective has a grace of {self.grace_us / 1e6:g} s in a window of {self.window_us / 1e6:g} s, "
                f"expected at most {longest / 1e6:g} s: shorten it or widen the window."
            )
        if self.minimum < 1:
            raise ConfigurationError(f"an objective has a minimum of {self.minimum} events, expected at least 1.")

    @property
    def width_us(self) -> int:
        """Of a cell."""
        return self.window_us // WINDOW_CELLS

    @property
    def cells_of_grace(self) -> int:
        """How many of the newest cells are not judged yet: of the newest one nearly nothing may have passed."""
        return -(-self.grace_us // self.width_us) + 1 if self.grace_us else 0


@dataclass(slots=True)
class ObjectiveCounts:
    """Events of k keys, shape (k, CELLS) for the rings."""

    bad: I64
    total: I64
    newest: I64
    """Stream time up to which the cells have been rolled, microseconds, shape (k,)."""

    @classmethod
    def fresh(cls, k: int) -> ObjectiveCounts:
        """Keys without an event."""
        return cls(
            np.zeros((k, CELLS), dtype=np.int64), np.zeros((k, CELLS), dtype=np.int64), np.zeros(k, dtype=np.int64)
        )


def roll(state: ObjectiveCounts, now_us: int | I64, params: ObjectiveParams) -> None:
    """Drop what is older than the ring, before anything is added or read at a time; see `rings.roll`."""
    state.newest = rings.roll((state.bad, state.total), state.newest, now_us, params.width_us)


def count(state: ObjectiveCounts, rows: Places, at_us: I64, bad: I64, total: I64, params: ObjectiveParams) -> None:
    """Add events, in place.

    A session that shows itself within its grace is given as one bad event when it is requested and as bad = -1,
    total = 0 with the time of its request when it has shown itself.

    Args:
        state: k keys, rolled to a time not before any of these.
        rows: which key each is of, shape (n,); keys may repeat.
        at_us: the time of each, microseconds, shape (n,).
        bad: how many of them were bad, shape (n,).
        total: how many there were, shape (n,).
        params: the settings.
    """
    rings.add(state.bad, state.newest, rows, at_us, bad, params.width_us)
    rings.add(state.total, state.newest, rows, at_us, total, params.width_us)


def window(state: ObjectiveCounts, params: ObjectiveParams) -> tuple[I64, I64]:
    """Bad events and all events of the window that ends where the grace begins, shape (k,) each."""
    age = rings.ages(state.newest, CELLS, params.width_us) - params.cells_of_grace
    inside = (age >= 0) & (age < WINDOW_CELLS)
    return np.where(inside, state.bad, 0).sum(axis=1), np.where(inside, state.total, 0).sum(axis=1)


def above(values: I64, limit: int, *, reached: bool) -> Bools:
    """Which tasks count against a percentile's limit, shape (n,).

    Args:
        values: what each cost, micro-dollars, shape (n,).
        limit: micro-dollars.
        reached: whether one that costs exactly as much does: yes for a target written with ``<``, no with ``<=``.
    """
    found: Bools = values >= limit if reached else values > limit
    return found


def states(state: ObjectiveCounts, params: ObjectiveParams, *, error: float = 0.05) -> I8:
    """The `ObjectiveState` of each key, rolled to now, shape (k,).

    A call takes a few milliseconds for one key as for hundreds: once a minute of stream time is often enough for
    windows of hours.

    Args:
        state: k keys.
        params: the settings.
        error: how often a state may be wrong at a share on the limit: one minus the confidence.
    """
    bad, total = window(state, params)
    found = np.full(len(bad), ObjectiveState.UNKNOWN, dtype=np.int8)
    enough = np.flatnonzero(total >= params.minimum)
    if len(enough) == 0:
        return found
    share = params.limit[0] / params.limit[1]
    few, many = tails(np.clip(bad[enough], 0, total[enough]), total[enough], share, error)
    found[enough] = np.where(many, ObjectiveState.VIOLATED, np.where(few, ObjectiveState.MET, ObjectiveState.UNKNOWN))
    return found


def tails(bad: I64, total: I64, share: float, error: float) -> tuple[Bools, Bools]:
    """Whether P(X <= bad) < error, and whether P(X >= bad) < error, for X binomial(total, share); shape (k,) each.

    The error is below one half. A binomial's median is its mean, rounded, so at most the tail on whose side of the mean
    a count lies can be so improbable, and only that one is computed.
    """
    few, many = np.zeros(len(bad), dtype=np.bool_), np.zeros(len(bad), dtype=np.bool_)
    mean = total * share
    below = bad < mean
    variance = mean * (1.0 - share)
    exact = np.flatnonzero(variance <= _LARGE)
    if len(exact):
        side = below[exact]
        # Above the mean the tail is 1 - P(X <= bad - 1).
        at_most = _at_most(
            np.where(side, bad[exact], bad[exact] - 1).astype(np.float64), total[exact].astype(np.float64), share
        )
        few[exact] = side & (at_most < error)
        many[exact] = ~side & (bad[exact] > mean[exact]) & (1.0 - at_most < error)
    normal = np.flatnonzero(variance > _LARGE)
    if len(normal):
        z = normal_quantile(error)
        away = np.abs(bad[normal] - mean[normal]) - 0.5
        far = (away > 0.0) & (away * away > z * z * variance[normal])
        few[normal], many[normal] = far & below[normal], far & ~below[normal]
    return few, many


def _at_most(x: Floats, n: Floats, share: float) -> Floats:
    """P(X <= x) for whole x below n: I_{1 - share}(n - x, x + 1), Abramowitz and Stegun 26.5.24."""
    return regularized_incomplete_beta(np.full(len(x), 1.0 - share), n - x, x + 1.0)


def bound(bad: I64, total: I64, upper: Bools, error: float) -> Floats:
    """The upper, or else the lower, one-sided bound of the share of bad events, shape (k,), for people.

    That of Clopper and Pearson, a quantile of the Beta distribution; where its routine is not exact, above a thousand
    bad events or 300,000 in all, that of Wilson (JASA 22, 1927). `states` needs neither.

    Args:
        bad: how many events of each key were bad, from 0 to ``total``, shape (k,).
        total: how many there were, shape (k,).
        upper: which bound, shape (k,).
        error: one minus the confidence, below one half.
    """
    # The lower bound of the bad ones is one minus the upper one of the good ones.
    x, n = np.where(upper, bad, total - bad).astype(np.float64), np.maximum(total, 1).astype(np.float64)
    z = normal_quantile(error)
    found = (x + z * z / 2.0 + z * np.sqrt(x * (n - x) / n + z * z / 4.0)) / (n + z * z)
    few = np.flatnonzero((np.minimum(x, n - x) <= _SOME) & (n <= _MANY))
    if len(few):
        found[few] = beta_quantile(1.0 - error, x[few] + 1.0, np.maximum(n[few] - x[few], 0.5))
    found[x >= n] = 1.0
    return np.where(upper, found, 1.0 - found)


@lru_cache(maxsize=16)
def normal_quantile(error: float) -> float:
    """The z that a standard normal value exceeds with probability ``error`` below one half, to about 1e-9.

    Bisection on the distribution function, by its series (Abramowitz and Stegun 26.2.11).
    """
    low, high = 0.0, 8.0
    for _ in range(40):
        middle = (low + high) * 0.5
        term = total = middle
        for k in range(3, 400, 2):
            term = term * middle * middle / k
            total += term
        density = float(exp(np.array([-middle * middle / 2.0]))[0]) / _SQRT_2PI
        low, high = (middle, high) if 0.5 - density * total > error else (low, middle)
    return (low + high) * 0.5


def join(*found: I8) -> I8:
    """The state of targets that must all be met, shape (k,): violated if any is, met only if all are."""
    joined = found[0]
    for each in found[1:]:
        violated = (joined == ObjectiveState.VIOLATED) | (each == ObjectiveState.VIOLATED)
        joined = np.where(violated, np.int8(ObjectiveState.VIOLATED), np.minimum(joined, each))
    return joined
