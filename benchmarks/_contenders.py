"""Who drains the topic: how each contender is started, and what one run of it measures."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._environments import FAUST, PEERS, QUIX, kafka_streams, python_with
from benchmarks._kafka import Cluster, Curve, follow
from benchmarks._processes import Started, running
from fuseboard_schemas import catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchmarks._harness import Measured

CORES = os.cpu_count() or 1
"""How many processes or threads a contender that uses the whole machine has."""


@dataclass(frozen=True, slots=True)
class Input:
    """The topic to drain.

    Attributes:
        cluster: where it is.
        topic: its name.
        partitions: how many it has.
        events: how many records it holds.
        prefix: of all our topics beside it.
    """

    cluster: Cluster
    topic: str
    partitions: int
    events: int
    prefix: str


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of draining the topic.

    Attributes:
        name: what it is called in the results.
        start: starts its processes, given the group's id and an empty folder.
        events: stop after so many records, if it would take too long to drain them all.
        clean: removes the topics that a run left on the broker, given the group's id; before and after each run.
        seconds: stop so long after its first commit, for a contender of unknown speed.
        timeout_s: how long a run may take.
        watch: called at each sample of a run.
        extra: what is to be added to a run's figures, after it.
    """

    name: str
    start: Callable[[str, Path], Sequence[Started]]
    events: int
    clean: Callable[[str], None]
    seconds: float | None = None
    timeout_s: float = 1800.0
    watch: Callable[[], None] = lambda: None
    extra: Callable[[], Measured] = dict


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for the length of the block: state, logs."""
    folder = Path(tempfile.mkdtemp(prefix="fuseboard-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_once(source: Input, contender: Contender, repetition: int) -> Curve:
    """Let `contender` drain the topic once and record its progress."""
    group = f"bench-{contender.name}-{repetition}"
    contender.clean(group)
    with temporary_folder() as folder:
        processes = contender.start(group, folder)
        with running(processes):
            curve = follow(
                source.cluster,
                group,
                source.topic,
                source.partitions,
                processes,
                min(contender.events, source.events),
                contender.timeout_s,
                contender.seconds,
                contender.watch,
            )
    contender.clean(group)
    return curve


def measure(source: Input, contender: Contender, repetition: int) -> Measured:
    """One run's figures, over the whole way and, with the prefix `warm_`, over its second half."""
    curve = run_once(source, contender, repetition)
    warm = curve.between(0.5)
    return {
        **curve.between(),
        "warm_events_per_s": warm["events_per_s"],
        "warm_cpu_s_per_million": warm["cpu_s_per_million"],
        **contender.extra(),
    }


BATCH = 50_000
"""Records of the bare loop's batch: half the worker's. With more it only gets slower."""


def bare(source: Input, processes: int = 1, *, records: int = BATCH) -> Contender:
    """The limit: `processes` bare consume loops that ask for so many records at a time."""

    def start(group: str, folder: Path) -> list[Started]:
        command = [sys.executable, "-m", "benchmarks._bare", source.cluster.bootstrap, source.topic, group]
        command.append(str(records))
        return [Started(f"bare loop {number}", command, folder / f"bare-{number}.log") for number in range(processes)]

    name = "bare" if records == BATCH else f"bare_{records}"
    return Contender(_named(name, processes), start, source.events, lambda group: None)


def _named(name: str, processes: int) -> str:
    return name if processes == 1 else f"{name}_x{processes}"


def _peer_clean(source: Input) -> Callable[[str], None]:
    """Peers name their own topics after the group."""

    def clean(group: str) -> None:
        source.cluster.delete([name for name in source.cluster.topics_starting("") if group in name])

    return clean


def _settings(source: Input, group: str, state: Path, **more: Any) -> dict[str, str]:  # noqa: ANN401
    """What a peer is told through its environment."""
    state.mkdir(parents=True, exist_ok=True)
    settings = {
        "bootstrap": source.cluster.bootstrap,
        "topic": source.topic,
        "partitions": source.partitions,
        "group": group,
        "schema": str(catalogue.AVSC / "ToolCall.avsc"),
        "state": str(state),
        **more,
    }
    return {"PEER_SETTINGS": json.dumps(settings)}


def faust(source: Input, events: int, processes: int = CORES) -> Contender:
    """Faust with a table in memory and its changelog, one process per core."""
    python = python_with("faust", FAUST)

    def start(group: str, folder: Path) -> list[Started]:
        command = [str(python), str(PEERS / "faust_app.py"), "worker", "--without-web", "-l", "warn"]
        settings = {"guarantee": "exactly_once", "max_poll_records": 5_000, "buffer": 16_384}
        return [
            Started(
                f"Faust worker {number}",
                command,
                folder / f"faust-{number}.log",
                _settings(source, group, folder / f"faust-{number}", **settings),
            )
            for number in range(processes)
        ]

    return Contender(_named("faust", processes), start, events, _peer_clean(source))


def quix(source: Input, events: int, processes: int = CORES) -> Contender:
    """Quix Streams with state, exactly once, one process per core."""
    python = python_with("quix", QUIX)

    def start(group: str, folder: Path) -> list[Started]:
        more = {"commit_interval_s": 1.0, "consumer": {"fetch.message.max.bytes": 4_194_304}}
        return [
            Started(
                f"Quix application {number}",
                [str(python), str(PEERS / "quix_app.py")],
                folder / f"quix-{number}.log",
                _settings(source, group, folder / f"quix-{number}", **more),
            )
            for number in range(processes)
        ]

    return Contender(_named("quix", processes), start, events, _peer_clean(source))


KAFKA_STREAMS: Mapping[str, str] = {
    "processing.guarantee": "exactly_once_v2",
    # A quarter of a gigabyte holds every key: each is written once per commit, however often it changes.
    "statestore.cache.max.bytes": str(256 * 2**20),
    "commit.interval.ms": "1000",
    "poll.ms": "50",
    "buffered.records.per.partition": "20000",
    "consumer.max.poll.records": "10000",
    "consumer.max.partition.fetch.bytes": str(4 * 2**20),
    "consumer.fetch.max.bytes": str(50 * 2**20),
    "consumer.receive.buffer.bytes": str(2**20),
    "producer.linger.ms": "50",
    "producer.batch.size": str(2**18),
    "producer.compression.type": "lz4",
    "auto.offset.reset": "earliest",
    "replication.factor": "1",
    "peer.projected": "true",
}
"""How the Kafka Streams peer is tuned."""

JVM = ("-Xms1g", "-Xmx2g", "-XX:+UseParallelGC")
"""Its JVM: the collector with the most throughput."""


def streams(source: Input, threads: int = CORES, settings: Mapping[str, str] = KAFKA_STREAMS) -> Contender:
    """Kafka Streams, exactly once, RocksDB under a record cache, one process with `threads` threads."""
    java, *classpath = kafka_streams()

    def start(group: str, folder: Path) -> list[Started]:
        lines = {
            **settings,
            "application.id": group,
            "bootstrap.servers": source.cluster.bootstrap,
            "num.stream.threads": str(threads),
            "state.dir": str(folder / "state"),
            "peer.topic": source.topic,
            "peer.schema": str(catalogue.AVSC / "ToolCall.avsc"),
        }
        file = folder / "streams.properties"
        file.write_text("".join(f"{key}={value}\n" for key, value in lines.items()), encoding="utf-8")
        argv = [
            java,
            *JVM,
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            *classpath,
            "fuseboard.bench.Peer",
            str(file),
        ]
        return [Started("Kafka Streams", argv, folder / "streams.log")]

    return Contender("kafka_streams", start, source.events, _peer_clean(source))
