"""Measures the detectors on synthetic streams: delays, false trips, a single tool's outage through the core.

    python benchmarks/detection.py --json
    python benchmarks/detection.py --quick

Delays and false trips drive the core's `count_failure` from failure to failure, many keys at once; a sample of the
same streams then goes call by call through a whole shard, which must trip at the same calls. The outages go through a
whole shard altogether. Budgets, latencies, violations and loops are driven through their detectors alone
(`_detector_runs.py`). No broker takes part. Every draw comes from ``--seed``.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import itertools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
import numpy as np

from benchmarks import _detector_runs
from benchmarks._core import Calls, Core
from benchmarks._failures import Keys, Tallies, delays, false_trips, mean_interval, poisson_interval
from benchmarks._harness import Report, Run, Target, console, emit
from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.records import Scope, Signal, SignalLevel
from fuseboard_streams.core.settings import CoreSettings

if TYPE_CHECKING:
    from benchmarks._failures import Tally
    from benchmarks._harness import Measured

BEFORE, AFTER = 0.005, 0.2
LEARNED = FailureParams()
KNOWN = FailureParams(known_null=BEFORE)
HISTORIES = {"known_null": (KNOWN, 1_500)} | {
    # n events are learned once n and one more block of them have been seen.
    f"learned_{n}": (LEARNED, n + LEARNED.period)
    for n in (200, 1_000, 2_000, 5_000, 10_000)
}
"""What a key knows when its failure rate changes: settings, and healthy events before the change."""
GRID = {0.02: (693, 35), 0.05: (152, 8), 0.2: (24, 1), 0.5: (8.1, 0.5), 1.0: (4, 0.1)}
"""Rates to which it changes with a known null, and the mean delay to be expected, give or take."""
BOUNDS = (0, 200, 400, 1_000)
"""Learned events by which false trips are told apart."""
TOOLS = 5
OUTAGE = 500
"""Calls of each actor while its tool is down."""
TARGETS = {
    "delay_known_null_mean": Target(at_most=26.0),
    "delay_learned_200_mean": Target(at_most=57.0),
    "delay_learned_1000_mean": Target(at_most=42.0),
    "delay_learned_2000_mean": Target(at_most=42.0),
    "delay_learned_5000_mean": Target(at_most=42.0),
    "delay_learned_10000_mean": Target(at_most=42.0),
    "false_trips_per_million": Target(at_most=1.0),
    "false_trips_per_million_cold": Target(at_most=2.5),
    "outage_actor_trips": Target(at_most=0.0),
    "shard_differences": Target(at_most=0.0),
    **{
        f"grid_{100 * rate:g}_percent_mean": Target(at_least=mean - about, at_most=mean + about)
        for rate, (mean, about) in GRID.items()
    },
    **_detector_runs.TARGETS,
}
"""The lines of this benchmark."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is simulated."""

    delay_keys: int
    population: int
    """Keys whose baselines are drawn from the population."""
    batch: int
    """Keys driven at a time."""
    horizon: int
    """Events of each."""
    actors: int
    histories: tuple[int, ...]
    """Calls of each actor before its tool breaks down."""
    sample: int
    """Keys that also go through a whole shard."""
    others: _detector_runs.Scale
    """Of the other detectors' runs."""


FULL = Size(200_000, 1_000_000, 20_000, 2_400, 10_000, (1_000, 2_500), 2_000, _detector_runs.FULL)
QUICK = Size(5_000, 20_000, 10_000, 1_400, 200, (1_000,), 100, _detector_runs.QUICK)


def run_delays(size: Size, rng: np.random.Generator) -> list[Run]:
    """Events until the trip, by what is known when the rate changes, and by the rate it changes to."""
    runs = []
    cases = [(f"delay_{name}", *case, AFTER) for name, case in HISTORIES.items()]
    cases += [(f"grid_{100 * rate:g}_percent", *HISTORIES["known_null"], rate) for rate in GRID]
    for name, params, healthy, rate in cases:
        found = delays(params, healthy=healthy, before=BEFORE, after=rate, keys=size.delay_keys, rng=rng)
        mean, half = mean_interval(found)
        p95 = float(np.percentile(found, 95))
        runs.append(Run(name, 0, {"mean": mean, "half_width_95": half, "p95": p95, "keys": float(len(found))}))
    return runs


def rates_of(tally: Tally) -> Measured:
    """False trips of a tally per million events, with the exact interval."""
    low, high = poisson_interval(tally.false, max(tally.healthy, 1))
    per_million = tally.false / max(tally.healthy, 1) * 1e6
    return {
        "false_trips_per_million": per_million,
        "low_95": low * 1e6,
        "high_95": high * 1e6,
        "false_trips": float(tally.false),
        "healthy_events": float(tally.healthy),
        "events": float(tally.events),
        "right_trips": float(tally.right),
        "false_warnings_per_million": tally.warnings / max(tally.healthy, 1) * 1e6,
    }


def run_false_trips(size: Size, rng: np.random.Generator) -> list[Run]:
    """False trips of keys whose rates are drawn from the population, by how much they have learned."""
    tallies = Tallies(BOUNDS)
    for begin in range(0, size.population, size.batch):
        keys = min(size.batch, size.population - begin)
        false_trips(LEARNED, rng.beta(LEARNED.prior_alpha, LEARNED.prior_beta, keys), size.horizon, tallies, rng)
    runs = [Run("cold", 0, rates_of(tallies.parts[0])), Run("learned_200_on", 0, rates_of(tallies.total(200)))]
    for since, until in itertools.pairwise(BOUNDS[1:]):
        runs.append(Run(f"learned_{since}_to_{until}", 0, rates_of(tallies.total(since, until))))
    runs.append(Run(f"learned_{BOUNDS[-1]}_on", 0, rates_of(tallies.total(BOUNDS[-1]))))
    return runs


def run_sample(size: Size, rng: np.random.Generator) -> Run:
    """The same streams through `count_failure` and through a shard: how many keys trip elsewhere."""
    healthy, sick, k = 700, 200, size.sample
    failed = rng.random((healthy + sick, k)) < np.repeat([BEFORE, AFTER], [healthy, sick])[:, None]
    expected = np.full(k, -1)
    keys = Keys(k, LEARNED)
    waiting = np.zeros(k, dtype=np.int64)
    for at, row in enumerate(failed):
        some = np.flatnonzero(row & (expected < 0))
        keys.succeed(some, waiting[some])
        waiting = np.where(row, 0, waiting + 1)
        if len(some):
            expected[some[keys.fail(some)[1].tripped]] = at
    got = np.full(k, -1)
    core = Core(CoreSettings(), k, calls_per_trace=1)
    calls = Calls(np.tile(np.arange(k), healthy + sick), np.zeros(k * (healthy + sick), dtype=np.int64), failed.ravel())
    for output in core.fold(calls):
        signal = output.record
        if isinstance(signal, Signal) and signal.level is SignalLevel.TRIP and signal.scope is Scope.ACTOR_TOOL:
            actor = int((signal.actor or "").removeprefix("actor-"))
            got[actor] = int(signal.event_id or 0) // k if got[actor] < 0 else got[actor]
    values = {
        "shard_differences": float(np.count_nonzero(got != expected)),
        "keys": float(k),
        "tripped": float(np.count_nonzero(expected >= 0)),
    }
    return Run("sample_through_a_shard", 0, values)


def run_outage(size: Size, history: int, rate: float, rng: np.random.Generator) -> Run:
    """One of five tools of healthy actors goes down for all of them."""
    core = Core(CoreSettings(), size.actors)
    counts = dict.fromkeys(("tool_trips", "other_tool_trips", "actor_trips", "actor_warnings"), 0)
    before = 0
    for broken, calls_each in ((False, history), (True, OUTAGE)):
        for _ in range(0, calls_each, 20):
            n = 20 * size.actors
            actor, tool = np.tile(np.arange(size.actors), 20), rng.integers(0, TOOLS, n)
            rates = np.where(broken & (tool == 0), rate, BEFORE)
            for output in core.fold(Calls(actor, tool, rng.random(n) < rates)):
                if isinstance(output.record, Signal):
                    before += not broken and output.record.level is SignalLevel.TRIP
                    if broken:
                        _note(output.record, counts)
    values = {name: float(count) for name, count in counts.items()}
    name = f"outage_{100 * rate:g}_percent_after_{history}"
    return Run(name, 0, values | {"actors": float(size.actors), "trips_before": float(before)})


def _note(signal: Signal, counts: dict[str, int]) -> None:
    trip = signal.level is SignalLevel.TRIP
    if signal.scope is Scope.ACTOR:
        counts["actor_trips" if trip else "actor_warnings"] += 1
    elif trip:
        counts["tool_trips" if signal.tool == "tool-0" else "other_tool_trips"] += 1


def metrics_of(runs: list[Run]) -> dict[str, float]:
    """The figures that have lines, and those beside them."""
    by_name = {run.contender: run.values for run in runs}
    metrics: dict[str, float] = {}
    for name, values in by_name.items():
        if name.startswith(("delay_", "grid_")):
            metrics |= {f"{name}_mean": values["mean"], f"{name}_p95": values["p95"]}
    for name, suffix in (("learned_200_on", ""), ("cold", "_cold"), ("learned_200_to_400", "_learned_200_to_400")):
        metrics[f"false_trips_per_million{suffix}"] = by_name[name]["false_trips_per_million"]
        metrics[f"false_trips_per_million{suffix}_high_95"] = by_name[name]["high_95"]
    outages = [values for name, values in by_name.items() if name.startswith("outage_")]
    metrics["healthy_events"] = by_name["learned_200_on"]["healthy_events"]
    metrics["outage_actor_trips"] = sum(values["actor_trips"] for values in outages)
    metrics["outage_actor_warnings"] = sum(values["actor_warnings"] for values in outages)
    metrics["outage_tool_trips"] = sum(values["tool_trips"] for values in outages)
    metrics["shard_differences"] = by_name["sample_through_a_shard"]["shard_differences"]
    return metrics | _detector_runs.other_metrics(runs)


NOTES = [
    "delays: events from the change 0.5% -> 20% to the trip, the deciding one included; after 1,500 healthy events "
    "with a known null, after n + 200 where n are to be learned (a block is learned one block later).",
    "false trips: one per event at which the key's true rate was not above its null; baselines drawn from "
    "Beta(0.72, 12.7), a key that trips begins anew with what it has learned; intervals are exact (Garwood).",
    "right_trips: the key's true rate was above its null at that moment (a tool that fails often from the start).",
    "outages: every actor has five tools with 20% of its calls each, and makes 500 calls meanwhile; warnings at actor "
    "scope change nothing but are published.",
    *_detector_runs.NOTES,
]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--check", is_flag=True, help="Exit 1 if a line is missed.")
@click.option("--quick", is_flag=True, help="A small run: intervals are wide.")
@click.option("--seed", default=20261123, show_default=True, help="Of every draw.")
def main(as_json: bool, check: bool, quick: bool, seed: int) -> None:
    """How soon the detectors trip, and how often they should not have."""
    os.nice(10)
    size = QUICK if quick else FULL
    rng = np.random.default_rng(seed)
    runs = run_delays(size, rng)
    console.print("[dim]delays done[/dim]")
    runs += run_false_trips(size, rng)
    console.print("[dim]false trips done[/dim]")
    runs.append(run_sample(size, rng))
    for history, rate in itertools.product(size.histories, (1.0, 0.5)):
        runs.append(run_outage(size, history, rate, rng))
        console.print(f"[dim]outage of {rate:.0%} after {history} calls done[/dim]")
    runs += _detector_runs.other_runs(size.others, rng)
    console.print("[dim]the other detectors done[/dim]")
    report = Report(
        name="detection",
        metrics=metrics_of(runs),
        runs=runs,
        parameters={"seed": seed, "quick": quick, "trip": LEARNED.trip, "before": BEFORE, "after": AFTER},
        targets=TARGETS,
        notes=NOTES,
    )
    emit(report, as_json=as_json, check=check)


if __name__ == "__main__":
    main()
