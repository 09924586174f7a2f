"""Kafka itself: the producer behind :class:`fuseboard.transport.Transport`, and the settings of both clients."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Producer

from fuseboard.errors import ConfigurationError
from fuseboard.transport import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Message as KafkaMessage

    from fuseboard.settings import Settings
    from fuseboard.transport import Message

log = logging.getLogger("fuseboard.kafka")

_COMPLAIN_EVERY_S = 60.0

_REFUSED = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.INVALID_RECORD,
        KafkaError.POLICY_VIOLATION,
        KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
        KafkaError._INVALID_ARG,
        KafkaError._UNKNOWN_PARTITION,
    }
)
"""Errors about one message that sending it again cannot mend."""


class Complaints:
    """Logs what a client complains about: each kind at most once a minute, for an outage repeats itself.

    Args:
        bootstrap: Where Kafka should be.
    """

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._again: dict[int, float] = {}

    def __call__(self, error: KafkaError) -> None:
        """Called by librdkafka, on the thread that polls."""
        now, code = time.monotonic(), int(error.code())
        if now >= self._again.get(code, 0.0):
            self._again[code] = now + _COMPLAIN_EVERY_S
            log.warning("Kafka at %s: %s. Trying on; agents are not held up.", self._bootstrap, error.str())


def producer_settings(settings: Settings) -> dict[str, Any]:
    """Librdkafka settings of the producer; those that the guarantees rest on cannot be overridden."""
    return {
        "bootstrap.servers": settings.bootstrap,
        "client.id": "fuseboard-sdk",
        "linger.ms": 1,  # The publisher's thread has collected a batch already.
        "reconnect.backoff.max.ms": 2000,
        "socket.keepalive.enable": True,
        # Topics are made by people, with the right number of partitions; a producer must not make one by accident.
        "allow.auto.create.topics": False,
        # Its own log repeats every failed attempt to connect; `error_cb` says the same.
        "log_level": 2,
        **settings.kafka,
        "enable.idempotence": True,
        "partitioner": "murmur2",
        # A message that librdkafka gave up on and that was sent again would arrive behind its successors.
        "message.timeout.ms": 0,
        # The publisher's window is the limit; librdkafka's own must never be hit first.
        "queue.buffering.max.messages": 2 * settings.memory_events + 1000,
        "queue.buffering.max.kbytes": min(2_097_151, 2 * settings.memory_bytes // 1024 + 16_384),
        "logger": log,
        "error_cb": Complaints(settings.bootstrap),
    }


def consumer_settings(settings: Settings, client_id: int) -> dict[str, Any]:
    """Librdkafka settings of the consumer that follows commands and heartbeats."""
    return {
        "bootstrap.servers": settings.bootstrap,
        "client.id": "fuseboard-sdk",
        "reconnect.backoff.max.ms": 2000,
        "socket.keepalive.enable": True,
        # Its own log repeats every failed attempt to connect; `error_cb` says the same.
        "log_level": 2,
        **settings.kafka,
        # Partitions are assigned by hand: the group is never joined and nothing is committed to it.
        "group.id": f"fuseboard-sdk-{client_id & 0xFFFF_FFFF_FFFF_FFFF:016x}",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        "logger": log,
        "error_cb": Complaints(settings.bootstrap),
    }


class KafkaTransport:
    """A producer that reports every message once.

    Raises:
        ConfigurationError: librdkafka does not accept the settings.
    """

    def __init__(self, settings: Settings) -> None:
        try:
            self._producer: Producer | None = Producer(producer_settings(settings))
        except (KafkaException, ValueError, TypeError) as error:
            raise ConfigurationError(
                f"The Kafka producer for {settings.bootstrap} cannot be made: {_text(error)}. Check the bootstrap "
                "address and the kafka settings (Fuseboard(kafka=...) or FUSEBOARD_KAFKA__...)."
            ) from error

    def send(self, message: Message, report: Callable[[Verdict, str], None]) -> bool:
        """See :class:`fuseboard.transport.Transport`."""
        producer = self._producer
        if producer is None:
            return False

        def delivered(error: KafkaError | None, _: KafkaMessage) -> None:
            if self._producer is producer:
                report(verdict_of(error), "" if error is None else error.str())

        try:
            producer.produce(
                message.topic,
                value=message.value,
                key=message.key,
                partition=message.partition,
                headers=list(message.headers),
                on_delivery=delivered,
            )
        except BufferError:
            return False
        except KafkaException as error:
            failure = error.args[0]
            report(verdict_of(failure), failure.str())
        return True

    def poll(self, timeout: float) -> None:
        """See :class:`fuseboard.transport.Transport`."""
        if self._producer is not None:
            self._producer.poll(timeout)

    def close(self) -> None:
        """See :class:`fuseboard.transport.Transport`."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.poll(0)

    def abandon(self) -> None:
        """See :class:`fuseboard.transport.Transport`."""
        producer, self._producer = self._producer, None
        leak(producer)


def verdict_of(error: KafkaError | None) -> Verdict:
    """What a delivery error means for the message."""
    if error is None:
        return Verdict.DELIVERED
    return Verdict.REFUSED if error.code() in _REFUSED and not error.fatal() else Verdict.RETRY


def leak(client: object) -> None:
    """Keep a client for ever: in a forked child its destructor would wait for threads that only the parent has."""
    if client is not None:
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))


def _text(error: Exception) -> str:
    argument = error.args[0] if error.args else error
    return argument.str() if isinstance(argument, KafkaError) else str(error)
