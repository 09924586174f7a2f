"""The runs of the detectors beside the failure detector: what `detection.py` reports of them, and their lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import _onset, _slowdown
from benchmarks._certain import burn_seconds, loop_calls
from benchmarks._detector_cost import costs
from benchmarks._failures import mean_interval, poisson_interval
from benchmarks._harness import Run, Target
from fuseboard_detectors.exceed import ExceedParams

if TYPE_CHECKING:
    from benchmarks._harness import Measured

BURN = {100: 65, 20: 648, 5: 6_480}
"""Seconds until a burn is found, by how many times the normal rate is spent."""
QUANTILES = {"p95": (95, 100), "p50": (1, 2)}
LIMIT = 5_000
"""Traces, or actions, after which a change counts as missed."""
SLOWER = 2.0
STREAMS = {"iid": None, "bursty": _onset.BURST}


def _about(value: float, tolerance: float) -> Target:
    return Target(at_least=value - tolerance, at_most=value + tolerance)


TARGETS = {f"burn_x{factor}_s": _about(seconds, 0.02 * seconds) for factor, seconds in BURN.items()} | {
    "latency_p95_false_per_million": Target(at_most=0.5),
    "latency_p95_x2_found": Target(at_least=0.99),
    "violations_e_detector_iid_false_per_million": Target(at_most=1.0),
    "violations_e_detector_bursty_false_per_million": Target(at_most=1.0),
    "violations_traces_3_in_100_iid_false_per_million": Target(at_most=7.0),
    "violations_traces_3_in_100_bursty_false_per_million": Target(at_most=7.0),
    "loop_outage_calls_max": Target(at_most=8.0),
}


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is simulated."""

    tools: int
    observations: int
    """Of each tool, for its false alarms."""
    actors: int
    actions: int
    """Of each actor, for its false alarms."""


FULL = Scale(20_000, 5_000, 20_000, 10_000)
QUICK = Scale(2_000, 2_000, 2_000, 2_000)


def _false(trips: int, events: int) -> Measured:
    low, high = poisson_interval(trips, events)
    return {
        "false_per_million": trips / events * 1e6,
        "low_95": low * 1e6,
        "high_95": high * 1e6,
        "false_trips": float(trips),
        "events": float(events),
    }


def _delay(found: np.ndarray, asked: int) -> Measured:
    mean, half = mean_interval(found)
    return {
        "mean": mean,
        "half_width_95": half,
        "p95": float(np.percentile(found, 95)),
        "found": len(found) / asked,
    }


def _burns() -> list[Run]:
    cold = burn_seconds(tuple(BURN), after_a_day=False)
    warm = burn_seconds(tuple(BURN), after_a_day=True)
    return [
        Run(f"burn_x{factor}", 0, {"s": float(first), "after_a_day_s": float(later)})
        for factor, first, later in zip(BURN, cold, warm, strict=True)
    ]


def _latencies(scale: Scale, rng: np.random.Generator) -> list[Run]:
    runs = []
    for name, quantile in QUANTILES.items():
        params = ExceedParams(quantile=quantile)
        alarms = _slowdown.false_alarms(params, scale.tools, scale.observations, rng)
        runs.append(Run(f"latency_{name}", 0, _false(*alarms)))
        found, asked = _slowdown.delays(params, scale.tools, SLOWER, LIMIT, rng)
        runs.append(Run(f"latency_{name}_x2", 0, _delay(found, asked)))
        naive = _slowdown.naive_false_alarms(params, min(scale.tools, 2_000), scale.observations, rng)
        runs.append(Run(f"latency_{name}_naive", 0, _false(*naive)))
    return runs


def _violations(scale: Scale, rng: np.random.Generator) -> list[Run]:
    runs = []
    for rule in _onset.RULES:
        for stream, burst in STREAMS.items():
            name = f"violations_{rule}_{stream}"
            alarms = _onset.false_alarms(rule, burst, scale.actors, scale.actions, rng)
            found = _onset.delays(rule, burst, scale.actors, LIMIT, rng)
            runs.append(Run(name, 0, _false(*alarms) | _delay(found, scale.actors)))
    return runs


def _loops(rng: np.random.Generator) -> list[Run]:
    runs = []
    for name, rate in (("loop_outage", 1.0), ("loop_outage_90_percent", 0.9)):
        calls = loop_calls(rate, 2_000, rng)
        runs.append(Run(name, 0, {"calls_mean": float(calls.mean()), "calls_max": float(calls.max())}))
    return runs


def other_runs(scale: Scale, rng: np.random.Generator) -> list[Run]:
    """Every run of this file."""
    cost = [Run(f"cost_{name}", 0, {"us": us}) for name, us in costs(rng).items()]
    return [*_burns(), *_latencies(scale, rng), *_violations(scale, rng), *_loops(rng), *cost]


def other_metrics(runs: list[Run]) -> dict[str, float]:
    """Their figures, each under its run's name; the least that a reader compares."""
    kept = ("s", "after_a_day_s", "false_per_million", "mean", "p95", "found", "calls_max", "us")
    names = {name: name for name in kept} | {"high_95": "false_per_million_high_95"}
    prefixes = ("burn_", "latency_", "violations_", "loop_", "cost_")
    return {
        f"{run.contender}_{names[name]}": value
        for run in runs
        if run.contender.startswith(prefixes)
        for name, value in run.values.items()
        if name in names
    }


NOTES = [
    "burn: constant spending at so many times the normal rate from nothing, with a budget of one and a half times a "
    "normal day; after_a_day: after a day of normal spending.",
    "latency: every tool has a median and deviations of its own; calls of a trace share a speed factor, so that slow "
    "ones come together; delays are in traces, since the first call of a trace is observed; every trip at unchanged "
    "speed is a false one; nothing drifts. naive: every call, and the nominal share as the null, per call.",
    "violations: traces of ten actions on average; iid, or 40% right after a violation in the same trace; 0.1% are "
    "permitted and no reason to trip; from the onset on it is 1 in 34; delays are in actions.",
    "loop: calls from the total outage of everything a session uses until eight failures in a row.",
    "cost: microseconds of an event (of a key for failure, recent, pooled and objectives_tick) in pieces of 20,000 "
    "events of 1,000 keys, the least of seven rounds; not a line, since it depends on the machine.",
]
