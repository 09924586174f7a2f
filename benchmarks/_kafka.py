"""The broker of a benchmark, its topics, and how far a consumer group has come."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from benchmarks._processes import ProcessFailed, Started, Usage, usage_of
from tests.support.kafka_server import ApacheKafka

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

BROKER_PROPERTIES: Mapping[str, str] = {
    # As a production broker would: members that start together are placed together, and no contender is measured
    # while its group is still finding its members.
    "group.initial.rebalance.delay.ms": "3000",
    "log.segment.bytes": "268435456",
    # A run is over before flushing or deletion would begin; neither may fall into one contender's run only.
    "log.retention.check.interval.ms": "3600000",
    "num.network.threads": "3",
    "num.io.threads": "8",
}
"""What the benchmark's broker has beyond a single node's settings."""


@contextmanager
def broker(bootstrap: str | None = None, heap_mb: int = 2048) -> Iterator[str]:
    """Apache Kafka for the length of the block.

    Args:
        bootstrap: the address of a cluster to use instead of starting one.
        heap_mb: largest heap of the one that is started.

    Yields:
        The address for `bootstrap.servers`.
    """
    # Asked to end, a benchmark unwinds like on Ctrl-C, and stops what it started.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if bootstrap is not None:
        yield bootstrap
        return
    with ApacheKafka(heap_mb=heap_mb, properties=BROKER_PROPERTIES) as kafka:
        yield kafka.bootstrap


@dataclass(frozen=True, slots=True)
class Point:
    """How far a group was at one moment.

    Attributes:
        at: monotonic seconds.
        events: records below the group's committed offsets.
        usage: what its processes had used by then.
    """

    at: float
    events: int
    usage: Usage


@dataclass(slots=True)
class Curve:
    """A group's progress over time, from its commits.

    What is measured lies between the first commit and the last: start-up, imports and the first join are outside for
    every contender in the same way, and nobody has to say itself when it began.
    """

    points: list[Point] = field(default_factory=list)

    def between(self, start: float = 0.0, end: float = 1.0) -> Mapping[str, float]:
        """Rate and cost over a part of the way.

        Args:
            start: where to begin, as a share of the events from the first commit to the last.
            end: where to stop.

        Returns:
            `events`, `seconds`, `events_per_s`, `cpu_s_per_million`, `rss_mb`.

        Raises:
            ProcessFailed: the group committed fewer than two different positions.
        """
        moved = self._progress()
        low, high = moved[0].events, moved[-1].events
        return self.part(low + start * (high - low), low + end * (high - low))

    def part(self, start: float, end: float) -> Mapping[str, float]:
        """Rate and cost between two positions, in events; see `between`."""
        moved = self._progress()
        first = next((point for point in moved if point.events >= start), moved[-1])
        last = next((point for point in moved if point.events >= end), moved[-1])
        events, seconds = last.events - first.events, last.at - first.at
        if events <= 0 or seconds <= 0:
            raise ProcessFailed("the group committed too rarely to measure this part of its way")
        cpu_s = last.usage.cpu_s - first.usage.cpu_s
        return {
            "events": float(events),
            "seconds": seconds,
            "events_per_s": events / seconds,
            "cpu_s_per_million": cpu_s / events * 1e6,
            "rss_mb": last.usage.rss_peak_bytes / 2**20,
        }

    def _progress(self) -> list[Point]:
        """The points at which the group had come further than before."""
        before = [0, *(point.events for point in self.points)]
        moved = [point for point, earlier in zip(self.points, before, strict=False) if point.events > earlier]
        if len(moved) < 2:
            raise ProcessFailed("the group committed fewer than two positions: too few events to measure a rate")
        return moved


class Cluster:
    """The administration side of a benchmark: topics made and removed, offsets asked for."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.admin = AdminClient({"bootstrap.servers": bootstrap})

    def create(self, topics: Mapping[str, Mapping[str, str]], partitions: int) -> None:
        """Create `topics` (name to configuration) and wait until every partition has a leader.

        Raises:
            KafkaException: the cluster refused one for another reason than that it exists.
        """
        wanted = [NewTopic(name, partitions, 1, config=dict(config)) for name, config in topics.items()]
        for future in self.admin.create_topics(wanted).values():
            try:
                future.result()
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
        deadline = time.monotonic() + 60
        while not all(self._ready(name, partitions) for name in topics):
            _still_before(deadline, f"the topics {', '.join(topics)} have no leaders")

    def delete(self, names: Sequence[str]) -> None:
        """Delete those of `names` that exist, and wait until they are gone."""
        here = set(self.admin.list_topics(timeout=30).topics)
        doomed = [name for name in names if name in here]
        if not doomed:
            return
        for future in self.admin.delete_topics(doomed, operation_timeout=30).values():
            future.result()
        deadline = time.monotonic() + 60
        while here & set(doomed):
            here = set(self.admin.list_topics(timeout=30).topics)
            _still_before(deadline, f"the topics {', '.join(doomed)} are still there")

    def topics_starting(self, prefix: str) -> list[str]:
        """The names of the topics that start with `prefix`."""
        return [name for name in self.admin.list_topics(timeout=30).topics if name.startswith(prefix)]

    def end_offsets(self, topic: str, partitions: int) -> dict[int, int]:
        """The end offset of each partition of `topic`, open transactions included."""
        asked = {TopicPartition(topic, number): OffsetSpec.latest() for number in range(partitions)}
        futures = self.admin.list_offsets(asked, isolation_level=IsolationLevel.READ_UNCOMMITTED)
        return {part.partition: future.result().offset for part, future in futures.items()}

    def progress(self, group: str, topic: str, partitions: int) -> Progress:
        """What tells how far `group` has come in `topic`, which has to start at offset 0."""
        return Progress(self.bootstrap, group, topic, partitions)

    def _ready(self, name: str, partitions: int) -> bool:
        found = self.admin.list_topics(name, timeout=30).topics[name]
        if len(found.partitions) < partitions:
            return False
        try:
            # Metadata names a leader before the leader itself knows; asking each for its end asks it.
            return len(self.end_offsets(name, partitions)) == partitions
        except KafkaException:
            return False


class Progress:
    """How far a group has come, asked by a consumer with its id that never joins it.

    (The admin client's `list_consumer_group_offsets` ended the process when the group's coordinator was still
    loading, with librdkafka 2.16.)
    """

    def __init__(self, bootstrap: str, group: str, topic: str, partitions: int) -> None:
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False})
        self._asked = [TopicPartition(topic, number) for number in range(partitions)]

    def committed(self) -> int:
        """The records below the group's committed offsets; 0 as long as there is no answer."""
        try:
            answer = self._consumer.committed(self._asked, timeout=5.0)
        except KafkaException:
            return 0
        return sum(max(0, part.offset) for part in answer)

    def close(self) -> None:
        """Free the consumer."""
        self._consumer.close()


def _still_before(deadline: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise ProcessFailed(f"{what} after a minute")
    time.sleep(0.05)


def follow(
    cluster: Cluster,
    group: str,
    topic: str,
    partitions: int,
    processes: Sequence[Started],
    until: int,
    timeout_s: float,
    seconds: float | None = None,
    watch: Callable[[], None] = lambda: None,
) -> Curve:
    """Record how a group comes forward until it has committed `until` records.

    Args:
        cluster: where it runs.
        group: its id.
        topic: its input.
        partitions: of that topic.
        processes: its processes; the block ends with an error if one of them fails.
        until: how many records it has to commit.
        timeout_s: how long that may take, start-up included.
        seconds: stop this long after the first commit, wherever it is: for a contender that would take too long.
        watch: called at each point.

    Returns:
        Its progress, one point every 50 ms.

    Raises:
        ProcessFailed: a process ended with an error, or it takes longer than `timeout_s`.
    """
    progress = cluster.progress(group, topic, partitions)
    try:
        return _follow(progress, group, processes, until, timeout_s, seconds, watch)
    finally:
        progress.close()


def _follow(
    progress: Progress,
    group: str,
    processes: Sequence[Started],
    until: int,
    timeout_s: float,
    seconds: float | None,
    watch: Callable[[], None],
) -> Curve:
    curve = Curve()
    deadline = time.monotonic() + timeout_s
    stop_at = float("inf")
    while True:
        over = all(process.ended() == 0 for process in processes)  # asked first: what it committed is then visible
        point = Point(time.monotonic(), progress.committed(), usage_of(processes))
        curve.points.append(point)
        watch()
        if point.events and seconds is not None and stop_at == float("inf"):
            stop_at = point.at + seconds
        if point.events >= until or point.at >= stop_at:
            return curve
        _still_running(group, processes, over, point, until, deadline)
        time.sleep(0.05)


def _still_running(
    group: str, processes: Sequence[Started], over: bool, point: Point, until: int, deadline: float
) -> None:
    """Raise ProcessFailed if nothing more can be hoped for."""
    came = f"{group} had {point.events:,} of {until:,} records"
    for process in processes:
        if process.ended() not in (None, 0):
            raise ProcessFailed(f"{came} when {process.name} ended with {process.ended()}; its log: {process.tail()}")
    if over:
        raise ProcessFailed(f"{came} when its processes had ended; the log of the first: {processes[0].tail()}")
    if point.at > deadline:
        raise ProcessFailed(f"{came} when its time was over; the log of {processes[0].name}: {processes[0].tail()}")
