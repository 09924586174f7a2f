"""Follows topics read committed from their present ends, and notes when each record became visible."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from fuseboard_schemas.codec import Decoder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self


@dataclass(frozen=True, slots=True)
class Seen:
    """A record, and when it became visible.

    Attributes:
        topic: full name of its topic.
        partition: its partition.
        record: decoded; None for a tombstone.
        wall_us: wall clock when it was read, microseconds since 1970.
        at: monotonic clock at the same moment, seconds.
    """

    topic: str
    partition: int
    record: Any
    wall_us: int
    at: float


class Tail:
    """A thread that reads topics and keeps what it has seen, from when the block is entered until it is left.

    Args:
        bootstrap: the cluster.
        topics: full name of each topic to the name of its record.
        partitions: of each topic.
    """

    def __init__(self, bootstrap: str, topics: Mapping[str, str], partitions: int) -> None:
        self._records = dict(topics)
        self._decoder = Decoder()
        self._changed = threading.Condition()
        self._seen: list[Seen] = []
        self._failure: Exception | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="tail", daemon=True)
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"bench-tail-{time.monotonic_ns()}",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                # Both ways of waiting at the broker end as soon as there is a record.
                "fetch.min.bytes": 1,
            }
        )
        # An end is asked for now: a partition whose end is only looked up later would miss what comes before.
        self._consumer.assign([self._end(topic, number) for topic in topics for number in range(partitions)])

    def _end(self, topic: str, partition: int) -> TopicPartition:
        _, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
        return TopicPartition(topic, partition, high)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._thread.join()
        self._consumer.close()

    def all(self) -> list[Seen]:
        """Everything seen so far.

        Raises:
            Exception: what ended the reading, if something did.
        """
        with self._changed:
            if self._failure is not None:
                raise self._failure
            return list(self._seen)

    def wait_for(self, enough: Callable[[list[Seen]], bool], timeout_s: float) -> bool:
        """Wait until `enough` of everything seen so far says so; false if it does not within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not enough(self.all()):
            with self._changed:
                self._changed.wait(0.1)
            if time.monotonic() > deadline:
                return False
        return True

    def forget(self) -> None:
        """Drop what has been seen so far."""
        with self._changed:
            self._seen.clear()

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._take()
        except Exception as failure:
            with self._changed:
                self._failure = failure
                self._changed.notify_all()

    def _take(self) -> None:
        message = self._consumer.poll(0.1)
        if message is None:
            return
        wall_us, at = time.time_ns() // 1000, time.monotonic()
        error = message.error()
        if error is not None:
            if error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT):
                return
            raise KafkaException(error)
        topic, value = message.topic() or "", message.value()
        record = None if value is None else self._decoder.decode(value, self._records[topic])
        with self._changed:
            self._seen.append(Seen(topic, message.partition() or 0, record, wall_us, at))
            self._changed.notify_all()
