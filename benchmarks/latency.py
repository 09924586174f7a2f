"""Measures, under load, how long after the deciding call its breaker is visible, and applied in an agent's gate.

    python benchmarks/latency.py --json

A producer publishes healthy calls of 1,000 actors at the stated rate. Meanwhile an agent process calls failing tools
through the real SDK, one after the other, until its gate refuses them. Both times run from the end of the deciding
call (the command's own time): until the command can be read committed, by the wall clock of a reader of the topic;
and until the agent's gate has applied it, which is the time in its acknowledgement. All clocks are this machine's.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import json
import time
from functools import partial
from typing import TYPE_CHECKING

import click

from benchmarks import _victims
from benchmarks._contenders import temporary_folder
from benchmarks._events import Workload
from benchmarks._harness import Report, Target, emit, interleave, options, percentile
from benchmarks._input import PARTITIONS, create_topics
from benchmarks._kafka import Cluster, broker
from benchmarks._processes import ProcessFailed, Started, running, usage_of
from benchmarks._produce import start_producers
from benchmarks._tail import Tail
from benchmarks._worker import await_ready, command, scrape
from fuseboard_schemas.keys import actor_key, partition_for
from fuseboard_schemas.records import Cause
from fuseboard_schemas.topics import TOPICS, TopicNames
from fuseboard_streams.embedded import free_ports

if TYPE_CHECKING:
    from benchmarks._harness import Measured

RATES = (50_000, 20_000)
"""Events per second in the background."""

TARGETS = {
    "event_to_gate_p99_ms": Target(at_most=250.0),
    "event_to_gate_p99_ms_at_20000": Target(at_most=80.0),
}
"""The lines of this benchmark."""

VICTIMS = 4
"""Agents whose tools fail, each at home in another partition."""

WARM_UP_S = 8.0
"""Seconds of load before the first tool fails: the worker has caught up with its start by then."""

BROKER_WARM_UP_S = 45.0
"""Seconds of load before the first round: a fresh broker compiles itself, at first on nearly half a core."""


class Samples:
    """The times of every breaker that tripped, over all rounds, in milliseconds.

    Attributes:
        command: from the deciding call to the command, by background rate.
        gate: from the deciding call to the gate.
        refusal: from the deciding call to the first refused call, which the agent only tries every few milliseconds.
    """

    def __init__(self) -> None:
        self.command: dict[int, list[float]] = {}
        self.gate: dict[int, list[float]] = {}
        self.refusal: dict[int, list[float]] = {}

    def metrics(self, rates: tuple[int, ...]) -> dict[str, float]:
        """The benchmark's figures; those of the first rate carry the plain names."""
        found: dict[str, float] = {}
        for rate in rates:
            suffix = "" if rate == rates[0] else f"_at_{rate}"
            for name, taken in (("command", self.command), ("gate", self.gate), ("refusal", self.refusal)):
                for q in (50, 99):
                    found[f"event_to_{name}_p{q}_ms{suffix}"] = percentile(taken[rate], q)
            found[f"samples{suffix}"] = float(len(self.gate[rate]))
        return found


def victims(count: int, partitions: int) -> list[str]:
    """Names of actors that are at home in `count` different partitions, as far as there are so many."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < min(count, partitions):
        name = f"victim_{number}"
        found.setdefault(partition_for(actor_key("default", name), partitions), name)
        number += 1
    return list(found.values())


def measure(
    cluster: Cluster,
    samples: Samples,
    count: int,
    pace_s: float,
    rate: int,
    repetition: int,
    warm_up_s: float = WARM_UP_S,
) -> Measured:
    """One round at one rate: `count` tools that fail, on topics of their own."""
    prefix = f"bench-latency-{rate}-{repetition}."
    names = TopicNames(prefix)
    create_topics(cluster, prefix)
    (port,) = free_ports(1)
    settings = {"BOOTSTRAP": cluster.bootstrap, "PREFIX": prefix, "HTTP_PORT": str(port)}
    # Enough for the whole round; the producer is stopped when the round is over.
    load = Workload(rate * 3600, events_per_s=rate, name="healthy")
    with temporary_folder() as folder:
        worker = command("worker", folder / "worker.log", prefix + "group", settings)
        with running([worker]):
            await_ready(worker, port)
            producers = start_producers(
                cluster.bootstrap, load, names.tool_calls, PARTITIONS, folder, live=True, shares=1
            )
            with running(producers), _tail(cluster, names) as tail:
                time.sleep(warm_up_s)
                before, began = usage_of([worker]), time.monotonic()
                records = scrape(port)["fuseboard_records_total", "tool-calls"]
                refused = _break_tools(cluster.bootstrap, prefix, folder, count, pace_s, repetition)
                seconds = time.monotonic() - began
                rate_seen = (scrape(port)["fuseboard_records_total", "tool-calls"] - records) / seconds
                cpu = (usage_of([worker]).cpu_s - before.cpu_s) / seconds
                found = _collect(tail, names, refused)
    for name, taken in found.items():
        getattr(samples, name).setdefault(rate, []).extend(taken)
    cluster.delete([names.of(topic) for topic in TOPICS])
    figures = {f"event_to_{name}_p{q}_ms": percentile(taken, q) for name, taken in found.items() for q in (50, 99)}
    return {**figures, "background_events_per_s": rate_seen, "worker_cores": cpu}


def _tail(cluster: Cluster, names: TopicNames) -> Tail:
    followed = {names.breaker_commands: "BreakerCommand", names.enforcement_acks: "EnforcementAck"}
    return Tail(cluster.bootstrap, followed, PARTITIONS)


def _break_tools(bootstrap: str, prefix: str, folder: Path, count: int, pace_s: float, seed: int) -> dict[str, int]:
    """Run the failing agent to its end.

    Returns:
        When each breaker's first refusal was, microseconds since 1970, by breaker id.
    """
    job = _victims.Job(bootstrap, prefix, victims(VICTIMS, PARTITIONS), count, pace_s, seed)
    agent = Started(
        "failing agent", [sys.executable, "-m", "benchmarks._victims", _victims.encoded(job)], folder / "agent.log"
    )
    with running([agent]):
        agent.wait(120.0 + count * 5.0)
    lines = [json.loads(line) for line in agent.log.read_text(encoding="utf-8").splitlines() if line.startswith("{")]
    return {line["breaker_id"]: line["refused_us"] for line in lines}


def _collect(tail: Tail, names: TopicNames, refused: dict[str, int]) -> dict[str, list[float]]:
    """The times of the first trip of each breaker that refused a call.

    Raises:
        ProcessFailed: a breaker's command or acknowledgement was not seen.
    """
    acked = names.enforcement_acks
    tail.wait_for(lambda seen: refused.keys() <= {each.record.breaker_id for each in seen if each.topic == acked}, 10)
    times: dict[str, list[float]] = {"command": [], "gate": [], "refusal": []}
    seen = tail.all()
    trips = {
        each.record.breaker_id: each
        for each in reversed(seen)
        if each.topic == names.breaker_commands and each.record is not None and each.record.cause is Cause.TRIP
    }
    acks = {(each.record.breaker_id, each.record.epoch): each.record for each in seen if each.topic == acked}
    for breaker, refused_us in refused.items():
        trip = trips.get(breaker)
        ack = acks.get((breaker, trip.record.epoch)) if trip is not None else None
        if trip is None or ack is None:
            raise ProcessFailed(f"{breaker} refused a call, but its command or its acknowledgement was not seen")
        times["command"].append((trip.wall_us - trip.record.ts) / 1e3)
        times["gate"].append((ack.ts - trip.record.ts) / 1e3)
        times["refusal"].append((refused_us - trip.record.ts) / 1e3)
    return times


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--samples", "count", default=100, show_default=True, help="Tools that fail, per round and rate.")
@click.option("--rate", "rates", multiple=True, type=int, default=RATES, help="Background events/s; may be repeated.")
@click.option("--pace-ms", default=4.0, show_default=True, help="Time between two calls of a failing tool.")
@click.option("--bootstrap", default=None, help="A cluster to use instead of starting Apache Kafka.")
@options()
def main(
    count: int,
    rates: tuple[int, ...],
    pace_ms: float,
    repetitions: int,
    bootstrap: str | None,
    as_json: bool,
    check: bool,
) -> None:
    """Measure every rate in turn, in rounds, report."""
    taken = Samples()
    with broker(bootstrap) as address:
        cluster = Cluster(address)
        measure(cluster, Samples(), 1, pace_ms / 1e3, min(rates), repetitions, BROKER_WARM_UP_S)
        contenders = {f"{rate}/s": partial(measure, cluster, taken, count, pace_ms / 1e3, rate) for rate in rates}
        runs = interleave(contenders, repetitions)
    parameters = {"rates": rates, "samples_per_round": count, "pace_ms": pace_ms, "partitions": PARTITIONS}
    notes = [
        "Percentiles are of all samples of all rounds of a rate, by nearest rank.",
        "event_to_refusal includes the agent's own pause between two calls.",
        f"Before the first round the broker was under load for {BROKER_WARM_UP_S:.0f} s.",
    ]
    report = Report("latency", taken.metrics(rates), runs, parameters, TARGETS, notes)
    emit(report, as_json=as_json, check=check)


if __name__ == "__main__":
    main()
