"""Reading the demo's topics: decisions as they become readable, and tool calls afterwards."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from fuseboard_schemas.codec import Decoder
from fuseboard_schemas.errors import UnreachableError
from fuseboard_schemas.records import BreakerCommand, Signal, ToolCall
from fuseboard_streams.demo.moments import Committed, Decided, Signalled
from fuseboard_streams.kafka_errors import BrokerErrors, explain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from confluent_kafka import Message

    from fuseboard_schemas.topics import TopicNames
    from fuseboard_streams.cli.config import Connection
    from fuseboard_streams.demo.moments import Moment

_POLL_S: Final = 0.1
_READ_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as it lies in a topic."""

    partition: int
    offset: int
    arrival_us: int
    value: bytes


class Reader:
    """Reads whole topics, read committed.

    Args:
        connection: How to reach the broker.
        partitions: Of every topic.
    """

    def __init__(self, connection: Connection, partitions: int) -> None:
        self._settings = connection.client_settings()
        self._partitions = partitions

    def consumer(self, errors: BrokerErrors) -> Consumer:
        """A consumer that belongs to no group; it reports the end of each partition."""
        return Consumer(
            {
                "log_level": 0,
                **self._settings,
                "group.id": "fuseboard-demo",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "error_cb": errors,
            }
        )

    def all_of(self, topic: str) -> list[Stored]:
        """Every record of a topic, by partition and offset.

        Raises:
            FuseboardError: The broker does not answer.
        """
        assigned = [TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(self._partitions)]
        records = [_stored(message) for message in self._read(assigned)]
        return sorted(records, key=lambda record: (record.partition, record.offset))

    def one(self, topic: str, partition: int, offset: int) -> Stored | None:
        """The record at an offset, None if it is not there.

        Raises:
            FuseboardError: The broker does not answer.
        """
        for message in self._read([TopicPartition(topic, partition, offset)]):
            found = _stored(message)
            return found if found.offset == offset else None
        return None

    def _read(self, assigned: list[TopicPartition]) -> Iterator[Message]:
        errors = BrokerErrors()
        try:
            consumer = self.consumer(errors)
        except KafkaException as failure:
            raise explain(failure, "while making a consumer", self._settings, errors.last) from failure
        try:
            consumer.assign(assigned)
            waiting = len(assigned)
            deadline = time.monotonic() + _READ_S
            while waiting and time.monotonic() < deadline:
                message = consumer.poll(_POLL_S)
                if message is None:
                    continue
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    waiting -= 1
            if waiting:
                raise UnreachableError(
                    f"{assigned[0].topic}: the broker did not hand it out to its end within {_READ_S:.0f} s. Is the "
                    "broker under heavy load? Try again."
                )
        finally:
            consumer.close()


def _stored(message: Message) -> Stored:
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    return Stored(partition, offset, message.timestamp()[1] * 1000, message.value() or b"")


def find_deciding_call(reader: Reader, topic: str, partition: int, command: BreakerCommand) -> Decided | None:
    """The call that decided a command, by the offset that the command names; None if another event lies there."""
    if command.source_offset is None or command.event_id is None:
        return None
    stored = reader.one(topic, partition, command.source_offset)
    if stored is None:
        return None
    call: ToolCall = Decoder().decode(stored.value, "ToolCall")
    if call.event_id != command.event_id:
        return None
    return Decided(command.breaker_id, command.epoch, call.event_id, call.ts)


class Watcher:
    """Notes when commands and signals can be read committed, on a thread.

    Args:
        reader: Makes the consumer.
        names: Topic names.
        partitions: Of every topic.
        tell: Takes each of them; called on the thread.
    """

    def __init__(self, reader: Reader, names: TopicNames, partitions: int, tell: Callable[[Moment], None]) -> None:
        self._consumer = reader.consumer(BrokerErrors())
        self._commands, self._signals = names.breaker_commands, names.signals
        self._partitions = partitions
        self._tell = tell
        self._decoder = Decoder()
        self._decoder.prepare("BreakerCommand", "Signal")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def __enter__(self) -> Watcher:
        self._consumer.assign(
            [
                TopicPartition(topic, number, OFFSET_BEGINNING)
                for topic in (self._commands, self._signals)
                for number in range(self._partitions)
            ]
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            message = self._consumer.poll(_POLL_S)
            at_us = time.time_ns() // 1000
            if message is not None and message.error() is None and message.value() is not None:
                self._take(message, at_us)

    def _take(self, message: Message, at_us: int) -> None:
        record: Any
        if message.topic() == self._commands:
            record = self._decoder.decode(message.value(), "BreakerCommand")
            assert isinstance(record, BreakerCommand)
            self._tell(Committed(record, at_us))
        else:
            record = self._decoder.decode(message.value(), "Signal")
            assert isinstance(record, Signal)
            self._tell(Signalled(record, at_us))
