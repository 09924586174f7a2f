"""What every benchmark shares: interleaved rounds, medians and spreads, the table, the JSON object, the machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import click
import psutil
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
"""The repository: what is started is started from here."""

Measured = Mapping[str, float]
"""What one run of one contender measured: metric name to value."""

console = Console(stderr=True, highlight=False)
"""Tables and progress go to standard error, so that `--json` leaves standard output to one object."""


@dataclass(frozen=True, slots=True)
class Target:
    """The line a metric has to reach.

    Attributes:
        at_least: smallest value that passes, or None.
        at_most: largest value that passes, or None.
    """

    at_least: float | None = None
    at_most: float | None = None

    def met(self, value: float) -> bool:
        """Whether `value` reaches the line."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    def __str__(self) -> str:
        """The line as a table shows it."""
        lines = ((">=", self.at_least), ("<=", self.at_most))
        return ", ".join(f"{relation} {value:g}" for relation, value in lines if value is not None)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one contender.

    Attributes:
        contender: what ran.
        repetition: which round, from 0; runs of one round share the machine's mood and are compared with each other.
        values: what was measured.
    """

    contender: str
    repetition: int
    values: Measured


@dataclass(slots=True)
class Report:
    """What a benchmark prints.

    Attributes:
        name: the benchmark's.
        metrics: the figures it stands for.
        runs: every run behind them.
        parameters: what was asked for: sizes, rates, settings of the peers.
        targets: the lines of the metrics that have one.
        notes: sentences a reader needs to judge the figures.
    """

    name: str
    metrics: dict[str, float]
    runs: list[Run]
    parameters: dict[str, Any] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def missed(self) -> list[str]:
        """The metrics that miss their line."""
        return [
            name for name, line in self.targets.items() if name in self.metrics and not line.met(self.metrics[name])
        ]

    def as_json(self) -> str:
        """The report as one JSON object."""
        return json.dumps(
            {
                "name": self.name,
                "metrics": {name: rounded(value) for name, value in self.metrics.items()},
                "runs": [
                    {"contender": run.contender, "repetition": run.repetition}
                    | {name: rounded(value) for name, value in run.values.items()}
                    for run in self.runs
                ],
                "machine": machine(),
                "parameters": self.parameters,
                "notes": self.notes,
            }
        )


def rounded(value: float) -> float:
    """`value` with four significant digits (integers above 10,000 are kept whole)."""
    return float(round(value)) if abs(value) >= 10_000 else float(f"{value:.4g}")


def interleave(
    contenders: Mapping[str, Callable[[int], Measured]],
    repetitions: int,
    on_run: Callable[[Run], None] | None = None,
) -> list[Run]:
    """Run every contender once a round, starting each round with the next one.

    A machine that grows slower, or a page cache that grows warmer, then favours nobody.

    Args:
        contenders: name to what runs it; it is passed the round's number.
        repetitions: how many rounds.
        on_run: told of every finished run.

    Returns:
        The runs in the order they were made.
    """
    names = list(contenders)
    runs: list[Run] = []
    for repetition in range(repetitions):
        shift = repetition % len(names)
        for name in names[shift:] + names[:shift]:
            console.print(f"[dim]round {repetition + 1} of {repetitions}: {name}[/dim]")
            run = Run(name, repetition, contenders[name](repetition))
            runs.append(run)
            console.print("  " + ", ".join(f"{key} {rounded(value):g}" for key, value in run.values.items()))
            if on_run is not None:
                on_run(run)
    return runs


def values_of(runs: Iterable[Run], contender: str, metric: str) -> list[float]:
    """Every value of `metric` that `contender`'s runs measured."""
    return [run.values[metric] for run in runs if run.contender == contender and metric in run.values]


def median_of(runs: Iterable[Run], contender: str, metric: str) -> float:
    """The median of `metric` over `contender`'s runs.

    Raises:
        ValueError: no run of that contender measured it.
    """
    values = values_of(runs, contender, metric)
    if not values:
        raise ValueError(f"no run of {contender} measured {metric}")
    return float(median(values))


def ratio_of(runs: Sequence[Run], ours: str, theirs: str, metric: str = "events_per_s") -> float:
    """The median over rounds of our figure divided by theirs in the same round.

    Raises:
        ValueError: no round measured both.
    """
    mine = {run.repetition: run.values[metric] for run in runs if run.contender == ours and metric in run.values}
    other = {run.repetition: run.values[metric] for run in runs if run.contender == theirs and metric in run.values}
    ratios = [mine[repetition] / other[repetition] for repetition in mine if other.get(repetition)]
    if not ratios:
        raise ValueError(f"no round measured {metric} of both {ours} and {theirs}")
    return float(median(ratios))


def percentile(values: Sequence[float], q: float) -> float:
    """The q-th percentile (0 to 100) by the nearest rank: always one of the values.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("a percentile needs at least one value")
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * q // 100))
    return float(ordered[int(rank) - 1])


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gb": rounded(psutil.virtual_memory().total / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "java": _java_version(),
        "load_average": [rounded(value) for value in os.getloadavg()],
        "packages": {name: _package_version(name) for name in ("confluent-kafka", "polars", "numpy", "fastavro")},
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _java_version() -> str | None:
    try:
        text = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True).stderr
    except (OSError, subprocess.CalledProcessError):
        return None
    return text.splitlines()[0] if text else None


def _package_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def table(report: Report) -> Table:
    """The report as a table: every metric, its line, and the spread of what it was made from."""
    shown = Table(title=report.name, title_justify="left")
    for heading in ("metric", "value", "line"):
        shown.add_column(heading)
    for name, value in report.metrics.items():
        line = report.targets.get(name)
        verdict = "" if line is None else f"{line} [{'green]met' if line.met(value) else 'red]missed'}[/]"
        shown.add_row(name, f"{rounded(value):,g}", verdict)
    return shown


def spreads(report: Report) -> Table:
    """Median, smallest and largest value of every metric of every contender."""
    shown = Table(title="runs", title_justify="left")
    for heading in ("contender", "metric", "median", "min", "max", "n"):
        shown.add_column(heading)
    for contender in dict.fromkeys(run.contender for run in report.runs):
        names = dict.fromkeys(key for run in report.runs if run.contender == contender for key in run.values)
        for metric in names:
            values = values_of(report.runs, contender, metric)
            row = (rounded(median(values)), rounded(min(values)), rounded(max(values)))
            shown.add_row(contender, metric, *(f"{value:,g}" for value in row), str(len(values)))
    return shown


def emit(report: Report, *, as_json: bool, check: bool) -> None:
    """Print the report and end the process: exit code 1 if `check` is set and a line is missed.

    Args:
        report: what was measured.
        as_json: print the JSON object on standard output.
        check: treat a missed line as a failure.
    """
    console.print(spreads(report))
    console.print(table(report))
    for note in report.notes:
        console.print(f"[dim]{note}[/dim]")
    if as_json:
        click.echo(report.as_json())
    missed = report.missed()
    if check and missed:
        console.print(f"[red]missed: {', '.join(missed)}[/red]")
        sys.exit(1)
    sys.exit(0)


def options(events: int | None = None, repetitions: int = 3) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options every benchmark has: `--json`, `--check`, `--repetitions`, and `--events` if it has a size.

    Args:
        events: the default number of events, or None for a benchmark without that size.
        repetitions: the default number of rounds.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        command = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)
        command = click.option("--check", is_flag=True, help="Exit 1 if a line is missed.")(command)
        command = click.option("--repetitions", default=repetitions, show_default=True, help="Rounds.")(command)
        if events is not None:
            command = click.option("--events", default=events, show_default=True, help="Input events.")(command)
        return command

    return decorate
