"""Inputs of a shard read side by side while it catches up, as Kafka Streams synchronises its topics by timestamp.

Every input moves the shard's stream time, and timers go by it. Without this, a worker that was away for an hour could
read an hour of traces before the first tool call of that hour, and all of them would fall into its last second.

What was consumed before the first look is folded all the same, and so is a batch that is being decoded: the bound is
the setting and two batches. Of a topic with few records two batches may be all that there is. Only stream time, and so
timers, depend on it: an event is late behind its own topic only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from fuseboard_streams.worker.ownership import OwnedShard
    from fuseboard_streams.worker.source import Source


class Synchrony:
    """Holds back inputs that are ahead of others of their shard.

    Args:
        source: The consumer.
        sync_s: See `ahead`.
    """

    def __init__(self, source: Source, sync_s: float) -> None:
        self._source = source
        self._sync_us = round(sync_s * 1_000_000)

    def run(self, shards: Iterable[OwnedShard]) -> None:
        """Hold back whoever is ahead now, and let everybody else go on; after each turn of the loop."""
        held = self._source.held
        self._source.hold(
            {(topic, each.number) for each in shards for topic in ahead(each, self._sync_us, _of(held, each.number))}
        )


def ahead(owned: OwnedShard, sync_us: int, held: Collection[str]) -> list[str]:
    """The inputs of a shard that are to wait.

    Inputs at their end have nothing to wait for or to be waited for. Of the others, one is ahead whose last processed
    record arrived more than ``sync_us`` after that of the input furthest behind; one that is held back goes on once it
    is less than half of that ahead, so that it is not stopped again at once. An input of which nothing has come yet,
    neither a record nor the news that it is at its end, is furthest behind.

    Args:
        owned: The shard.
        sync_us: Microseconds.
        held: Those that wait now.
    """
    reached = {topic: owned.read_up_to.get(topic, 0) for topic in owned.next if topic not in owned.ends}
    last = min(reached.values(), default=0)
    return [topic for topic, at in reached.items() if at - last > (sync_us // 2 if topic in held else sync_us)]


def _of(held: Iterable[tuple[str, int]], shard: int) -> list[str]:
    return [topic for topic, number in held if number == shard]
