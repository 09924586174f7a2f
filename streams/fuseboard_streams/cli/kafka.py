"""Reading our topics from the command line."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from fuseboard_schemas.errors import ConfigurationError, FuseboardError
from fuseboard_schemas.registry import PackagedResolver, Registry, RegistryResolver
from fuseboard_streams.kafka_errors import BrokerErrors, explain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from confluent_kafka import Message

    from fuseboard_schemas.registry import Resolver
    from fuseboard_streams.cli.config import Connection

METADATA_TIMEOUT_S: Final = 10.0


class MissingTopicError(ConfigurationError):
    """A topic is not there."""

    def __init__(self, topic: str, bootstrap: str) -> None:
        super().__init__(
            f"Topic {topic!r} does not exist on {bootstrap}. Create the topics with `fuseboard topics apply`, or check "
            "--prefix."
        )


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition and the offsets it has: [low, high)."""

    number: int
    low: int
    high: int


class Reader:
    """A consumer without a group that reads chosen partitions of our topics; nothing is ever committed."""

    def __init__(self, connection: Connection, *, uncommitted: bool = False) -> None:
        self.bootstrap = connection.bootstrap
        self.timeout_s = METADATA_TIMEOUT_S
        """How long the broker may take to answer a request."""
        self._errors = BrokerErrors()
        settings: dict[str, Any] = {
            **connection.client_settings(),
            "group.id": "fuseboard-cli",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_uncommitted" if uncommitted else "read_committed",
            "auto.offset.reset": "earliest",
            # The end of a partition shows after one empty fetch: a command should not wait half a second for it.
            "fetch.wait.max.ms": 50,
            "error_cb": self._errors,
            "log_level": 0,
        }
        self._settings = settings
        try:
            self._consumer = Consumer(settings)
        except KafkaException as error:
            raise explain(error, "while making a client", self._settings) from error
        self._registry = Registry(connection.registry) if connection.registry.get("url") else None

    def close(self) -> None:
        """Close the consumer, and the registry's client."""
        self._consumer.close()
        if self._registry is not None:
            self._registry.close()

    @property
    def resolver(self) -> Resolver:
        """What knows the schemas that values were written with: the package, and the registry if one is set."""
        return PackagedResolver() if self._registry is None else RegistryResolver(self._registry)

    def __enter__(self) -> Reader:
        """Return the reader itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the consumer."""
        self.close()

    def partitions(self, topic: str) -> list[int]:
        """Return the partition numbers of a topic.

        Raises:
            MissingTopicError: There is no such topic.
            UnreachableError: No broker answered.
        """
        found = self._call(
            f"while asking for topic {topic}", lambda: self._consumer.list_topics(timeout=self.timeout_s)
        )
        # Whoever answers is not away, whatever was heard of it before.
        self._errors.last = None
        metadata = found.topics.get(topic)
        if metadata is None or metadata.error is not None or not metadata.partitions:
            raise MissingTopicError(topic, self.bootstrap)
        return sorted(metadata.partitions)

    def watermarks(self, topic: str, partition: int) -> Partition:
        """Return the first and the next offset of a partition (the last stable one, unless uncommitted)."""
        low, high = self._call(
            f"while asking for the offsets of {topic}",
            lambda: self._consumer.get_watermark_offsets(TopicPartition(topic, partition), self.timeout_s),
        )
        return Partition(partition, low, high)

    def offsets_at(self, topic: str, partitions: Iterable[int], ts: int) -> dict[int, int]:
        """Return, per partition, the offset of the first record that arrived at or after ``ts`` (µs), or the end's."""
        wanted = [TopicPartition(topic, p, ts // 1_000) for p in partitions]
        answer = self._call(
            f"while looking up a time in {topic}",
            lambda: self._consumer.offsets_for_times(wanted, self.timeout_s),
        )
        return {p.partition: p.offset if p.offset >= 0 else self.watermarks(topic, p.partition).high for p in answer}

    def assign(self, topic: str, starts: dict[int, int]) -> None:
        """Start reading partitions of one topic at the given offsets, instead of whatever was read before."""
        self.assign_all([TopicPartition(topic, p, offset) for p, offset in starts.items()])

    def assign_all(self, positions: Sequence[TopicPartition]) -> None:
        """Start reading the given partitions at their offsets."""
        self._call("while starting to read", lambda: self._consumer.assign(list(positions)))

    def poll(self, timeout_s: float) -> tuple[list[Message], list[tuple[str, int]]]:
        """Return the next records, and the partitions (topic, number) whose end was reached meanwhile.

        Raises:
            FuseboardError: The broker is away, refuses us, or an offset is not there any more.
        """
        records: list[Message] = []
        ended: list[tuple[str, int]] = []
        for message in self._call("while reading", lambda: self._available(timeout_s)):
            error = message.error()
            if error is None:
                records.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.append((message.topic() or "", _partition(message)))
            elif not error.retriable():
                raise self._explain(KafkaException(error), "while reading")
        if not records and not ended:
            self._check_alive()
        return records, ended

    def _available(self, timeout_s: float) -> list[Message]:
        """Return what is there as soon as something is: `consume` alone would wait for the whole number or time."""
        first = self._consumer.poll(timeout_s)
        return [] if first is None else [first, *self._consumer.consume(1_000, 0)]

    def to_end(self, topic: str, starts: dict[int, int], *, timeout_s: float = 30.0) -> Iterator[Message]:
        """Yield the records of partitions up to the end they have when it is reached.

        Raises:
            UnreachableError: Nothing arrived for ``timeout_s`` seconds.
        """
        left = {(topic, p) for p in starts}
        self.assign(topic, starts)
        last = time.monotonic()
        while left:
            records, ended = self.poll(0.5)
            if records or ended:
                last = time.monotonic()
            elif time.monotonic() - last > timeout_s:
                raise self.unanswered(f"while reading {topic}")
            yield from records
            left -= set(ended)

    def record_at(self, topic: str, partition: int, offset: int, *, timeout_s: float = 30.0) -> Message | None:
        """Return the record at an offset; ``None`` if none is there (any more). Nothing is read afterwards."""
        ends = self.watermarks(topic, partition)
        if not ends.low <= offset < ends.high:
            return None
        try:
            first = next(self.to_end(topic, {partition: offset}, timeout_s=timeout_s), None)
        finally:
            self.assign_all([])
        return first if first is not None and first.offset() == offset else None

    def all_of(self, topic: str) -> Iterator[Message]:
        """Yield every record of a topic that is there now, partition by partition order kept."""
        return self.to_end(topic, dict.fromkeys(self.partitions(topic), OFFSET_BEGINNING))

    def unanswered(self, doing: str) -> FuseboardError:
        """Return the error of a broker that does not go on answering."""
        return self._explain(KafkaException(KafkaError(KafkaError._TIMED_OUT)), doing)

    def _check_alive(self) -> None:
        """Raise if librdkafka has said meanwhile that no broker is left or that we are refused."""
        seen = self._errors.last
        if seen is not None and (self._errors.refused or seen.code() == KafkaError._ALL_BROKERS_DOWN):
            raise self._explain(KafkaException(seen), "while reading")

    def _explain(self, error: Exception, doing: str) -> FuseboardError:
        """Return one of our errors for one of Kafka's."""
        # What error_cb has to say is delivered by poll only, and it names the cause.
        self._consumer.poll(0)
        return explain(error, doing, self._settings, self._errors.last)

    def _call(self, doing: str, function: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever the function returns
        """Call the client; turn its exceptions into ours."""
        try:
            return function()
        except KafkaException as error:
            raise self._explain(error, doing) from error


def _partition(message: Message) -> int:
    """Return the partition of a message that came from a broker."""
    number = message.partition()
    assert number is not None
    return number
