"""Reading a shard's state log from Kafka, outside the consumer group."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from fuseboard_schemas.codec import DecodeError, Decoder
from fuseboard_streams.worker.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from confluent_kafka import Consumer, Message

    from fuseboard_schemas.records import StateRecord
    from fuseboard_streams.worker.clients import Clients

PARTITIONS_HEADER: Final = "partitions"
"""Header of state records: the partition count of all topics when they were written."""
_FIRST_WINDOW: Final = 32
_WIDER: Final = 16
_READ: Final = 1_000
_ALONE_S: Final = 15.0
"""Without any answer for so long, the reader asks whether it can still find the broker."""


class Stored(NamedTuple):
    """A record of the state log as it lies there."""

    offset: int
    record: StateRecord
    partitions: int | None
    """The partition count in its header."""


class Cancelled(Exception):
    """The shards have been given to somebody else meanwhile, or the worker is stopping."""


class StateReader:
    """Reads one shard's log at a time.

    Args:
        clients: Makes the consumers.
        topic: Full name of the state topic.
        retry: Called with an error worth repeating; waits a moment, or raises.
    """

    def __init__(self, clients: Clients, topic: str, retry: Callable[[KafkaException], None]) -> None:
        self.topic = topic
        self._clients = clients
        self._retry = retry
        self._decoder = Decoder()
        self._consumer: Consumer | None = None
        self.cancelled: Callable[[], bool] = bool
        """Asked between fetches; true ends the reading with `Cancelled`."""

    def records(self, shard: int, start: int, end: int) -> Iterator[Stored]:
        """The committed records from ``start`` up to ``end``, which nothing may be open below.

        Raises:
            WorkerError: A record is not of the state log.
            Cancelled: See ``cancelled``.
        """
        if self._consumer is None:
            self._consumer = self._clients.reader(committed=True)
        for message in self._messages(self._consumer, {shard: (start, end)}):
            yield self._decode(shard, message)

    def last_ones(self, spans: Mapping[int, tuple[int, int]]) -> dict[int, Stored]:
        """The last committed records of several shards, in one go, of those that have one near their ends.

        Args:
            spans: Between which offsets, by shard.
        """
        if self._consumer is None:
            self._consumer = self._clients.reader(committed=True)
        windows = {shard: (max(start, end - _FIRST_WINDOW), end) for shard, (start, end) in spans.items()}
        found: dict[int, Message] = {}
        for message in self._messages(self._consumer, windows):
            found[message.partition() or 0] = message
        return {shard: self._decode(shard, message) for shard, message in found.items()}

    def last(self, shard: int, start: int, end: int) -> Stored | None:
        """The last committed record between two offsets, found by reading ever larger windows before the end."""
        window = _FIRST_WINDOW
        while start < end:
            begin = max(start, end - window)
            last = None
            for last in self.records(shard, begin, end):  # noqa: B007 - the last one is wanted
                pass
            if last is not None or begin == start:
                return last
            window *= _WIDER
        return None

    def uncommitted_writers(self, shard: int, stable: int, end: int) -> set[str]:
        """The transactional ids behind the records that no transaction has settled yet."""
        if stable >= end:
            return set()
        consumer = self._clients.reader(committed=False)
        try:
            return {
                self._decode(shard, each).record.writer for each in self._messages(consumer, {shard: (stable, end)})
            }
        finally:
            consumer.close()

    def close(self) -> None:
        """Let the connection go until the next takeover."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    def _messages(self, consumer: Consumer, spans: Mapping[int, tuple[int, int]]) -> Iterator[Message]:
        """What lies in each shard between two offsets, until all of it has been read."""
        left = {shard: end for shard, (start, end) in spans.items() if start < end}
        consumer.assign([TopicPartition(self.topic, shard, spans[shard][0]) for shard in left])
        heard = time.monotonic()
        while left:
            first = consumer.poll(0.05)
            if first is not None:
                heard = time.monotonic()
            elif time.monotonic() - heard > _ALONE_S:
                heard = time.monotonic()
                self._expect_company(consumer)
            # `consume` alone would wait for as many as were asked for, at the end of every shard.
            messages = [] if first is None else [first, *consumer.consume(_READ, 0)]
            if self.cancelled():
                raise Cancelled
            for message in messages:
                error, offset, shard = message.error(), message.offset() or 0, message.partition() or 0
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    self._retry(KafkaException(error))
                elif shard in left:
                    if error is None and offset < left[shard]:
                        yield message
                    # The records up to the end may be markers, which are not delivered: then the end itself is told.
                    if offset + (error is None) >= left[shard]:
                        del left[shard]

    def _expect_company(self, consumer: Consumer) -> None:
        if self._clients.stranded(consumer):
            raise WorkerError(
                f"The client that restores shards from {self.topic} finds no broker, although other clients reach it; "
                "that happens when the only broker of a cluster restarts. Start the worker again, or let its "
                "supervisor do so; nothing is lost or counted twice."
            )

    def _decode(self, shard: int, message: Message) -> Stored:
        offset = message.offset() or 0
        try:
            record = self._decoder.decode(message.value(), "StateRecord")
        except DecodeError as error:
            raise WorkerError(
                f"{self.topic} [{shard}], offset {offset}: not a record of the state log ({error.detail}). Only "
                "workers may write to this topic: stop the program that does, and restore the topic from a copy."
            ) from None
        return Stored(offset, record, _partitions(message))


def settle_wait(seconds: float, cancelled: Callable[[], bool]) -> None:
    """Sleep, unless it has become pointless.

    Raises:
        Cancelled: It has.
    """
    if cancelled():
        raise Cancelled
    time.sleep(seconds)


def _partitions(message: Message) -> int | None:
    value = dict(message.headers() or []).get(PARTITIONS_HEADER)
    return int(value) if isinstance(value, bytes) and value.isdigit() else None
