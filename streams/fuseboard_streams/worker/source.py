"""The consumer: what arrives, as arrays of partitions, offsets, arrival times and values."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
from numpy.typing import NDArray

from fuseboard_schemas.columnar import Values
from fuseboard_streams.worker.clients import is_fatal, is_hopeless
from fuseboard_streams.worker.errors import StateConflictError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from confluent_kafka import Consumer

    from fuseboard_streams.worker.clients import Clients

I32: TypeAlias = NDArray[np.int32]
I64: TypeAlias = NDArray[np.int64]

_MILLISECONDS = itemgetter(1)
PIECE: Final = 500
"""Records that are consumed and packed at a time. Their messages stay in the processor's cache and take the memory of
those before: a loop that consumes 100,000 at a time takes twice as long for each."""
_TEMPORARY: Final = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._MAX_POLL_EXCEEDED,
    }
)


@dataclass(slots=True)
class Arrived:
    """n records of one input topic in consumption order."""

    topic: str
    """Without the prefix."""
    keys: list[bytes | None]
    values: Values
    partition: I32
    """Shape (n,)."""
    offset: I64
    """Shape (n,); grows within a partition."""
    arrival: I64
    """When the broker took each record, microseconds, shape (n,)."""
    runs: list[tuple[int, int, int]]
    """``(partition, begin, end)`` of each stretch of records of one partition."""

    def __len__(self) -> int:
        """The number of records."""
        return len(self.values)

    @classmethod
    def joined(cls, pieces: Sequence[Arrived]) -> Arrived:
        """Several pieces of one topic, in the order in which they were consumed."""
        if len(pieces) == 1:
            return pieces[0]
        partition = np.concatenate([each.partition for each in pieces])
        offset = np.concatenate([each.offset for each in pieces])
        same = partition[1:] == partition[:-1]
        if (np.diff(offset)[same] <= 0).any():
            raise _out_of_order(int(partition[1:][same][0]), int(offset[0]))
        return cls(
            topic=pieces[0].topic,
            keys=list(chain.from_iterable(each.keys for each in pieces)),
            values=Values.joined([each.values for each in pieces]),
            partition=partition,
            offset=offset,
            arrival=np.concatenate([each.arrival for each in pieces]),
            runs=runs_of(partition),
        )


@dataclass(slots=True)
class RawBatch:
    """What one call to the consumer brought."""

    generation: int
    """Assignment under which it was read; of another one it must be dropped."""
    arrived: list[Arrived] = field(default_factory=list)
    ends: list[tuple[str, int, int]] = field(default_factory=list)
    """``(topic, partition, offset)`` where an input was found to be at its end."""
    full: bool = False
    """Whether more was waiting than was asked for."""

    @property
    def records(self) -> int:
        """The number of records of all topics."""
        return sum(map(len, self.arrived))

    def __bool__(self) -> bool:
        """Whether there is anything in it."""
        return bool(self.arrived or self.ends)


class Source:
    """The worker's consumer.

    Args:
        consumer: A member of the group.
        clients: Puts errors into words.
        inputs: Topic name without the prefix, by full name.
    """

    def __init__(self, consumer: Consumer, clients: Clients, inputs: Mapping[str, str]) -> None:
        self.consumer = consumer
        self.generation = 0
        """Grows with every change of the assignment and every reset of positions."""
        self.last_trouble: str | None = None
        """What the client last complained about and goes on trying."""
        self.held: frozenset[tuple[str, int]] = frozenset()
        """Topics, without the prefix, and partitions that nothing is read from for the moment."""
        self._clients = clients
        self._short = dict(inputs)
        self._full = {short: full for full, short in inputs.items()}

    def position(self, positions: Mapping[int, Mapping[str, int]]) -> None:
        """Read these shards, and nothing else, from these offsets on; whatever was read ahead is dropped.

        Args:
            positions: By shard and by topic name without the prefix.
        """
        self.hold(())
        self.generation += 1
        partitions = [
            TopicPartition(self._full[topic], shard, offset)
            for shard, inputs in positions.items()
            for topic, offset in inputs.items()
        ]
        try:
            self.consumer.assign(partitions)
        except KafkaException as error:
            raise self._clients.explain(error, "while taking up shards") from error

    def hold(self, partitions: Iterable[tuple[str, int]]) -> None:
        """Read nothing of these inputs for the moment, and go on with those held before.

        Args:
            partitions: Topic names without the prefix, and partitions; assigned ones.
        """
        wanted = frozenset(partitions)
        for change, several in ((self.consumer.resume, self.held - wanted), (self.consumer.pause, wanted - self.held)):
            if several:
                change([TopicPartition(self._full[topic], number) for topic, number in sorted(several)])
        self.held = wanted

    def poll(self, limit: int, wait_s: float) -> RawBatch:
        """The next records; rebalances happen inside.

        Args:
            limit: At most so many.
            wait_s: How long to wait for the first. Whatever else is there comes with it, without waiting.

        Raises:
            FuseboardError: The consumer cannot go on.
        """
        generation = self.generation
        batch, pieces = RawBatch(generation), dict[str, list[Arrived]]()
        wanted, left = (1, limit) if wait_s > 0 else (min(PIECE, limit), limit)
        while left > 0:
            messages = self.consumer.consume(wanted, wait_s)
            if generation != self.generation:
                # The assignment changed inside: every shard is positioned anew when it is ready again.
                return RawBatch(self.generation)
            left, short, wait_s = left - len(messages), len(messages) < wanted, 0.0
            if any(map(Message.error, messages)):
                messages = self._good(messages, batch)
            for topic, group in self._by_topic(messages):
                pieces.setdefault(topic, []).append(arrived(topic, group))
            if short:
                break
            wanted = min(PIECE, left)
        batch.full = left <= 0
        batch.arrived = [Arrived.joined(several) for several in pieces.values()]
        return batch

    def _good(self, messages: list[Message], batch: RawBatch) -> list[Message]:
        good = []
        for message in messages:
            error = message.error()
            if error is None:
                good.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                batch.ends.append((self._short[message.topic() or ""], message.partition() or 0, message.offset() or 0))
            else:
                self._refuse(message, error)
        return good

    def _refuse(self, message: Message, error: KafkaError) -> None:
        where = f"{message.topic()} [{message.partition()}]"
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise StateConflictError(
                f"{where}: offset {message.offset()} cannot be read: {error.str()}. The records were deleted before "
                "they were processed, or the topic was created anew. Restore them from a copy, or start with a new "
                "--prefix and --group; then raise retention.ms."
            )
        if is_fatal(error) or is_hopeless(error):
            if is_hopeless(error):
                raise self._clients.explain(KafkaException(error), "while consuming")
            raise WorkerError(
                f"The consumer cannot go on: {error.name()}: {error.str()}. If this names a fenced instance, another "
                "worker runs with the same --instance-id: give each its own."
            )
        if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION):
            raise StateConflictError(
                f"{where}: the topic or partition is gone ({error.str()}). Run `fuseboard topics plan` to see what is "
                "missing; a worker's inputs must not be deleted while it has state."
            )
        if error.code() not in _TEMPORARY and not error.retriable():
            raise self._clients.explain(KafkaException(error), "while consuming")
        self.last_trouble = error.str()

    def _by_topic(self, messages: list[Message]) -> list[tuple[str, list[Message]]]:
        if not messages:
            return []
        topics = list(map(Message.topic, messages))
        first = topics[0] or ""
        if topics.count(first) == len(topics):
            return [(self._short[first], messages)]
        groups: dict[str, list[Message]] = {}
        for topic, message in zip(topics, messages, strict=True):
            groups.setdefault(topic or "", []).append(message)
        return [(self._short[topic], group) for topic, group in groups.items()]


def arrived(topic: str, messages: Sequence[Message]) -> Arrived:
    """Records of one input topic, without the messages: what is kept is a few large objects."""
    n = len(messages)
    numbers = list(map(Message.partition, messages))
    first = numbers[0] or 0
    # A fetch brings the records of a partition together: mostly these are all of one.
    alone = numbers.count(first) == n
    partition = np.full(n, first, np.int32) if alone else np.array(numbers, np.int32)
    runs = [(first, 0, n)] if alone else runs_of(partition)
    return Arrived(
        topic=topic,
        keys=list(map(Message.key, messages)),
        values=Values.of(list(map(Message.value, messages))),
        partition=partition,
        offset=offsets_of(messages, runs),
        arrival=np.fromiter(map(_MILLISECONDS, map(Message.timestamp, messages)), np.int64, n) * 1000,
        runs=runs,
    )


def runs_of(partition: I32) -> list[tuple[int, int, int]]:
    """The stretches of equal partitions, as ``(partition, begin, end)``."""
    begins = np.flatnonzero(np.diff(partition, prepend=-1))
    ends = np.append(begins[1:], len(partition))
    return list(zip(partition[begins].tolist(), begins.tolist(), ends.tolist(), strict=True))


def offsets_of(messages: Sequence[Message], runs: Sequence[tuple[int, int, int]]) -> I64:
    """The offset of every message.

    Offsets grow within a run, so a run whose first and last offsets are as far apart as it is long has no gaps: then
    they are known without asking each message.

    Raises:
        WorkerError: They do not grow.
    """
    offsets = np.empty(len(messages), np.int64)
    for partition, begin, end in runs:
        first, last = messages[begin].offset() or 0, messages[end - 1].offset() or 0
        if last - first == end - begin - 1:
            offsets[begin:end] = np.arange(first, last + 1)
            continue
        offsets[begin:end] = np.fromiter(map(Message.offset, messages[begin:end]), np.int64, end - begin)
        if not (np.diff(offsets[begin:end]) > 0).all():
            raise _out_of_order(partition, first)
    return offsets


def _out_of_order(partition: int, offset: int) -> WorkerError:
    return WorkerError(
        f"The consumer delivered partition {partition} out of order near offset {offset}. Kafka's protocol forbids "
        "this; restart the worker, and report it with the broker's version if it happens again."
    )
