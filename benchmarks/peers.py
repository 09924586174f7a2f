"""Drains one topic with the worker and with Kafka Streams, Quix Streams and Faust doing the same job.

    python benchmarks/peers.py --json

The job: decode Avro, count calls and failures per actor and tool, keep the counts durably, exactly once. The worker
does it and everything else it always does. Every contender uses the whole machine and reads the same topic; a
contender that would take too long drains a stated part of it, and its rate is that part's. Kafka Streams is quoted
warm: by the second half of its way, the ratio against the worker's second half.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from functools import partial

import click

from benchmarks._contenders import (
    CORES,
    JVM,
    KAFKA_STREAMS,
    Contender,
    Input,
    faust,
    measure,
    quix,
    streams,
    temporary_folder,
)
from benchmarks._environments import FAUST, QUIX
from benchmarks._events import Workload
from benchmarks._harness import Report, Run, Target, emit, interleave, median_of, options, ratio_of
from benchmarks._input import PARTITIONS, ending_now, prepare
from benchmarks._kafka import Cluster, broker
from benchmarks._worker import worker

TARGETS = {
    "ratio_to_faust": Target(at_least=100.0),
    "ratio_to_quix": Target(at_least=8.0),
    "ratio_to_kafka_streams": Target(at_least=1.3),
}
"""The lines of this benchmark."""

PEERS = ("kafka_streams", "quix", "faust")
"""Whom the worker is compared with."""


def metrics(runs: list[Run], ours: str) -> dict[str, float]:
    """The benchmark's figures; peers that did not run are left out."""
    names = {run.contender: run.contender.partition("_x")[0] for run in runs}
    found: dict[str, float] = {}
    for contender, name in names.items():
        rate = "warm_events_per_s" if name == "kafka_streams" else "events_per_s"
        if contender != ours:
            found[f"ratio_to_{name}"] = ratio_of(runs, ours, contender, rate)
        found[f"events_per_s_{name}"] = median_of(runs, contender, rate)
        found[f"cpu_s_per_million_{name}"] = median_of(
            runs, contender, rate.replace("events_per_s", "cpu_s_per_million")
        )
    return found


def contenders(source: Input, peers: tuple[str, ...], quix_events: int, faust_events: int) -> list[Contender]:
    """The worker, one process per core, and the peers asked for."""
    make = {
        "kafka_streams": lambda: streams(source),
        "quix": lambda: quix(source, quix_events),
        "faust": lambda: faust(source, faust_events),
    }
    return [worker(source, CORES), *(make[name]() for name in peers)]


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--quix-events", default=1_000_000, show_default=True, help="How many of them Quix Streams drains.")
@click.option("--faust-events", default=100_000, show_default=True, help="How many of them Faust drains.")
@click.option("--peer", "peers", multiple=True, type=click.Choice(PEERS), default=PEERS, help="Whom to run; all.")
@click.option("--bootstrap", default=None, help="A cluster to use instead of starting Apache Kafka.")
@options(events=5_000_000)
def main(
    events: int,
    quix_events: int,
    faust_events: int,
    peers: tuple[str, ...],
    repetitions: int,
    bootstrap: str | None,
    as_json: bool,
    check: bool,
) -> None:
    """Write the topic, drain it with every contender in turn, report."""
    workload = Workload(events, start_us=ending_now(Workload(events)))
    with broker(bootstrap) as address, temporary_folder() as logs:
        source = prepare(Cluster(address), workload, logs)
        rivals = contenders(source, peers, quix_events, faust_events)
        runs = interleave({each.name: partial(measure, source, each) for each in rivals}, repetitions)
    parameters = {
        "events": events,
        "quix_events": min(quix_events, events),
        "faust_events": min(faust_events, events),
        "partitions": PARTITIONS,
        "faust": FAUST,
        "quix": QUIX,
        "kafka_streams": {**KAFKA_STREAMS, "num.stream.threads": str(CORES)},
        "jvm": JVM,
    }
    notes = [
        f"Faust drained {parameters['faust_events']:,} and Quix {parameters['quix_events']:,} of the events; their "
        "rates are those parts'.",
        "Kafka Streams is quoted by the second half of its way, and so is the worker in that ratio.",
    ]
    report = Report("peers", metrics(runs, rivals[0].name), runs, parameters, TARGETS, notes)
    emit(report, as_json=as_json, check=check)


if __name__ == "__main__":
    main()
