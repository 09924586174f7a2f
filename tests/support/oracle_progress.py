"""Follows the state log while workers run: who has committed what, and how far the inputs have been processed."""

from __future__ import annotations

import threading
from collections import Counter
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from fuseboard_schemas.codec import Decoder
from fuseboard_schemas.records import StateRecord


class Progress:
    """What the committed entries of the state log say; follows it in a thread within a ``with`` block.

    Args:
        bootstrap: The cluster.
        topic: Full name of the state topic.
        partitions: Of the topic.
    """

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "progress",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 20,
                "log_level": 2,
            }
        )
        self._consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
        self._decoder = Decoder()
        self._lock = threading.Lock()
        self._positions: dict[tuple[str, int], int] = {}
        self._batches: Counter[str] = Counter()
        self._failure: Exception | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def position(self, topic: str, partition: int) -> int:
        """The next offset of an input that is to be processed."""
        self._check()
        with self._lock:
            return self._positions.get((topic, partition), 0)

    def processed(self, topic: str) -> int:
        """How many records of an input have been processed."""
        self._check()
        with self._lock:
            return sum(offset for (name, _), offset in self._positions.items() if name == topic)

    def batches(self, writer: str) -> int:
        """How many entries with records of an input a worker has committed, by its transactional id."""
        self._check()
        with self._lock:
            return self._batches[writer]

    def _check(self) -> None:
        if self._failure is not None:
            raise AssertionError("the state log could not be followed") from self._failure

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                for message in self._consumer.consume(500, 0.05):
                    error = message.error()
                    if error is None:
                        self._take(message)
                    # A broker that restarts is away for a while; the client comes back by itself.
                    elif error.code() not in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
                        assert error.retriable(), error
        except Exception as error:
            self._failure = error
        finally:
            self._consumer.close()

    def _take(self, message: Message) -> None:
        record: StateRecord = self._decoder.decode(message.value(), "StateRecord")
        with self._lock:
            moved = False
            for each in record.inputs:
                self._positions[each.topic, record.shard] = each.next_offset
                moved |= each.next_offset > each.from_offset
            self._batches[record.writer] += moved

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join(30)
