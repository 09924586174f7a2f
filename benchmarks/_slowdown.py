"""A tool becomes twice as slow: how soon it is found, and how often it is found when it is not.

The generator. A tool has a median latency between 20 ms and 5 s (uniform on the logarithm). A trace has a speed factor
for each tool, exp(N(0, s)) with the tool's s between 0.2 and 0.8, which all of its calls share, and each call has its
own, exp(N(0, c)) with c between 0.2 and 0.6. So slow calls come together, in slow traces. Traces make five calls of a
tool on average (geometric). Nothing drifts but by the change itself.

What the detector is given is the first call of each trace; these are independent, so that after the reference has been
drawn value by value, the rest goes from one observation above the threshold to the next. `naive` is the contrast: every
call, and the nominal share as the null.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from benchmarks._failures import Keys, gaps
from fuseboard_detectors.exceed import ExceedParams, ReferenceState, detector_params, observe
from fuseboard_detectors.failure import FailureParams

if TYPE_CHECKING:
    from fuseboard_detectors.arithmetic import Floats, Ints

CALLS_PER_TRACE = 5


@dataclass(slots=True)
class Tools:
    """The population, shape (k,) each."""

    middle: Floats
    """Logarithm of the median latency in microseconds."""
    trace: Floats
    """Deviation of a trace's factor, on the logarithm."""
    call: Floats
    """Deviation of a call's own."""
    reference: ReferenceState
    """Frozen."""

    @classmethod
    def drawn(cls, k: int, params: ExceedParams, rng: np.random.Generator) -> Tools:
        """So many tools, each with its reference."""
        middle = np.log(1_000.0) + rng.uniform(np.log(20.0), np.log(5_000.0), k)
        trace, call = rng.uniform(0.2, 0.8, k), rng.uniform(0.2, 0.6, k)
        tools = cls(middle, trace, call, ReferenceState.fresh(k))
        first = rng.normal(middle[:, None], tools.spread[:, None], (k, params.reference))
        observe(tools.reference, np.arange(k) * params.reference, np.exp(first).astype(np.int64).ravel(), params)
        return tools

    @property
    def spread(self) -> Floats:
        """Deviation of a trace's first call."""
        return np.sqrt(self.trace**2 + self.call**2)

    def reaching(self, factor: float = 1.0) -> Floats:
        """How often a trace's first call reaches the threshold when the tool is so many times as slow."""
        threshold = np.log(self.reference.threshold)
        return np.asarray(stats.norm.sf((threshold - self.middle - np.log(factor)) / self.spread))


def _keys(tools: Tools, params: ExceedParams) -> Keys:
    keys = Keys(len(tools.middle), detector_params(params))
    keys.state.p0[:] = tools.reference.p0
    return keys


def false_alarms(params: ExceedParams, k: int, horizon: int, rng: np.random.Generator) -> tuple[int, int]:
    """Trips of tools whose speed does not change, and observations; a tool that trips begins anew."""
    tools = Tools.drawn(k, params, rng)
    keys, rates = _keys(tools, params), tools.reaching()
    left, active, trips = np.full(k, horizon, dtype=np.int64), np.arange(k), 0
    while len(active):
        gap = gaps(rates[active], len(active), rng)
        fails = gap < left[active]
        keys.succeed(active[fails], gap[fails])
        left[active] -= np.where(fails, gap + 1, left[active])
        active = active[fails]
        trips += int(keys.fail(active)[1].tripped.sum())
    return trips, k * horizon


def delays(params: ExceedParams, k: int, factor: float, limit: int, rng: np.random.Generator) -> tuple[Ints, int]:
    """Traces from the change to the trip, the deciding one included, of the tools that trip within a limit.

    Also how many tools there are. Before the change each has 500 healthy observations.
    """
    tools = Tools.drawn(k, params, rng)
    keys = _keys(tools, params)
    delay = np.zeros(k, dtype=np.int64)
    tripped = np.zeros(k, dtype=np.bool_)
    for rates, horizon, healthy in ((tools.reaching(), 500, True), (tools.reaching(factor), limit, False)):
        left, active = np.full(k, horizon, dtype=np.int64), np.arange(k)
        while len(active):
            gap = gaps(rates[active], len(active), rng)
            fails = gap < left[active]
            keys.succeed(active, np.minimum(gap, left[active]))
            left[active] -= np.where(fails, gap + 1, left[active])
            active = active[fails]
            if len(active) and not healthy:
                now = keys.fail(active)[1].tripped
                delay[active[now]], tripped[active[now]] = limit - left[active[now]], True
                active = active[~now]
            elif len(active):
                keys.fail(active)
    return delay[tripped], k


def naive_false_alarms(params: ExceedParams, k: int, horizon: int, rng: np.random.Generator) -> tuple[int, int]:
    """The same without the two measures: every call is observed, and the null is the nominal share."""
    tools = Tools.drawn(k, params, rng)
    top, bottom = params.quantile
    keys = Keys(k, FailureParams(known_null=(bottom - top) / bottom))
    threshold = np.log(tools.reference.threshold)
    waiting, trips = np.zeros(k, dtype=np.int64), 0
    speed = rng.normal(0.0, tools.trace)
    for _ in range(horizon):
        speed = np.where(rng.random(k) < 1.0 / CALLS_PER_TRACE, rng.normal(0.0, tools.trace), speed)
        slow = np.flatnonzero(rng.normal(tools.middle + speed, tools.call) >= threshold)
        keys.succeed(slow, waiting[slow])
        waiting += 1
        waiting[slow] = 0
        trips += int(keys.fail(slow)[1].tripped.sum())
    return trips, k * horizon
