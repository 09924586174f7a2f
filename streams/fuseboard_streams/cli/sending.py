"""The producer behind ``publish``: everything is confirmed, nothing is sent to a topic that does not exist."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from fuseboard_schemas.topics import TopicNames
from fuseboard_streams.cli.kafka import METADATA_TIMEOUT_S, MissingTopicError
from fuseboard_streams.cli.publishing import ADDRESS_ERRORS, Addresser, Pacer, Prepared
from fuseboard_streams.kafka_errors import BrokerErrors, explain
from fuseboard_streams.records_io import Problem

if TYPE_CHECKING:
    from confluent_kafka import Message as KafkaMessage

    from fuseboard.transport import Message
    from fuseboard_schemas.errors import FuseboardError
    from fuseboard_streams.cli.config import Connection
    from fuseboard_streams.cli.publish_outcome import Outcome

DELIVERY_TIMEOUT_S: Final = 30.0
"""How long a record may wait for the broker before the command gives up."""

_TOO_LARGE: Final = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD)


class Sender:
    """Sends prepared records in order and waits for every confirmation."""

    def __init__(self, connection: Connection, outcome: Outcome) -> None:
        self._bootstrap = connection.bootstrap
        self._outcome = outcome
        self._errors = BrokerErrors()
        self._settings: dict[str, Any] = {
            "enable.idempotence": True,
            "linger.ms": 20,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 100_000,
            "message.timeout.ms": int(DELIVERY_TIMEOUT_S * 1_000),
            **connection.client_settings(),
            "error_cb": self._errors,
            "log_level": 0,
        }
        self._failed: FuseboardError | None = None
        self._counts: dict[str, int] = {}
        try:
            self._producer = Producer(self._settings)
        except KafkaException as error:
            raise explain(error, "while making a client", self._settings) from error
        self._addresser = Addresser(TopicNames(connection.prefix), self._partitions)

    def __enter__(self) -> Sender:
        """Find the topics that exist; nothing is created by asking.

        Raises:
            UnreachableError: No broker answers.
        """
        try:
            topics = self._producer.list_topics(timeout=METADATA_TIMEOUT_S).topics
        except KafkaException as error:
            raise self._explain(error, "while connecting") from error
        self._counts = {name: len(topic.partitions) for name, topic in topics.items()}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for the confirmations; after an error or Ctrl-C only briefly.

        Raises:
            FuseboardError: Not everything was confirmed.
        """
        left = self._producer.flush(DELIVERY_TIMEOUT_S + 5.0 if kind is None else 2.0)
        if kind is None:
            self._raise_if_failed()
            if left:
                raise self._explain(KafkaException(KafkaError(KafkaError._TIMED_OUT)), "while sending")

    def wait(self, pacer: Pacer, ts: int) -> None:
        """Serve the producer until the event of time ``ts`` is due."""
        while (left := pacer.wait_s(ts, time.monotonic())) > 0:
            self._producer.poll(min(left, 0.1))
            self._raise_if_failed()

    def send(self, prepared: Prepared, source: str) -> None:
        """Hand one record to the producer; one that can be no message is counted as skipped.

        Raises:
            FuseboardError: The topic is missing, or earlier records could not be delivered.
        """
        try:
            message = self._addresser.address(prepared)
        except MissingTopicError:
            raise
        except ADDRESS_ERRORS as error:
            self._outcome.skip(Problem(source, prepared.line.number, None, str(error)))
            return
        while not self._produced(message, prepared.line.number, source):
            self._producer.poll(0.1)
            self._raise_if_failed()
        self._producer.poll(0)
        self._raise_if_failed()

    def _produced(self, message: Message, line: int, source: str) -> bool:
        """Hand a message to the producer; return whether it is settled, which it is not while its queue is full."""
        try:
            self._producer.produce(
                message.topic,
                message.value,
                message.key,
                message.partition,
                on_delivery=functools.partial(self._delivered, source, line, len(message.value)),
                headers=list(message.headers),
            )
        except BufferError:
            return False
        except KafkaException as error:
            if error.args[0].code() not in _TOO_LARGE:
                raise self._explain(error, "while sending") from error
            self._outcome.skip(_too_large(source, line, len(message.value)))
        return True

    def _delivered(self, source: str, line: int, size: int, error: KafkaError | None, message: KafkaMessage) -> None:
        """Take one delivery report."""
        if error is None:
            self._outcome.confirm(message.topic() or "")
        elif error.code() in _TOO_LARGE:
            self._outcome.skip(_too_large(source, line, size))
        elif self._failed is None:
            self._failed = self._explain(KafkaException(error), f"while sending {source}:{line}")

    def _partitions(self, topic: str) -> int:
        """Return the number of partitions of a topic.

        Raises:
            MissingTopicError: There is no such topic.
        """
        count = self._counts.get(topic, 0)
        if not count:
            raise MissingTopicError(topic, self._bootstrap)
        return count

    def _raise_if_failed(self) -> None:
        """Raise what a delivery report said."""
        if self._failed is not None:
            raise self._failed

    def _explain(self, error: Exception, doing: str) -> FuseboardError:
        """Return one of our errors for one of Kafka's."""
        # What error_cb has to say is delivered by poll only, and it names the cause.
        self._producer.poll(0)
        return explain(error, doing, self._settings, self._errors.last)


def _too_large(source: str, line: int, size: int) -> Problem:
    """Return the problem of a record that is longer than Kafka takes."""
    detail = f"a record of {size:,} bytes; expected one within max.message.bytes of its topic."
    return Problem(source, line, None, detail)
