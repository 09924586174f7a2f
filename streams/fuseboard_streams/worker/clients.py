"""The Kafka clients of a worker, with the settings that its guarantees depend on."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from fuseboard_streams.kafka_errors import FORBIDDEN, REFUSED, BrokerErrors, explain

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_schemas.errors import FuseboardError
    from fuseboard_streams.worker.settings import WorkerSettings

T = TypeVar("T")

REQUEST_S: Final = 10.0
"""How long one request may take before it is repeated."""
_METADATA_S: Final = 5.0
# One record of `dead-letters` may be 4 MB; librdkafka counts keys, headers and framing too.
_MAX_MESSAGE_BYTES: Final = 5 * 1_048_576


class Clients:
    """Makes the worker's clients and puts their errors into words."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self.errors = BrokerErrors()
        self.consumer_errors = 0
        """How often the group's consumer has lost a broker."""
        self.transactional_id = f"fuseboard-{settings.group}-{secrets.token_hex(8)}"
        """Unique per process start, so that whoever fences it fences nobody else."""

    @property
    def base(self) -> dict[str, Any]:
        """What every client starts from."""
        return {
            "log_level": 2,
            "reconnect.backoff.max.ms": 1_000,
            **self._settings.kafka,
            "bootstrap.servers": self._settings.bootstrap,
            "client.id": self._settings.worker_id,
            "error_cb": self.errors,
        }

    def explain(self, error: Exception, doing: str) -> FuseboardError:
        """One of our errors for one of Kafka's."""
        return explain(error, doing, self.base, self.errors.last)

    def admin(self) -> AdminClient:
        """An administrator's client."""
        return self._make(AdminClient, self.base)

    def reachable(self) -> bool:
        """Whether a client made just now reaches the broker."""
        try:
            return bool(self.admin().list_topics(timeout=_METADATA_S).brokers)
        except KafkaException:
            return False

    def stranded(self, client: Consumer | Producer) -> bool:
        """Whether a client finds no broker although another that is made just now does.

        librdkafka forgets every broker that a metadata response does not name. One that is being stopped may name
        none, and a client that hears that never asks anybody again (confluentinc/librdkafka issue 5301).
        """
        try:
            client.list_topics(timeout=_METADATA_S)
        except KafkaException:
            return self.reachable()
        return False

    def consumer(self) -> Consumer:
        """The member of the consumer group.

        Fetches wait at most 100 ms at the broker, because a new assignment waits for the fetch under way; a full
        queue is looked at again after 5 ms instead of a second.
        """
        config: dict[str, Any] = {
            "fetch.wait.max.ms": 100,
            "fetch.queue.backoff.ms": 5,
            "queued.min.messages": 100_000,
            "queued.max.messages.kbytes": 65_536,
            # The C library gives larger blocks back to the system each time, and every page of the next is a fault:
            # with fetches of 32 MB the consumer takes three times as long.
            "fetch.max.bytes": 8_388_608,
            "max.partition.fetch.bytes": 1_048_576,
            **self.base,
            "group.id": self._settings.group,
            "session.timeout.ms": self._settings.session_timeout_ms,
            "heartbeat.interval.ms": max(self._settings.session_timeout_ms // 6, 100),
            # The new consumer protocol has no client-side assignor; range gives one worker the same partition of
            # every topic, which is what a shard is.
            "group.protocol": "classic",
            "partition.assignment.strategy": "range",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
        }
        config["error_cb"] = self._consumer_error
        if self._settings.instance_id:
            config["group.instance.id"] = self._settings.instance_id
        return self._make(Consumer, config)

    def _consumer_error(self, error: KafkaError) -> None:
        self.errors(error)
        self.consumer_errors += 1

    def reader(self, *, committed: bool) -> Consumer:
        """A consumer outside the group, to read the state log."""
        config: dict[str, Any] = {
            "fetch.wait.max.ms": 20,
            "fetch.queue.backoff.ms": 5,
            "fetch.max.bytes": 67_108_864,
            "max.partition.fetch.bytes": 16_777_216,
            **self.base,
            # librdkafka asks for a group even where none is joined.
            "group.id": f"{self._settings.group}-restore",
            "isolation.level": "read_committed" if committed else "read_uncommitted",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
        }
        return self._make(Consumer, config)

    def producer(self, transactional_id: str | None = None) -> Producer:
        """A transactional producer, not initialised.

        ``retry.backoff.ms`` is what the client waits when the broker has not quite finished the transaction before:
        at the default of 100 ms a transaction takes 114 ms, at 2 ms it takes 10.
        """
        config: dict[str, Any] = {
            # Starting over from the bootstrap addresses drops the broker handles, and a transaction that waits for the
            # group coordinator then waits for a dropped one, for ever.
            "metadata.recovery.strategy": "none",
            # After a restart of the brokers nothing else makes it connect again while it looks for its coordinator:
            # at the default of five minutes it stays alone for so long.
            "topic.metadata.refresh.interval.ms": 5_000,
            "retry.backoff.ms": 2,
            "retry.backoff.max.ms": 200,
            # After a broker's restart a call with a timeout of 10 s was seen to take a minute, which is the default.
            "socket.timeout.ms": round(REQUEST_S * 1000),
            "queue.buffering.max.messages": 1_000_000,
            "compression.type": "lz4",
            **self.base,
            "linger.ms": 0,
            "message.max.bytes": _MAX_MESSAGE_BYTES,
            "transaction.timeout.ms": self._settings.transaction_timeout_ms,
            "transactional.id": transactional_id or self.transactional_id,
            "partitioner": "murmur2_random",
        }
        return self._make(Producer, config)

    def _make(self, make: Callable[[dict[str, Any]], T], config: dict[str, Any]) -> T:
        try:
            return make(config)
        except KafkaException as error:
            raise self.explain(error, "while making a client") from error


def error_of(exception: KafkaException) -> KafkaError:
    """The error inside an exception."""
    error: KafkaError = exception.args[0]
    return error


def is_fatal(error: KafkaError) -> bool:
    """Whether the client can do nothing more; once it knows that, it says so without saying why (``_FATAL``)."""
    return bool(error.fatal()) or error.code() == KafkaError._FATAL


def is_hopeless(error: KafkaError) -> bool:
    """Whether waiting cannot help: credentials or permissions."""
    return int(error.code()) in REFUSED | FORBIDDEN
