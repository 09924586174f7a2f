"""For programs of your own that find something out about agents: signals, which rules treat as their own findings.

from confluent_kafka import Producer
from fuseboard.guest import SignalWriter, signal_record

with SignalWriter(Producer({"bootstrap.servers": "localhost:9092", "enable.idempotence": True})) as signals:
    signals.send(signal_record(scope="ACTOR", actor="support_agent", level="TRIP", metric="signals.low_scores",
                               source="judge", ts=ts, value=0.2, reason="5 of 6 answers scored below 0.4"))

Programs with a producer of their own (Faust, Quix Streams, Flink) take :func:`to_message` instead; it needs no Kafka
client. See docs/guests.md.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fuseboard.signals import SignalError, content_id, signal_record, to_message
from fuseboard.transport import Message
from fuseboard_schemas.errors import UnreachableError
from fuseboard_schemas.records import Scope, Signal, SignalLevel
from fuseboard_schemas.topics import PREFIX, TopicNames

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from confluent_kafka import KafkaError, Producer
    from confluent_kafka import Message as KafkaMessage

__all__ = [
    "Message",
    "Scope",
    "Signal",
    "SignalError",
    "SignalLevel",
    "SignalWriter",
    "content_id",
    "signal_record",
    "to_message",
]

_METADATA_TIMEOUT_S = 10.0
_POLL_S = 0.1


class SignalWriter:
    """Sends signals with a producer of confluent-kafka, each to its target's home, and sees that they arrive.

    As a context manager it waits for the confirmations at the end of the block.

    Args:
        producer: The producer, with any settings; ``enable.idempotence`` keeps its own repeats out. Its partitioner is
            not used.
        prefix: Prefix of all topic names.
        timeout_s: Seconds to wait for room in the producer, and for confirmations.

    Raises:
        UnreachableError: No broker answers.
        SignalError: There is no such topic.
    """

    def __init__(self, producer: Producer, *, prefix: str = PREFIX, timeout_s: float = 30.0) -> None:
        self._producer = producer
        self._prefix = prefix
        self._timeout_s = timeout_s
        self._failures: list[str] = []
        self.topic = TopicNames(prefix).signals
        self.partitions = self._count()

    def send(self, signal: Signal) -> None:
        """Hand a signal to the producer; :meth:`flush` says whether it arrived.

        Raises:
            KeyFormatError, EncodeError: The record makes no message.
            SignalError: The producer refuses the message, for its size for example.
            UnreachableError: The producer's queue stays full, or an earlier signal was not delivered.
        """
        from confluent_kafka import KafkaException

        message = to_message(signal, self.partitions, self._prefix)
        self._raise_if_failed()
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                self._producer.produce(
                    message.topic,
                    message.value,
                    message.key,
                    message.partition,
                    on_delivery=self._delivered,
                    headers=list(message.headers),
                )
            except BufferError:
                if time.monotonic() > deadline:
                    text = f"The producer's queue has been full for {self._timeout_s:g} s: no broker takes its messages"
                    raise UnreachableError(f"{text}. Check the brokers.") from None
                self._producer.poll(_POLL_S)
                continue
            except KafkaException as error:
                raise SignalError(f"Signal {signal.signal_id} was refused by the producer: {_words(error)}.") from error
            break
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until every signal sent so far is confirmed.

        Raises:
            UnreachableError: Not all of them are. Which ones arrived is not known: send them again under the same ids.
        """
        left = self._producer.flush(self._timeout_s)
        self._raise_if_failed()
        if left:
            raise UnreachableError(
                f"{left} messages were not confirmed within {self._timeout_s:g} s. Check the brokers, and send the "
                "signals again."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.flush()

    def _count(self) -> int:
        from confluent_kafka import KafkaException

        try:
            # All of them: asking for a single one could create it, with a number of partitions of the broker's choice.
            found = self._producer.list_topics(timeout=_METADATA_TIMEOUT_S).topics.get(self.topic)
        except KafkaException as error:
            raise UnreachableError(
                f"No broker says what topics there are: {_words(error)}. Check the address."
            ) from error
        if found is None or not found.partitions:
            raise SignalError(
                f"There is no topic {self.topic}. Create it with `fuseboard topics apply`, or give the prefix of yours."
            )
        return len(found.partitions)

    def _delivered(self, error: KafkaError | None, message: KafkaMessage) -> None:
        if error is not None:
            self._failures.append(error.str())

    def _raise_if_failed(self) -> None:
        if self._failures:
            failures, self._failures = self._failures, []
            raise UnreachableError(
                f"{len(failures)} of the signals sent were not delivered, the first of them because: {failures[0]}. "
                "Send them again."
            )


def _words(error: Exception) -> str:
    from confluent_kafka import KafkaError

    argument = error.args[0] if error.args else error
    return str(argument.str() if isinstance(argument, KafkaError) else error)
