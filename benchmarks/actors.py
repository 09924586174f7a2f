"""Compares one worker's rate with a million actors and with a thousand, and measures memory, restart and state log.

    python benchmarks/actors.py --json

Both topics begin with one visit of every tool of every actor; what is measured comes after it: calls of actors and
tools drawn independently, long enough for at least two complete checkpoint rounds of the million. Memory is the peak,
restore included. A restart runs from the start of the process until it says that it is ready.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from benchmarks import _statelog
from benchmarks._contenders import Input, run_once, temporary_folder
from benchmarks._events import Workload
from benchmarks._harness import Report, Run, Target, emit, interleave, median_of, options, ratio_of, values_of
from benchmarks._input import PARTITIONS, ending_now, prepare
from benchmarks._kafka import Cluster, broker
from benchmarks._processes import running
from benchmarks._worker import await_ready, command, worker
from fuseboard_schemas.topics import TopicNames
from fuseboard_streams.embedded import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks._contenders import Contender
    from benchmarks._harness import Measured

TARGETS = {
    "rate_ratio_1m_to_1k": Target(at_least=0.5),
    "rss_gb_1m": Target(at_most=2.0),
    "restart_s_1m": Target(at_most=10.0),
    "state_bytes_per_event": Target(at_most=100.0),
    "checkpoint_rounds_1m": Target(at_least=2.0),
}
"""The lines of this benchmark."""

SLICE_BYTES_PER_EVENT = 144
"""How much of the checkpoint each event is good for: at the default of 24 two rounds of a million actors take long."""

MANY, FEW = "many_actors", "few_actors"


def workload(events: int, actors: int, tools: int) -> Workload:
    """A visit of every tool of every actor, then `events` more calls."""
    load = Workload(events + actors * tools, actors=actors, tools=tools, sweep=True)
    return replace(load, start_us=ending_now(load))


def measure(source: Input, contender: Contender, load: Workload, repetition: int) -> Measured:
    """Drain the topic with one worker, start another on its state, and read what the state log holds."""
    # Nothing is cleaned up after the drain: the restart needs its state.
    curve = run_once(source, replace(contender, clean=_once(contender)), repetition)
    skip = load.sweep_events / load.events
    log = _statelog.read(source.cluster.bootstrap, TopicNames(source.prefix).state, source.partitions, skip)
    restart_s, restart_rss = _restart(source, f"bench-{contender.name}-{repetition}")
    found = dict(curve.part(load.sweep_events, load.events))
    return {
        **found,
        **contender.extra(),
        "rss_mb": max(found["rss_mb"], restart_rss / 2**20),
        "restart_s": restart_s,
        "state_bytes_per_event": log.bytes / max(1, log.events),
        "checkpoint_rounds": float(log.complete),
    }


def _once(contender: Contender) -> Callable[[str], None]:
    """The contender's cleaning, but only the first time."""
    cleaned: list[str] = []

    def clean(group: str) -> None:
        if not cleaned:
            contender.clean(group)
            cleaned.append(group)

    return clean


def _restart(source: Input, group: str) -> tuple[float, int]:
    """Start a worker of `group` on the state that is there.

    Returns:
        Seconds until it was ready, and its peak of resident memory in bytes.
    """
    (port,) = free_ports(1)
    settings = {"BOOTSTRAP": source.cluster.bootstrap, "PREFIX": source.prefix, "HTTP_PORT": str(port)}
    with temporary_folder() as folder:
        started = time.monotonic()
        process = command("restarted", folder / "worker.log", group, settings)
        with running([process]):
            await_ready(process, port)
            seconds = time.monotonic() - started
            return seconds, process.usage().rss_peak_bytes


def metrics(runs: list[Run]) -> dict[str, float]:
    """The benchmark's figures."""
    return {
        "rate_ratio_1m_to_1k": ratio_of(runs, MANY, FEW),
        "events_per_s_1m": median_of(runs, MANY, "events_per_s"),
        "events_per_s_1k": median_of(runs, FEW, "events_per_s"),
        "rss_gb_1m": max(values_of(runs, MANY, "rss_mb")) / 1024,
        "restart_s_1m": median_of(runs, MANY, "restart_s"),
        "restart_s_1k": median_of(runs, FEW, "restart_s"),
        "state_bytes_per_event": median_of(runs, MANY, "state_bytes_per_event"),
        "state_bytes_per_event_1k": median_of(runs, FEW, "state_bytes_per_event"),
        "checkpoint_rounds_1m": min(values_of(runs, MANY, "checkpoint_rounds")),
    }


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--many", default=1_000_000, show_default=True, help="The large number of actors.")
@click.option("--few", default=1_000, show_default=True, help="The small number of actors.")
@click.option("--tools", default=3, show_default=True, help="Tools of each actor.")
@click.option("--bootstrap", default=None, help="A cluster to use instead of starting Apache Kafka.")
@options(events=10_000_000)
def main(
    events: int,
    many: int,
    few: int,
    tools: int,
    repetitions: int,
    bootstrap: str | None,
    as_json: bool,
    check: bool,
) -> None:
    """Write both topics, drain them in turn, report."""
    # The state log is read afterwards, so nothing of it may be trimmed before; a trim is one request a minute.
    settings = {"TRIM_INTERVAL_S": "86400", "CHECKPOINT_BYTES_PER_EVENT": str(SLICE_BYTES_PER_EVENT)}
    with broker(bootstrap) as address, temporary_folder() as logs:
        cluster = Cluster(address)
        contenders = {}
        for name, actors in ((FEW, few), (MANY, many)):
            load = workload(events, actors, tools)
            source = prepare(cluster, load, logs, f"bench-{name}.")
            contenders[name] = partial(measure, source, worker(source, settings=settings, name=name), load)
        runs = interleave(contenders, repetitions)
    parameters = {"events": events, "many": many, "few": few, "tools": tools, "partitions": PARTITIONS}
    notes = [
        "The first visit of every tool of every actor is drained but not measured.",
        f"The worker writes {SLICE_BYTES_PER_EVENT} bytes of the checkpoint for each event, not the default's 24.",
    ]
    emit(Report("actors", metrics(runs), runs, parameters, TARGETS, notes), as_json=as_json, check=check)


if __name__ == "__main__":
    main()
