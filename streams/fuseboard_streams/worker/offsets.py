"""What the broker knows about offsets: starts and ends of logs, and the group's committed positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import OffsetSpec

from fuseboard_streams.worker.clients import REQUEST_S, error_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from confluent_kafka.admin import AdminClient

    from fuseboard_streams.worker.clients import Clients

Partition = tuple[str, int]
"""Full topic name and partition."""


class Offsets:
    """Asks for offsets, several partitions at a time.

    Args:
        clients: Makes the connection and puts errors into words.
        group: The consumer group.
        retry: Called with an error worth repeating; returns or raises.
    """

    def __init__(self, clients: Clients, group: str, retry: Callable[[KafkaException], None]) -> None:
        self._clients = clients
        self._connection: AdminClient | None = None
        self._group = group
        self._wait = retry

    def starts(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The first offset of each log."""
        return self._list(partitions, OffsetSpec.earliest(), IsolationLevel.READ_UNCOMMITTED)

    def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The end of each log, open transactions included."""
        return self._list(partitions, OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED)

    def stable_ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """How far each log can be read committed: up to its first open transaction."""
        return self._list(partitions, OffsetSpec.latest(), IsolationLevel.READ_COMMITTED)

    def committed(self, partitions: Iterable[Partition]) -> dict[Partition, int | None]:
        """The group's stable committed positions; -1 where there is none, None where a transaction has one pending."""
        wanted = set(partitions)
        request = ConsumerGroupTopicPartitions(self._group, [TopicPartition(*each) for each in sorted(wanted)])
        while True:
            try:
                futures = self._admin.list_consumer_group_offsets(
                    [request], require_stable=True, request_timeout=REQUEST_S
                )
                answer = futures[self._group].result(REQUEST_S + 1)
            except KafkaException as exception:
                if error_of(exception).code() == KafkaError.GROUP_ID_NOT_FOUND:
                    return dict.fromkeys(wanted, -1)
                self._retry(exception)
                continue
            return {(each.topic, each.partition): self._position(each) for each in answer.topic_partitions or []}

    @property
    def _admin(self) -> AdminClient:
        if self._connection is None:
            self._connection = self._clients.admin()
        return self._connection

    def _retry(self, exception: KafkaException) -> None:
        # The client asks with the leader epochs it knows, and does not look them up again when a broker that was
        # restarted refuses them: only a new client gets over that.
        self._connection = None
        self._wait(exception)

    def _position(self, answer: TopicPartition) -> int | None:
        if answer.error is None:
            return max(answer.offset, -1)
        if answer.error.code() == KafkaError.UNSTABLE_OFFSET_COMMIT:
            return None
        raise self._clients.explain(KafkaException(answer.error), "while asking for the group's offsets")

    def _list(
        self, partitions: Iterable[Partition], spec: OffsetSpec, isolation: IsolationLevel
    ) -> dict[Partition, int]:
        request = {TopicPartition(*each): spec for each in partitions}
        if not request:
            return {}
        while True:
            try:
                futures = self._admin.list_offsets(request, isolation_level=isolation, request_timeout=REQUEST_S)
                return {
                    (each.topic, each.partition): future.result(REQUEST_S + 1).offset
                    for each, future in futures.items()
                }
            except KafkaException as exception:
                self._retry(exception)
