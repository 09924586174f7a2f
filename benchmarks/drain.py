"""Drains one topic with the worker, everything on, and with a bare consume loop: how near the worker is to the limit.

    python benchmarks/drain.py --json

Measured between the group's first commit and its last, as the broker sees them: start-up and the first join are
outside for both. The input is written once; each run of the worker starts with empty state.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from functools import partial

import click

from benchmarks._contenders import CORES, bare, measure, temporary_folder
from benchmarks._events import Workload
from benchmarks._harness import Report, Run, Target, emit, interleave, median_of, options, ratio_of
from benchmarks._input import PARTITIONS, ending_now, prepare
from benchmarks._kafka import Cluster, broker
from benchmarks._worker import worker
from fuseboard_streams.worker.source import PIECE

TARGETS = {"ratio_to_bare": Target(at_least=0.6), "cpu_s_per_million": Target(at_most=3.0)}
"""The lines of this benchmark."""

ALL = "" if CORES == 1 else f"_x{CORES}"
"""Suffix of a contender with a process per core."""


def metrics(runs: list[Run]) -> dict[str, float]:
    """The benchmark's figures: medians over the rounds, ratios within each round."""
    found = {
        "ratio_to_bare": ratio_of(runs, "worker", "bare"),
        "ratio_to_bare_in_pieces": ratio_of(runs, "worker", f"bare_{PIECE}"),
        "ratio_to_bare_all_cores": ratio_of(runs, f"worker{ALL}", f"bare{ALL}"),
        "events_per_s": median_of(runs, "worker", "events_per_s"),
        "events_per_s_all_cores": median_of(runs, f"worker{ALL}", "events_per_s"),
        "cpu_s_per_million": median_of(runs, "worker", "cpu_s_per_million"),
        "cpu_s_per_million_bare": median_of(runs, "bare", "cpu_s_per_million"),
        "cpu_s_per_million_bare_in_pieces": median_of(runs, f"bare_{PIECE}", "cpu_s_per_million"),
        "cpu_s_per_million_all_cores": median_of(runs, f"worker{ALL}", "cpu_s_per_million"),
        "rss_mb": median_of(runs, "worker", "rss_mb"),
    }
    measured = {name for run in runs if run.contender == "worker" for name in run.values}
    stages = sorted(name for name in measured if name.startswith("us_per_event_"))
    return found | {name: median_of(runs, "worker", name) for name in stages}


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--actors", default=1_000, show_default=True, help="Actors the events are spread over.")
@click.option("--bootstrap", default=None, help="A cluster to use instead of starting Apache Kafka.")
@options(events=5_000_000)
def main(events: int, actors: int, repetitions: int, bootstrap: str | None, as_json: bool, check: bool) -> None:
    """Write the topic, drain it with every contender in turn, report."""
    workload = Workload(events, actors=actors)
    workload = Workload(events, actors=actors, start_us=ending_now(workload))
    with broker(bootstrap) as address, temporary_folder() as logs:
        source = prepare(Cluster(address), workload, logs)
        contenders = [bare(source), bare(source, records=PIECE), worker(source)]
        if CORES > 1:
            contenders += [bare(source, CORES), worker(source, CORES)]
        runs = interleave({each.name: partial(measure, source, each) for each in contenders}, repetitions)
    parameters = {"events": events, "actors": actors, "tools": workload.tools, "partitions": PARTITIONS}
    notes = [
        "bare: the worker's consumer, 50,000 at a time, touching value and length of every record, as many processes.",
        f"bare_{PIECE}: the same, consuming in the pieces in which the worker does: the fastest bare loop there is.",
        "Rates and CPU lie between a group's first and last commit; us_per_event_* is the loop's own clock.",
    ]
    emit(Report("drain", metrics(runs), runs, parameters, TARGETS, notes), as_json=as_json, check=check)


if __name__ == "__main__":
    main()
