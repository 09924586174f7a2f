"""Which shards this worker has: rebalances, takeovers on a second thread, shards kept in memory."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from fuseboard_streams.worker.errors import StateConflictError
from fuseboard_streams.worker.restore import Takeover
from fuseboard_streams.worker.statereader import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from confluent_kafka import Consumer, TopicPartition
    from structlog.typing import FilteringBoundLogger

    from fuseboard_streams.worker.clock import Clock
    from fuseboard_streams.worker.metrics import WorkerMetrics
    from fuseboard_streams.worker.ownership import OwnedShard
    from fuseboard_streams.worker.restore import Restorer
    from fuseboard_streams.worker.source import Source


class Assignment:
    """The worker's side of the consumer group.

    A rebalance takes all partitions and gives new ones. What is given is restored on a second thread, so that nobody
    waits; a shard is read from only when it is complete and announced in its state log. A shard that is taken away is
    kept in memory until the next assignment: mostly it comes right back.

    Args:
        source: The consumer.
        restorer: Takes shards over.
        inputs: Topic name without the prefix, by full name.
        partitions: Partition count of all topics.
        stopping: Whether the worker is stopping.
        clock: The clocks.
        metrics: Counts rebalances.
        log: One line per rebalance.
    """

    def __init__(
        self,
        source: Source,
        restorer: Restorer,
        inputs: dict[str, str],
        partitions: int,
        stopping: Callable[[], bool],
        clock: Clock,
        metrics: WorkerMetrics,
        log: FilteringBoundLogger,
    ) -> None:
        self.owned: dict[int, OwnedShard] = {}
        """Shards that are being processed."""
        self.restored: dict[int, OwnedShard] = {}
        """Shards that are complete and still have to be announced."""
        self.pending: set[int] = set()
        """Shards that are being restored."""
        self.incomplete: dict[int, list[str]] = {}
        """Shards of which only some inputs are assigned to this worker, and the inputs that are not."""
        self.kept: dict[int, OwnedShard] = {}
        """Shards that were taken away and may come back."""
        self.stop_at: dict[int, dict[str, int]] = {}
        """Where each shard's inputs ended when this worker first saw it."""
        self.group_metadata: object = None
        """What shows the group's coordinator under which assignment a transaction was made."""
        self.received = False
        """Whether an assignment is in force; between two of them nothing is known."""
        self._source = source
        self._restorer = restorer
        self._inputs = inputs
        self._partitions = partitions
        self._stopping = stopping
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self._epoch = 0
        self._results: queue.SimpleQueue[tuple[int, OwnedShard, dict[str, int]]] = queue.SimpleQueue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="restore")
        self._running: Future[None] | None = None

    def subscribe(self) -> None:
        """Join the group."""
        self._source.consumer.subscribe(
            sorted(self._inputs), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )

    def settled(self) -> bool:
        """Whether every assigned shard is being processed, or cannot be."""
        return self.received and not self.pending and not self.restored

    def collect(self) -> None:
        """Take in what the second thread has finished.

        Raises:
            FuseboardError: A shard could not be taken over.
        """
        while not self._results.empty():
            epoch, owned, stop_at = self._results.get()
            if epoch != self._epoch:
                continue
            self.pending.discard(owned.number)
            self.kept.pop(owned.number, None)
            self.stop_at.setdefault(owned.number, stop_at)
            self.restored[owned.number] = owned
        if self._running is not None and self._running.done():
            running, self._running = self._running, None
            running.result()

    def announced(self) -> None:
        """The restored shards are announced in their state logs: process them."""
        now = self._clock.monotonic()
        for owned in self.restored.values():
            owned.claimed = True
            owned.ready_at = now
        self.owned.update(self.restored)
        self.restored.clear()
        self.reposition()

    def reposition(self) -> None:
        """Read every shard from its committed position on."""
        for owned in self.owned.values():
            owned.rewind()
        self._source.position({number: owned.next for number, owned in self.owned.items()})

    def pause(self) -> None:
        """Read nothing for the moment, and do not take that for the end of the inputs."""
        for owned in self.owned.values():
            owned.rewind()
        self._source.position({})

    def close(self) -> None:
        """Leave the group and end the second thread."""
        self._epoch += 1
        self._source.consumer.close()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _assigned(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._source.position({})
        self.group_metadata = consumer.consumer_group_metadata()
        self.received = True
        self._epoch += 1
        topics: dict[int, set[str]] = {}
        for each in partitions:
            topics.setdefault(each.partition, set()).add(each.topic)
        if any(number >= self._partitions for number in topics):
            raise StateConflictError(
                f"The input topics had {self._partitions} partitions when this worker started, and now there are more. "
                "Keys have moved to other partitions than their state. Partition counts must not change: "
                "`fuseboard topics plan` says how to migrate."
            )
        everything = set(self._inputs)
        self.incomplete = {number: sorted(everything - have) for number, have in topics.items() if have != everything}
        self.pending = set(topics) - set(self.incomplete)
        for number in set(self.kept) - self.pending:
            # Whoever owns it now announces itself in its state log; what is here would be out of date at once.
            del self.kept[number]
            self._metrics.shard_left(number)
        self._metrics.rebalances.inc()
        self._log.info("assigned", shards=sorted(self.pending), kept=sorted(self.kept))
        for number, missing in self.incomplete.items():
            self._log.warning(
                "shard_incomplete",
                shard=number,
                missing=missing,
                hint="another member of the group subscribes to other topics: run the same version everywhere",
            )
        if self.pending:
            self._take_over(self._epoch)

    def _revoked(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._epoch += 1
        # A worker that holds nothing for the moment has not finished: its shards may come back.
        self.received = False
        self._source.generation += 1
        # What was restored but not announced has not been written to: it is as good as a kept one.
        self.kept.update(self.owned)
        self.kept.update(self.restored)
        self._log.info("revoked", shards=sorted({each.partition for each in partitions}))
        self.owned.clear()
        self.restored.clear()
        self.pending.clear()
        self.incomplete.clear()
        consumer.unassign()

    def _take_over(self, epoch: int) -> None:
        takeover = Takeover(
            shards=tuple(sorted(self.pending)),
            kept=dict(self.kept),
            cancelled=lambda: epoch != self._epoch or self._stopping(),
            publish=lambda owned, stop_at: self._results.put((epoch, owned, stop_at)),
        )
        self._running = self._thread.submit(self._run, takeover)

    def _run(self, takeover: Takeover) -> None:
        if takeover.cancelled():
            return
        try:
            self._restorer.take_over(takeover)
        except Cancelled:
            return
