"""Kills and freezes workers at random instants under load, and compares what they wrote with an uninterrupted run.

    python benchmarks/kill.py --kills 300 --stops 60 --json

Several workers share the partitions. During each part of a long history one of them is killed with SIGKILL, or stopped
with SIGSTOP past its session and continued. At the end every output topic but `state` and `heartbeats` is read
committed and compared record by record, in order per partition, with that of one worker that nobody disturbed, and
the signals and commands of that one with what the pure core decides.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import secrets
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from benchmarks._contenders import temporary_folder
from benchmarks._harness import Report, Run, Target, console, emit
from tests.support.kafka_server import ApacheKafka
from tests.support.oracle_kills import Plan, Result, oracle

if TYPE_CHECKING:
    from collections.abc import Iterator

SESSION_MS = 3_000
"""Shorter than the worker's default, so that a dead worker's shards move sooner; nothing else depends on it."""


@contextmanager
def _broker(bootstrap: str | None) -> Iterator[str]:
    if bootstrap is not None:
        yield bootstrap
        return
    with ApacheKafka(properties={"group.min.session.timeout.ms": "1000"}) as kafka:
        yield kafka.bootstrap


def report(plan: Plan, result: Result) -> Report:
    """The figures of a run."""
    compared = sum(sum(each.compared.values()) for each in (result.comparison, *result.replayed.values()))
    metrics = {
        "kills": result.kills,
        "outputs_compared": compared,
        "differences": result.differences,
        "stops": result.stops,
        "young_kills": result.young_kills,
        "fenced": result.events["fenced"],
        "inputs": result.inputs,
    }
    runs = [
        Run("uninterrupted", 0, {"seconds": result.seconds["uninterrupted"]}),
        Run("disturbed", 0, {"seconds": result.seconds["disturbed"], "workers": result.workers}),
        Run("core", 0, {"differences": result.core.differences, "outputs": sum(result.core.compared.values())}),
    ]
    notes = [
        f"{name}: " + ", ".join(f"{kind} {count}" for kind, count in counts.most_common())
        for name, counts in {**result.tally, "killed after": result.killed_at, "events": result.events}.items()
    ]
    notes.append("compared: " + ", ".join(f"{name} {count}" for name, count in result.comparison.compared.items()))
    every = (result.core, result.comparison, *result.replayed.values())
    notes += [f"first difference: {each.first}" for each in every if each.first is not None]
    targets = {"kills": Target(at_least=plan.kills), "differences": Target(at_most=0)}
    return Report("kill", {name: float(value) for name, value in metrics.items()}, runs, asdict(plan), targets, notes)


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--kills", default=50, show_default=True, help="SIGKILLs of workers that have done something.")
@click.option("--stops", default=None, type=int, help="SIGSTOPs past the session.  [default: a fifth of the kills]")
@click.option("--seed", default=1, show_default=True, help="Of the input, the victims and the instants.")
@click.option("--workers", default=3, show_default=True, help="Workers at a time.")
@click.option("--chunks", default=5, show_default=True, help="Input between two kills, in chunks of 480 calls.")
@click.option(
    "--rules",
    default=0,
    show_default=True,
    help="Changes of the rules meanwhile. With any, all topics are written, tools go down for all, and each run is "
    "compared with what its journals give.",
)
@click.option("--session-timeout-ms", default=SESSION_MS, show_default=True, help="Session timeout of the workers.")
@click.option("--bootstrap", default=None, help="A cluster to use instead of starting Apache Kafka.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--check", is_flag=True, help="Exit 1 if a line is missed.")
def main(
    kills: int,
    stops: int | None,
    seed: int,
    workers: int,
    chunks: int,
    rules: int,
    session_timeout_ms: int,
    bootstrap: str | None,
    as_json: bool,
    check: bool,
) -> None:
    """Kill, compare, report."""
    plan = Plan(
        kills,
        kills // 5 if stops is None else stops,
        seed,
        workers,
        session_timeout_ms=session_timeout_ms,
        chunks=chunks,
        several=rules > 0,
        rules=rules,
    )
    with _broker(bootstrap) as address, temporary_folder() as folder:
        result = oracle(address, f"kill-{secrets.token_hex(3)}.", plan, folder, say=console.print)
    emit(report(plan, result), as_json=as_json, check=check)


if __name__ == "__main__":
    main()
