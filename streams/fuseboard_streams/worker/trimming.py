"""Deleting what a newer checkpoint round has replaced in the state log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaException, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

    from confluent_kafka.admin import AdminClient, DeletedRecords
    from structlog.typing import FilteringBoundLogger

    from fuseboard_streams.worker.ownership import OwnedShard

_WORTHWHILE: Final = 200
"""Offsets to be deleted, at least."""


class Trimming:
    """Trims now and then, in the background; a failure is logged and tried again.

    Args:
        connect: Makes the connection, anew after a failure.
        topic: Full name of the state topic.
        interval_s: Time between trims.
        log: For failures.
    """

    def __init__(
        self, connect: Callable[[], AdminClient], topic: str, interval_s: float, log: FilteringBoundLogger
    ) -> None:
        self._connect = connect
        self._admin: AdminClient | None = None
        self._topic = topic
        self._interval_s = interval_s
        self._log = log
        self._next: float | None = None
        self._running: dict[int, tuple[int, Future[DeletedRecords]]] = {}

    def run(self, shards: Iterable[OwnedShard], now: float) -> None:
        """Look after what is under way, and start anew when it is time.

        Only what lies below the round that a committed record points to is deleted: a successor starts there.

        Args:
            shards: The shards that are ready.
            now: Monotonic time.
        """
        if self._next is None:
            self._next = now + self._interval_s
        if now < self._next:
            return
        self._next = now + self._interval_s
        owned = {each.number: each for each in shards}
        for number in [number for number, (_, future) in self._running.items() if future.done()]:
            offset, future = self._running.pop(number)
            try:
                future.result()
            except KafkaException as error:
                self._log.warning("trim_failed", shard=number, error=str(error))
                self._admin = None
            else:
                if number in owned:
                    owned[number].trimmed_to = max(owned[number].trimmed_to, offset)
        wanted = [
            each
            for each in owned.values()
            if each.number not in self._running and each.announced - each.trimmed_to >= _WORTHWHILE
        ]
        if wanted:
            request = [TopicPartition(self._topic, each.number, each.announced) for each in wanted]
            self._admin = self._admin or self._connect()
            for partition, future in self._admin.delete_records(request).items():
                self._running[partition.partition] = (partition.offset, future)
