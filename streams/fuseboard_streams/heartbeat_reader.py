"""The last heartbeat of every shard, and whether another one comes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaError, KafkaException, TopicPartition

from fuseboard_schemas.codec import DecodeError, Decoder
from fuseboard_streams.kafka_errors import BrokerErrors, explain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from confluent_kafka import Message

    from fuseboard_schemas.records import Heartbeat

# One heartbeat and one transaction marker a second: this is about a minute back.
_LOOK_BACK: Final = 128
_REQUEST_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat as it was received."""

    record: Heartbeat
    appended_s: float
    """The broker's clock when it was written, seconds since 1970-01-01 UTC."""
    received_s: float
    """Our clock when it reached us, likewise."""
    live: bool
    """Whether it was written after we had read the topic to its end."""


def listen(
    settings: Mapping[str, Any], topic: str, partitions: int, listen_s: float, clock: Callable[[], float] = time.time
) -> dict[int, Beat]:
    """The newest heartbeat of each shard that has one.

    Returns as soon as every shard has sent a live one.

    Args:
        settings: librdkafka settings.
        topic: the heartbeats' full topic name.
        partitions: its partition count.
        listen_s: how long to wait for live heartbeats after the topic's end was reached, in seconds.
        clock: this machine's time, in seconds since 1970-01-01 UTC.

    Raises:
        FuseboardError: the broker does not answer, or refuses.
    """
    errors = BrokerErrors()
    conf: dict[str, Any] = {
        "log_level": 0,
        **settings,
        "group.id": "fuseboard-doctor",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        "error_cb": errors,
    }
    try:
        consumer = Consumer(conf)
        try:
            consumer.assign([_start(consumer, topic, number) for number in range(partitions)])
            return _read(consumer, partitions, listen_s, clock)
        finally:
            consumer.close()
    except KafkaException as error:
        raise explain(error, "while reading heartbeats", settings, errors.last) from error


def _start(consumer: Consumer, topic: str, number: int) -> TopicPartition:
    low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_REQUEST_S)
    return TopicPartition(topic, number, max(low, high - _LOOK_BACK))


def _read(consumer: Consumer, partitions: int, listen_s: float, clock: Callable[[], float]) -> dict[int, Beat]:
    decoder = Decoder()
    beats: dict[int, Beat] = {}
    ended: set[int] = set()
    deadline = time.monotonic() + _REQUEST_S
    while time.monotonic() < deadline and not (len(beats) == partitions and all(b.live for b in beats.values())):
        message = consumer.poll(0.1)
        if message is None:
            continue
        error = message.error()
        number = message.partition()
        assert number is not None
        if error is None:
            _keep(beats, number, message, decoder, clock(), live=number in ended)
        elif error.code() == KafkaError._PARTITION_EOF:
            if len(ended) < partitions and len(ended | {number}) == partitions:
                deadline = time.monotonic() + listen_s
            ended.add(number)
        elif not error.retriable():
            raise KafkaException(error)
    return beats


def _keep(beats: dict[int, Beat], number: int, message: Message, decoder: Decoder, now: float, *, live: bool) -> None:
    kind, appended_ms = message.timestamp()
    if message.value() is None or kind != TIMESTAMP_LOG_APPEND_TIME:
        return
    try:
        record: Heartbeat = decoder.decode(message.value(), "Heartbeat")
    except DecodeError:
        return
    beats[number] = Beat(record, appended_ms / 1e3, now, live)
