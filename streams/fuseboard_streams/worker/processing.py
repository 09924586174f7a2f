"""One turn of the loop: fold what came, and write everything that follows from it in one transaction."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final

from confluent_kafka import TopicPartition

from fuseboard_schemas.records import BreakerCommand, Heartbeat, NearTrip
from fuseboard_streams.core.nearest import nearest_to_trip
from fuseboard_streams.worker.clock import idle_advance_us
from fuseboard_streams.worker.deadletters import BadRecord, to_dead_letter
from fuseboard_streams.worker.decoding import Batch, ShardWork, rejected_records
from fuseboard_streams.worker.errors import TransactionAborted
from fuseboard_streams.worker.metrics import ShardFacts
from fuseboard_streams.worker.statelog import Journal, ranges, to_records
from fuseboard_streams.worker.transaction import Contents

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structlog.typing import FilteringBoundLogger

    from fuseboard_schemas.topics import TopicNames
    from fuseboard_streams.core.decisions import Output
    from fuseboard_streams.core.nearing import Nearing
    from fuseboard_streams.core.store import Delta
    from fuseboard_streams.worker.assignment import Assignment
    from fuseboard_streams.worker.clock import Clock
    from fuseboard_streams.worker.metrics import WorkerMetrics
    from fuseboard_streams.worker.outgoing import Outbox
    from fuseboard_streams.worker.ownership import OwnedShard
    from fuseboard_streams.worker.rules_source import RulesText
    from fuseboard_streams.worker.settings import WorkerSettings
    from fuseboard_streams.worker.transaction import Outgoing, StateWrite, Transactions

_NEAREST: Final = 5
"""Targets nearest to a trip that a heartbeat names."""


@dataclass(slots=True)
class _Part:
    """A shard's share of a transaction."""

    owned: OwnedShard
    work: ShardWork
    advance_us: int = 0
    after: dict[str, int] = field(default_factory=dict)
    decisions: list[Output] = field(default_factory=list)
    bad: list[BadRecord] = field(default_factory=list)
    delta: Delta | None = None
    write: StateWrite | None = None
    slice_owed: int = 0

    @property
    def events(self) -> int:
        """How many records it folds."""
        return len(self.work.inputs)


class Processor:
    """Folds batches into shards and commits them.

    Args:
        settings: The worker's settings.
        names: Full topic names.
        writer: This process's transactional id.
        version: Version of Fuseboard.
        assignment: The shards.
        transactions: The transactional producer.
        outbox: Makes bytes of records.
        metrics: Counts.
        clock: The clocks.
        log: For transitions and acknowledgements.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        names: TopicNames,
        writer: str,
        version: str,
        assignment: Assignment,
        transactions: Transactions,
        outbox: Outbox,
        metrics: WorkerMetrics,
        clock: Clock,
        log: FilteringBoundLogger,
    ) -> None:
        self._settings = settings
        self._prefix = names.prefix
        self._writer = writer
        self._version = version
        self._assignment = assignment
        self._transactions = transactions
        self._outbox = outbox
        self._metrics = metrics
        self._clock = clock
        self._log = log

    def claim(self) -> None:
        """Announce this process in the state log of every shard it has newly taken over.

        From then on the last committed record of the log names whoever may have a transaction open on the shard.

        Raises:
            TransactionAborted: It has to be tried again, if the shards are still ours.
        """
        claims = [each for each in self._assignment.restored.values() if not each.claimed]
        if claims:
            writes = [self._outbox.state(to_records(self._journal(each, 0, each.next), None)) for each in claims]
            offsets = [each for owned in claims for each in self._offsets(owned, owned.next)]
            self._run(Contents(offsets, self._assignment.group_metadata, [], writes, claim=True))
            for owned, write in zip(claims, writes, strict=True):
                owned.sequence += 1
                owned.entry_written(write.first_offset, write.last_offset, starts=False, ends=False)
        self._assignment.announced()

    def process(self, batch: Batch | None, rules: RulesText | None = None) -> bool:
        """Fold a batch, advance idle shards, send heartbeats that are due, all in one transaction.

        Args:
            batch: What has come.
            rules: The rules to run from here on where there is no batch, which brings its own; None: as before.

        Returns:
            Whether there was anything to commit.

        Raises:
            TransactionAborted: Every shard is as it was before; its inputs must be read again.
        """
        now = self._clock.monotonic()
        parts = self._parts(batch, now)
        rules = batch.rules if batch is not None else rules
        if rules is not None:
            parts += self._changing(rules, parts)
        beating = [each for each in self._assignment.owned.values() if self._beats(each, now)]
        if not parts and not beating:
            self._note_ends(batch, now)
            return False
        begun: list[_Part] = []
        try:
            outputs = self._fold(parts, begun, rules)
            self._encode(parts)
            outputs += [self._outbox.heartbeat(self._heartbeat(each, now)) for each in beating]
            self._run(self._contents(parts, beating, outputs))
        except TransactionAborted:
            for part in begun:
                part.owned.shard.rollback()
                part.owned.left_at = None
            raise
        for part in parts:
            self._committed(part, now)
        self._note_ends(batch, now)
        for each in beating:
            each.last_beat = now
            self._describe(each, now)
        return True

    # --- building

    def _parts(self, batch: Batch | None, now: float) -> list[_Part]:
        owned, parts = self._assignment.owned, list[_Part]()
        for number, work in sorted(batch.work.items()) if batch is not None else ():
            if number in owned:
                rest = work.after(owned[number].next)
                if rest.next:
                    parts.append(_Part(owned[number], rest))
                    for topic in rest.goes_on():
                        owned[number].saw_records(topic)
        if not self._settings.until_end:
            given = {part.owned.number: part for part in parts}
            for each in owned.values():
                advance = idle_advance_us(each, now, self._settings.idle_after_s, self._settings.heartbeat_s)
                part = given.get(each.number)
                if advance and part is None:
                    parts.append(_Part(each, ShardWork(), advance_us=advance))
                elif advance and part is not None and not part.work.goes_on():
                    # What shards tell each other comes all the time, and moves no clock.
                    part.advance_us = advance
        return parts

    def _changing(self, rules: RulesText, parts: Sequence[_Part]) -> list[_Part]:
        """The shards that have nothing else to do and run other rules."""
        busy = {part.owned.number for part in parts}
        return [
            _Part(each, ShardWork())
            for each in self._assignment.owned.values()
            if each.number not in busy and not each.shard.runs(rules.rules.version)
        ]

    def _fold(self, parts: Sequence[_Part], begun: list[_Part], rules: RulesText | None) -> list[Outgoing]:
        started = time.perf_counter()
        outputs: list[Outgoing] = []
        for part in parts:
            shard, work, number = part.owned.shard, part.work, part.owned.number
            shard.begin()
            begun.append(part)
            if rules is not None and not shard.runs(rules.rules.version):
                shard.change_rules(rules.rules, rules.text, rules.offset)
            shard.fold(work.inputs)
            if part.advance_us:
                shard.advance(shard.clock + part.advance_us)
            part.decisions = shard.take_outputs()
            # In the order of the source, whatever found them: batches must not show in the result.
            part.bad = sorted([*work.bad, *rejected_records(work, number, shard.take_rejected())], key=_source_order)
            outputs += [self._outbox.decision(number, each) for each in part.decisions]
            outputs += [self._outbox.pane(number, each) for each in shard.take_panes()]
            outputs += [self._outbox.dead_letter(to_dead_letter(each)) for each in part.bad]
        self._metrics.stages.labels("fold").inc(time.perf_counter() - started)
        return outputs

    def _encode(self, parts: Sequence[_Part]) -> None:
        started = time.perf_counter()
        settings = self._settings
        for part in parts:
            owned = part.owned
            more = max(settings.checkpoint_min_bytes, int(settings.checkpoint_bytes_per_event * part.events))
            # A slice has a price of its own, whatever its size: small transactions save up for one.
            budget = owned.slice_budget(more, settings.checkpoint_slice_bytes)
            part.slice_owed = 0 if budget else (owned.slice_owed or 0) + more
            part.delta = owned.shard.encode_changes(budget)
            part.after = {
                # An end beyond the last record is made of transaction markers: there is nothing to read before it.
                topic: max(part.work.next.get(topic, offset), owned.ends.get(topic, 0))
                for topic, offset in owned.next.items()
            }
            journal = self._journal(owned, part.advance_us, part.after)
            part.write = self._outbox.state(to_records(journal, part.delta))
        self._metrics.stages.labels("encode").inc(time.perf_counter() - started)

    def _journal(self, owned: OwnedShard, advanced_us: int, after: dict[str, int]) -> Journal:
        return Journal(
            shard=owned.number,
            writer=self._writer,
            sequence=owned.sequence + 1,
            restore_from=owned.restore_from,
            stream_time=owned.shard.stream_time,
            advanced_us=advanced_us,
            rules_version=owned.shard.rules_in_force,
            inputs=ranges(owned.next, after),
        )

    def _contents(self, parts: Sequence[_Part], beating: Sequence[OwnedShard], outputs: list[Outgoing]) -> Contents:
        positions = {each.number: (each, each.next) for each in beating}
        positions.update({part.owned.number: (part.owned, part.after) for part in parts})
        return Contents(
            offsets=[each for owned, after in positions.values() for each in self._offsets(owned, after)],
            group_metadata=self._assignment.group_metadata,
            outputs=outputs,
            state=[part.write for part in parts if part.write is not None],
        )

    def _offsets(self, owned: OwnedShard, after: dict[str, int]) -> list[TopicPartition]:
        return [TopicPartition(self._prefix + topic, owned.number, offset) for topic, offset in after.items()]

    # --- heartbeats

    def _beats(self, owned: OwnedShard, now: float) -> bool:
        known = owned.at_end() or bool(owned.arrivals)
        return known and now - owned.last_beat >= self._settings.heartbeat_s

    def _heartbeat(self, owned: OwnedShard, now: float) -> Heartbeat:
        wall_us = self._clock.wall_us()
        return Heartbeat(
            worker_id=self._settings.worker_id,
            group=self._settings.group,
            shard=owned.number,
            ts=wall_us,
            stream_time=owned.shard.stream_time,
            lag_s=round(owned.lag_s(now, wall_us), 3),
            version=self._version,
            rules_version=owned.shard.rules_in_force,
            nearest=tuple(_near(each) for each in nearest_to_trip(owned.shard.parts, _NEAREST)),
        )

    # --- afterwards

    def _run(self, contents: Contents) -> None:
        started = time.perf_counter()
        try:
            self._transactions.run(contents)
        except TransactionAborted:
            self._metrics.transactions.labels("aborted").inc()
            raise
        seconds = time.perf_counter() - started
        self._metrics.transactions.labels("committed").inc()
        self._metrics.transaction_seconds.observe(seconds)
        self._metrics.stages.labels("transaction").inc(seconds)

    def _committed(self, part: _Part, now: float) -> None:
        owned, delta, write = part.owned, part.delta, part.write
        if delta is None or write is None:
            return
        owned.shard.commit()
        owned.sequence += 1
        owned.slice_owed = part.slice_owed
        owned.announced = owned.restore_from
        owned.entry_written(write.first_offset, write.last_offset, starts=delta.starts_round, ends=delta.ends_round)
        metrics = self._metrics
        for topic, before in owned.next.items():
            if topic in part.work.next:
                metrics.records.labels(topic).inc(part.after[topic] - before)
        owned.next = part.after
        owned.processed(part.work.arrivals)
        if part.advance_us and owned.clock_from is not None:
            owned.clock_from += part.advance_us / 1_000_000
        metrics.state_bytes.inc(len(delta.block))
        metrics.saw_counters(owned.number, owned.shard.counters)
        for bad in part.bad:
            metrics.dead_letters.labels(bad.topic, bad.reason.value).inc()
        self._tell(part)

    def _tell(self, part: _Part) -> None:
        for output in part.decisions:
            command = output.record
            if isinstance(command, BreakerCommand):
                self._metrics.transitions.labels(command.scope.value, command.state.value).inc()
                self._log.info(
                    "breaker_transition",
                    breaker_id=command.breaker_id,
                    state=command.state.value,
                    epoch=command.epoch,
                    cause=command.cause.value,
                    reason=command.reason,
                )
        acks = part.work.inputs.acks
        at_us = self._clock.wall_us() if acks else 0
        for ack in acks:
            self._metrics.acks.inc()
            # One for every client and transition: too many for a log that people read.
            self._log.debug(
                "ack_received",
                breaker_id=ack.record.breaker_id,
                epoch=ack.record.epoch,
                client_id=ack.record.client_id,
                at_us=at_us,
            )

    def _note_ends(self, batch: Batch | None, now: float) -> None:
        for topic, number, offset in batch.ends if batch is not None else ():
            owned = self._assignment.owned.get(number)
            if owned is not None:
                owned.saw_end(topic, offset, now)

    def _describe(self, owned: OwnedShard, now: float) -> None:
        shard = owned.shard
        self._metrics.shards[owned.number] = ShardFacts(
            "ready",
            lag_s=owned.lag_s(now, self._clock.wall_us()),
            stream_time_us=shard.stream_time,
            counters={},
            keys=shard.keys,
            open_breakers=len(shard.open_breakers()),
        )


def _source_order(bad: BadRecord) -> tuple[str, int]:
    return bad.topic, bad.offset


def _near(target: Nearing) -> NearTrip:
    return NearTrip(**asdict(target))
