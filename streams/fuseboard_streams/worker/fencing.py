"""Settling what a predecessor left open.

A worker that was killed inside a transaction blocks its successor until the broker gives up on it, which takes the
transaction's timeout and up to ten seconds more. So the successor finds out the predecessor's transactional id and
registers it itself: the broker then aborts the open transaction at once and refuses the old owner from then on.

Every transaction of a worker either has committed-offset positions pending for each shard it touches, or (a claim, at
its very start) records in the shard's state log. Looking at these two finds all of them; once both are settled after
an assignment, no transaction of an earlier owner can follow, because the group's coordinator refuses its offsets.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaException

from fuseboard_streams.worker.clients import REQUEST_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from structlog.typing import FilteringBoundLogger

    from fuseboard_streams.worker.clients import Clients
    from fuseboard_streams.worker.offsets import Offsets

_POLL_S: Final = 0.02
_GRACE_S: Final = 0.25
"""A live owner that has just committed needs a moment until the markers are written; it must not be fenced."""
_REPORT_S: Final = 5.0


class Fencing:
    """Finds open transactions on shards and settles them.

    Args:
        clients: Makes the producers that take over an id.
        offsets: Asks the broker.
        state: Full name of the state topic.
        inputs: Full names of the input topics.
        log: For the line per fenced writer.
    """

    def __init__(
        self, clients: Clients, offsets: Offsets, state: str, inputs: Sequence[str], log: FilteringBoundLogger
    ) -> None:
        self._clients = clients
        self._offsets = offsets
        self._state = state
        self._inputs = inputs
        self._log = log
        self._fenced: set[str] = set()
        self.count = 0
        """Writers fenced so far."""

    def settle(
        self,
        shards: Sequence[int],
        writers_of: Callable[[int, int, int], Iterable[str]],
        wait: Callable[[float], None],
    ) -> dict[int, int]:
        """Wait until nothing is open on any of the shards, fencing the writers of what is.

        Args:
            shards: The shards to be taken over.
            writers_of: Transactional ids that may be writing to a shard, given its number, stable end and end.
            wait: Sleeps for so many seconds, or raises when the worker is stopping.

        Returns:
            The end of each shard's state log, which is also its stable end.
        """
        started = reported = time.monotonic()
        while True:
            # The stable end first: what is committed in between makes the log look open, never the other way round.
            stable = self._offsets.stable_ends([(self._state, shard) for shard in shards])
            ends = self._offsets.ends([(self._state, shard) for shard in shards])
            pending = self._pending(shards)
            unsettled = [s for s in shards if s in pending or stable[self._state, s] < ends[self._state, s]]
            if not unsettled:
                return {shard: ends[self._state, shard] for shard in shards}
            for shard in unsettled if time.monotonic() - started > _GRACE_S else ():
                for writer in writers_of(shard, stable[self._state, shard], ends[self._state, shard]):
                    self._fence(writer, shard)
            if time.monotonic() - reported > _REPORT_S:
                reported = time.monotonic()
                self._log.warning(
                    "waiting_for_open_transaction", shards=unsettled, seconds=round(reported - started, 1)
                )
            wait(_POLL_S)

    def _pending(self, shards: Sequence[int]) -> set[int]:
        wanted = [(topic, shard) for topic in self._inputs for shard in shards]
        return {shard for (_, shard), offset in self._offsets.committed(wanted).items() if offset is None}

    def _fence(self, writer: str, shard: int) -> None:
        if writer in self._fenced or writer == self._clients.transactional_id:
            return
        self._fenced.add(writer)
        self.count += 1
        self._log.info("fenced", writer=writer, shard=shard)
        # On a thread: the broker aborts at the first request, and the client learns of it up to a second later.
        threading.Thread(target=self._take_over, args=(writer,), daemon=True, name=f"fence-{shard}").start()

    def _take_over(self, writer: str) -> None:
        try:
            self._clients.producer(writer).init_transactions(REQUEST_S)
        except KafkaException as error:
            self._log.warning("fencing_failed", writer=writer, error=str(error))
            self._fenced.discard(writer)
