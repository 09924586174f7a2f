"""Reads a worker's state log: how many bytes it holds, and how many checkpoint rounds it went through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from fuseboard_schemas.codec import Decoder
from fuseboard_schemas.records import StateKind, StateRecord

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Rounds:
    """What a part of a state log holds.

    Attributes:
        events: events of the tool calls that its entries cover.
        bytes: bytes of its records' values.
        complete: checkpoint rounds that begin and end in it, in the shard with the fewest.
    """

    events: int
    bytes: int
    complete: int


def read(bootstrap: str, topic: str, partitions: int, skip: float) -> Rounds:
    """What the state log holds beyond the share `skip` of each shard's tool calls.

    Args:
        bootstrap: the cluster.
        topic: the state topic.
        partitions: of the topic.
        skip: 0 to 1: what lies before it is not counted.
    """
    events, size, complete = 0, 0, []
    for shard in range(partitions):
        records = list(_records(bootstrap, topic, shard))
        ends = [(_next_offset(record), length, record) for record, length in records]
        last = max((offset for offset, _, _ in ends), default=0)
        part = [(offset, length, record) for offset, length, record in ends if offset > skip * last]
        events += last - min((_first_offset(record) for _, _, record in part), default=last)
        size += sum(length for _, length, _ in part)
        complete.append(_complete([record for _, _, record in part]))
    return Rounds(events, size, min(complete, default=0))


def _complete(records: list[StateRecord]) -> int:
    """How many rounds begin and then end within `records`."""
    found, begun = 0, False
    for record in records:
        if record.chunk:
            continue
        begun = begun or record.starts_round
        if begun and record.ends_round:
            found, begun = found + 1, False
    return found


def _next_offset(record: StateRecord) -> int:
    return max((each.next_offset for each in record.inputs if each.topic == "tool-calls"), default=0)


def _first_offset(record: StateRecord) -> int:
    return min((each.from_offset for each in record.inputs if each.topic == "tool-calls"), default=0)


def _records(bootstrap: str, topic: str, partition: int) -> Iterator[tuple[StateRecord, int]]:
    """The committed changes in one partition, with the length of each record's value."""
    decoder = Decoder()
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "bench-state-reader",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
    try:
        while True:
            message = consumer.poll(10.0)
            error = None if message is None else message.error()
            if message is None or (error is not None and error.code() == KafkaError._PARTITION_EOF):
                return
            if error is not None:
                raise KafkaException(error)
            value = message.value()
            if value is not None:
                record: StateRecord = decoder.decode(value, "StateRecord")
                if record.kind is StateKind.DELTA:
                    yield record, len(value)
    finally:
        consumer.close()
