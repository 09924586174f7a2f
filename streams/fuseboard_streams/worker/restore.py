"""Taking over shards: settle what is open, read the state log, and check that it fits the inputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from confluent_kafka import KafkaError

from fuseboard_schemas.records import StateKind
from fuseboard_streams.worker.clients import error_of, is_fatal, is_hopeless
from fuseboard_streams.worker.errors import StateConflictError
from fuseboard_streams.worker.fencing import Fencing
from fuseboard_streams.worker.offsets import Offsets
from fuseboard_streams.worker.ownership import OwnedShard
from fuseboard_streams.worker.statelog import EntryJoiner
from fuseboard_streams.worker.statereader import StateReader, settle_wait

if TYPE_CHECKING:
    from confluent_kafka import KafkaException
    from structlog.typing import FilteringBoundLogger

    from fuseboard_schemas.topics import TopicNames
    from fuseboard_streams.core.ruleset import RuleSet
    from fuseboard_streams.core.shard import Shard
    from fuseboard_streams.worker.clients import Clients
    from fuseboard_streams.worker.statereader import Stored

MakeShard: TypeAlias = Callable[[int], "Shard"]


@dataclass(frozen=True, slots=True)
class Takeover:
    """Shards to take over, and what this process still has of them."""

    shards: tuple[int, ...]
    kept: dict[int, OwnedShard]
    cancelled: Callable[[], bool]
    """Whether they have been given to somebody else meanwhile, or the worker is stopping."""
    publish: Callable[[OwnedShard, dict[str, int]], None]
    """Takes a complete shard, and where its inputs ended when it was taken over."""


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the broker said at the takeover, by full topic name and partition."""

    state_ends: dict[int, int]
    starts: dict[tuple[str, int], int]
    input_ends: dict[tuple[str, int], int]
    committed: dict[tuple[str, int], int | None]
    last: dict[int, Stored]
    """The last record of each shard's state log, where it lies near the end."""


class Restorer:
    """Takes over shards, on a thread of its own.

    Args:
        clients: Makes the readers.
        names: Full topic names.
        inputs: Names of the input topics without the prefix.
        group: The consumer group.
        partitions: Partition count of all topics.
        make_shard: An empty shard of a number.
        rules_of: The rules that a text of the state says, None if they cannot be used.
        log: For the line per restored shard.
    """

    def __init__(
        self,
        clients: Clients,
        names: TopicNames,
        inputs: Sequence[str],
        group: str,
        partitions: int,
        make_shard: MakeShard,
        rules_of: Callable[[bytes], RuleSet | None],
        log: FilteringBoundLogger,
    ) -> None:
        self._clients = clients
        self._prefix = names.prefix
        self._state = names.state
        self._inputs = tuple(inputs)
        self._group = group
        self._partitions = partitions
        self._make_shard, self._rules_of = make_shard, rules_of
        self._log = log
        self._reader = StateReader(clients, names.state, self._retry)
        self._offsets = Offsets(clients, group, self._retry)
        self.fencing = Fencing(clients, self._offsets, names.state, [names.prefix + each for each in inputs], log)
        self.bytes_restored = 0
        self.seconds = 0.0

    def take_over(self, takeover: Takeover) -> None:
        """Restore every shard and hand each to ``publish`` when it is complete.

        Raises:
            Cancelled: It became pointless.
            FuseboardError: A shard cannot be taken over; the message says why.
        """
        self._reader.cancelled = takeover.cancelled
        shards = takeover.shards
        state = [(self._state, shard) for shard in shards]
        inputs = [(self._prefix + topic, shard) for topic in self._inputs for shard in shards]
        try:
            starts = self._offsets.starts([*inputs, *state])
            writers = _Writers(self._reader, {shard: starts[self._state, shard] for shard in shards})
            ends = self.fencing.settle(shards, writers.of, lambda s: settle_wait(s, takeover.cancelled))
            positions = self._offsets.stable_ends(inputs), self._offsets.committed(inputs)
            unknown = [each for each in shards if not _unchanged(takeover.kept.get(each), ends[each])]
            # All at once: turning to a shard's log takes longer than reading what is at its end.
            last = self._reader.last_ones({each: (starts[self._state, each], ends[each]) for each in unknown})
            facts = _Facts(ends, starts, *positions, last)
            for shard in shards:
                owned = self._one(shard, takeover.kept.get(shard), facts)
                stop_at = {topic: facts.input_ends[self._prefix + topic, shard] for topic in self._inputs}
                takeover.publish(owned, stop_at)
        finally:
            self._reader.close()

    def _one(self, number: int, kept: OwnedShard | None, facts: _Facts) -> OwnedShard:
        if kept is not None and _unchanged(kept, facts.state_ends[number]):
            self._check_positions(number, kept.next, facts)
            self._log.info("shard_kept", shard=number)
            return kept
        started, before = time.monotonic(), self.bytes_restored
        owned = self._replay(number, facts)
        self._check_positions(number, owned.next, facts)
        seconds = time.monotonic() - started
        self.seconds += seconds
        self._log.info(
            "shard_restored" if owned.sequence else "shard_new",
            shard=number,
            rows=sum(owned.shard.keys.values()),
            bytes=self.bytes_restored - before,
            seconds=round(seconds, 3),
        )
        return owned

    def _replay(self, number: int, facts: _Facts) -> OwnedShard:
        start, end = facts.starts[self._state, number], facts.state_ends[number]
        earliest = {topic: facts.starts[self._prefix + topic, number] for topic in self._inputs}
        owned = OwnedShard(number, self._make_shard(number), earliest, restore_from=end, announced=end)
        last = facts.last.get(number) or self._reader.last(number, start, end)
        if last is None:
            return owned
        self._check_writer(number, last)
        owned.restore_from = owned.announced = owned.trimmed_to = max(start, last.record.restore_from)
        joiner = EntryJoiner(f"{self._state} [{number}]")
        applied = 0
        for stored in self._reader.records(number, owned.announced, end):
            entry = joiner.add(stored.record, stored.offset)
            if entry is None:
                continue
            if entry.head.kind is StateKind.DELTA:
                owned.shard.apply(entry.block)
                applied += 1
                self.bytes_restored += len(entry.block)
            owned.sequence = entry.head.sequence
            owned.next = {**earliest, **{t: o for t, o in entry.next_offsets.items() if t in earliest}}
            owned.entry_written(
                entry.first_offset, entry.last_offset, starts=entry.head.starts_round, ends=entry.head.ends_round
            )
        joiner.finish()
        if applied:
            owned.shard.finish_restore()
            self._go_on(owned.shard)
        return owned

    def _go_on(self, shard: Shard) -> None:
        """Put a shard under the rules that its state was made under: those to come change them as they would have."""
        text = shard.parts.state.rules_text
        if text is not None and shard.rules_version != shard.rules_in_force:
            rules = self._rules_of(text)
            if rules is not None:
                shard.go_on_under(rules)

    def _check_writer(self, number: int, last: Stored) -> None:
        """Refuse the state of another group, or of another number of partitions."""
        where = f"{self._state} [{number}]"
        group = last.record.writer.removeprefix("fuseboard-").rpartition("-")[0]
        if group != self._group:
            raise StateConflictError(
                f"{where}: the state was written by the group {group!r}, and this worker is of the group "
                f"{self._group!r}. Two groups cannot share one state: use --group {group}, or topics of your own with "
                "another --prefix."
            )
        if last.partitions is not None and last.partitions != self._partitions:
            raise StateConflictError(
                f"{where}: the state was written when the topics had {last.partitions} partitions; now they have "
                f"{self._partitions}. Keys would move to other shards than their state. Create all topics with "
                f"{self._partitions} partitions under a new --prefix and move the agents over, as "
                "`fuseboard topics plan` explains."
            )

    def _check_positions(self, number: int, position: dict[str, int], facts: _Facts) -> None:
        """Refuse to go on where the inputs, the state log and the group's committed offsets do not fit together."""
        for topic in self._inputs:
            full = self._prefix + topic
            where, want = f"{full} [{number}]", position[topic]
            low, high, committed = (each[full, number] for each in (facts.starts, facts.input_ends, facts.committed))
            if committed is not None and committed >= 0 and committed != want:
                raise StateConflictError(
                    f"{where}: the group {self._group!r} has committed offset {committed}, but by the state log "
                    f"{want} comes next. They are always written together, so one of them was reset. Set the group's "
                    f"offset to {want} to go on; to process the inputs anew, use a new --prefix and --group."
                )
            if low is not None and want < low:
                raise StateConflictError(
                    f"{where}: the records from offset {want} to {low - 1} were deleted before they were processed; "
                    "the worker was stopped for longer than the topic's retention. Restore the range from a copy, or "
                    "accept the loss and start with a new --prefix and --group; then raise retention.ms."
                )
            if high is not None and want > high:
                raise StateConflictError(
                    f"{where}: by the state log offset {want} comes next, but the log ends at {high}. The topic was "
                    "created anew, or the broker has lost data. Restore it, or start with a new --prefix and --group."
                )

    def _retry(self, exception: KafkaException) -> None:
        """Wait a moment after an error that may pass; raise one that will not."""
        error = error_of(exception)
        if is_hopeless(error) or is_fatal(error) or error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise self._clients.explain(exception, "while taking over a shard") from exception
        self._log.warning("takeover_retry", error=error.str())
        settle_wait(0.2, self._reader.cancelled)


def _unchanged(kept: OwnedShard | None, end: int) -> bool:
    """Whether a shard's state log still ends where it did when it was taken away.

    Between the last record and the end there is at most the marker of its transaction: whoever takes a shard over waits
    for the marker, so a record of somebody else's lies further on.
    """
    return kept is not None and kept.left_at is not None and end <= kept.left_at + 2


class _Writers:
    """Who may have left something open on a shard: the writers of its unsettled records and of the last settled one."""

    def __init__(self, reader: StateReader, starts: dict[int, int]) -> None:
        self._reader = reader
        self._starts = starts
        self._last: dict[int, set[str]] = {}

    def of(self, shard: int, stable: int, end: int) -> set[str]:
        if shard not in self._last:
            last = self._reader.last(shard, self._starts[shard], stable)
            self._last[shard] = {last.record.writer} if last else set()
        return self._last[shard] | self._reader.uncommitted_writers(shard, stable, end)
