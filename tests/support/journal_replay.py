"""Replays a journal: what a fresh shard decides when it is given exactly what the state log says, in its order.

How several topics interleaved, and how far the clock advanced an idle shard, stand in no input; they stand in the
journal. So a run of several topics cannot be compared with another run, only with its own journal: whoever was killed
or frozen, the outputs must be what one shard makes of the committed entries.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fuseboard_schemas.codec import Decoder
from fuseboard_schemas.columnar import Values
from fuseboard_schemas.records import Pane, PaneKind, Signal, StateKind, StateRecord
from fuseboard_schemas.registry import PackagedResolver
from fuseboard_schemas.topics import TopicNames
from fuseboard_streams.core.settings import CoreSettings, HashSeeds
from fuseboard_streams.core.shard import OWN_SOURCE, Shard
from fuseboard_streams.worker.deadletters import to_dead_letter
from fuseboard_streams.worker.decoding import INPUTS, Decoding, ShardWork, rejected_records
from fuseboard_streams.worker.outgoing import Outbox
from fuseboard_streams.worker.source import Arrived, RawBatch
from fuseboard_streams.worker.statelog import Entry, EntryJoiner
from tests.support.oracle_input import Row
from tests.support.workers import Read, read

if TYPE_CHECKING:
    from fuseboard_streams.worker.rules_source import RulesText
    from fuseboard_streams.worker.transaction import Outgoing

REPLAYED = ("signals", "breaker-commands", "dead-letters")
_SEEDS = HashSeeds(3, 5)


@dataclass(slots=True)
class Replay:
    """What a journal gives."""

    outputs: dict[str, list[list[Row]]]
    """Topic without prefix to partition to records in order."""
    entries: int = 0
    claims: int = 0
    records: Counter[str] = field(default_factory=Counter)
    """Records of each input that were folded."""
    mixed: int = 0
    """Entries with records of more than one input."""
    advances: int = 0
    changes: int = 0
    """Entries from which on other rules held, the first of each shard among them."""
    panes: list[Outgoing] = field(default_factory=list)
    """All but markers, by shard, in order."""


class Inputs:
    """The committed records of every input, held in memory.

    Args:
        records: By topic without the prefix and partition, in order.
    """

    def __init__(self, records: Mapping[tuple[str, int], list[Read]]) -> None:
        self._records = records
        self._offsets = {where: [each.offset for each in several] for where, several in records.items()}

    @classmethod
    def of(cls, bootstrap: str, prefix: str, partitions: int) -> Inputs:
        """All that is committed under a prefix."""
        records: dict[tuple[str, int], list[Read]] = {
            (topic, number): [] for topic in INPUTS for number in range(partitions)
        }
        for topic in INPUTS:
            for each in read(bootstrap, prefix + topic, partitions):
                records[topic, each.partition].append(each)
        return cls(records)

    def between(self, topic: str, partition: int, start: int, end: int) -> list[Read]:
        """The records of a range of offsets; transaction markers are none."""
        offsets = self._offsets[topic, partition]
        return self._records[topic, partition][bisect_left(offsets, start) : bisect_left(offsets, end)]

    def after(self, topic: str, partition: int, start: int) -> list[Read]:
        """The records from an offset on."""
        return self._records[topic, partition][bisect_left(self._offsets[topic, partition], start) :]


def state_log(bootstrap: str, prefix: str, partitions: int) -> list[list[tuple[int, StateRecord]]]:
    """The committed records of the state log, by partition, with their offsets."""
    log: list[list[tuple[int, StateRecord]]] = [[] for _ in range(partitions)]
    decode = Decoder().decode
    for each in read(bootstrap, prefix + "state", partitions):
        log[each.partition].append((each.offset, decode(each.value, "StateRecord")))
    return log


def replay(
    log: Sequence[Iterable[tuple[int, StateRecord]]],
    inputs: Inputs,
    settings: CoreSettings,
    prefix: str,
    rules: Sequence[RulesText],
) -> Replay:
    """Fold every entry's ranges of the inputs, in order, into fresh shards.

    Args:
        log: All committed records of the state log, from the first, by partition, with their offsets.
        inputs: What the worker read.
        settings: The worker's.
        prefix: Of the topics.
        rules: All that the workers may have run; the journal says which and when.

    Raises:
        AssertionError: Entries are missing, ranges do not join, or records were left out.
    """
    partitions = len(log)
    result = Replay({name: [[] for _ in range(partitions)] for name in REPLAYED})
    for number, records in enumerate(log):
        joiner = EntryJoiner(f"state [{number}]")
        entries = [entry for offset, each in records if (entry := joiner.add(each, offset)) is not None]
        joiner.finish()
        _Replayer(number, partitions, inputs, settings, TopicNames(prefix), rules, result).run(entries)
    return result


class _Replayer:
    """Replays one shard."""

    def __init__(
        self,
        number: int,
        partitions: int,
        inputs: Inputs,
        settings: CoreSettings,
        names: TopicNames,
        rules: Sequence[RulesText],
        result: Replay,
    ) -> None:
        self._number = number
        self._inputs = inputs
        self._result = result
        self._names = names
        self._rules = {each.rules.version: each for each in rules}
        self._shard = Shard(number, partitions, settings, _SEEDS, rules[0].rules)
        self._decoding = Decoding(PackagedResolver(), _SEEDS)
        self._outbox = Outbox(names, partitions)

    def run(self, entries: Sequence[Entry]) -> None:
        position: dict[str, int] = {}
        for sequence, entry in enumerate(entries, start=1):
            assert entry.head.sequence == sequence, f"shard {self._number}: entry {sequence} is missing"
            for each in entry.head.inputs:
                assert position.get(each.topic, each.from_offset) == each.from_offset, (
                    f"shard {self._number}, entry {sequence}: {each.topic} goes on at {each.from_offset} and not at "
                    f"{position[each.topic]}"
                )
                position[each.topic] = each.next_offset
            self._fold(entry)
        for topic, offset in position.items():
            left = self._inputs.after(topic, self._number, offset)
            # What shards say in their last transaction is read by nobody after it.
            assert topic == "panes" or all(topic == "signals" and is_own(each.value) for each in left), (
                f"{topic} was not read to its end"
            )

    def _fold(self, entry: Entry) -> None:
        head, shard = entry.head, self._shard
        if head.kind is StateKind.CLAIM:
            self._result.claims += 1
            assert all(each.from_offset == each.next_offset for each in head.inputs)
            return
        batch = RawBatch(0, [found for each in head.inputs if (found := self._arrived(each.topic, *_range(each)))])
        rules = self._rules[head.rules_version]
        work = self._decoding.decode(batch, rules).work.get(self._number, ShardWork())
        shard.begin()
        if shard.rules_version != head.rules_version:
            shard.change_rules(rules.rules, rules.text)
            self._result.changes += 1
        shard.fold(work.inputs)
        if head.advanced_us:
            shard.advance(shard.clock + head.advanced_us)
        self._keep([self._outbox.decision(self._number, each) for each in shard.take_outputs()])
        told = [each for each in shard.take_panes() if each.record.kind is not PaneKind.MARKER]
        self._result.panes += [self._outbox.pane(self._number, each) for each in told]
        bad = [*work.bad, *rejected_records(work, self._number, shard.take_rejected())]
        bad.sort(key=lambda each: (each.topic, each.offset))
        self._keep([self._outbox.dead_letter(to_dead_letter(each)) for each in bad])
        shard.encode_changes(512)
        shard.commit()
        assert shard.stream_time == head.stream_time, (
            f"shard {self._number}, entry {head.sequence}: another stream time"
        )
        self._result.entries += 1
        self._result.mixed += len(batch.arrived) > 1
        self._result.advances += head.advanced_us > 0

    def _arrived(self, topic: str, start: int, end: int) -> Arrived | None:
        records = self._inputs.between(topic, self._number, start, end)
        self._result.records[topic] += len(records)
        return arrived(topic, self._number, records) if records else None

    def _keep(self, several: Iterable[Outgoing]) -> None:
        for each in several:
            headers = tuple((name, value) for name, value in each.headers if isinstance(value, bytes))
            topic = each.topic.removeprefix(self._names.prefix)
            self._result.outputs[topic][self._number].append((each.key, each.value, headers))


def arrived(topic: str, partition: int, records: Sequence[Read]) -> Arrived:
    """Some records of one partition as the consumer gives them."""
    n = len(records)
    return Arrived(
        topic=topic,
        keys=[each.key for each in records],
        values=Values.of([each.value for each in records]),
        partition=np.full(n, partition, np.int32),
        offset=np.array([each.offset for each in records], dtype=np.int64),
        arrival=np.array([each.timestamp_ms * 1_000 for each in records], dtype=np.int64),
        runs=[(partition, 0, n)],
    )


def _range(each: object) -> tuple[int, int]:
    return each.from_offset, each.next_offset  # type: ignore[attr-defined]


def is_own(value: bytes | None) -> bool:
    """Whether a value is a signal that a worker published."""
    try:
        signal: Signal = Decoder().decode(value, "Signal")
    except ValueError:
        return False
    return signal.source.startswith(OWN_SOURCE)


def published(outputs: dict[str, list[list[Row]]]) -> dict[str, list[list[Row]]]:
    """What the workers published: of the signals only theirs."""
    own = [[row for row in rows if is_own(row[1])] for rows in outputs["signals"]]
    return {name: own if name == "signals" else outputs[name] for name in REPLAYED}


def panes_by_way(panes: Iterable[Outgoing | Read], partitions: int) -> dict[str, list[list[Row]]]:
    """Panes but markers in the form of outputs; a list for each way from one shard to another, in order.

    How often a marker is sent depends on batches, and how the panes of several shards interleave on chance.
    """
    ways: list[list[Row]] = [[] for _ in range(partitions**2)]
    decode = Decoder().decode
    for each in panes:
        pane: Pane = decode(each.value, "Pane")
        if pane.kind is not PaneKind.MARKER:
            ways[pane.source_shard * partitions + each.partition].append((each.key, each.value, ()))
    return {"panes": ways}
