"""From raw batches to each shard's work. Pure but for the schema registry; runs on a second thread while lagging."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import numpy as np

from fuseboard_schemas import columnar
from fuseboard_schemas.codec import DecodeError, Decoder
from fuseboard_schemas.topics import TOPICS
from fuseboard_streams.core.events import COLUMNS as EVENT_COLUMNS
from fuseboard_streams.core.events import ActorEvents, prepare_events
from fuseboard_streams.core.inputs import ACKS, OVERRIDES, PANES, SIGNALS, TOOL_CALLS, Inputs, Received
from fuseboard_streams.core.prepare import COLUMNS as CALL_COLUMNS
from fuseboard_streams.core.prepare import ToolCalls, prepare
from fuseboard_streams.core.shard import is_echo
from fuseboard_streams.worker.deadletters import BadRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fuseboard_schemas.records import DeadLetterReason
    from fuseboard_schemas.registry import Resolver
    from fuseboard_streams.core.identity import Rejected
    from fuseboard_streams.core.settings import HashSeeds
    from fuseboard_streams.worker.rules_source import RulesText
    from fuseboard_streams.worker.source import Arrived, RawBatch

    _Verdict: TypeAlias = tuple[int, DeadLetterReason, str]
    """Position in a batch, and why what is there is bad."""

_Columns = TypeVar("_Columns", ToolCalls, ActorEvents)

_RECORDS: Final = {topic.name: topic.record for topic in TOPICS if topic.is_input}
"""What the values of each input are, by topic name without the prefix."""
INPUTS: Final = tuple(_RECORDS)
"""Every input of a shard, by topic name without the prefix."""
_SINGLE: Final = (ACKS, SIGNALS, OVERRIDES, PANES)
"""Inputs of few records, which are decoded one by one."""


@dataclass(slots=True)
class ShardWork:
    """What one batch holds for one shard."""

    inputs: Inputs = field(default_factory=Inputs)
    raw: dict[str, Arrived] = field(default_factory=dict)
    """Where each topic's records were read, for those that the field rules refuse."""
    bad: list[BadRecord] = field(default_factory=list)
    next: dict[str, int] = field(default_factory=dict)
    """The position after it, for the inputs that it has records of."""
    arrivals: dict[str, int] = field(default_factory=dict)
    """Arrival of the last record of each of those, microseconds."""

    def after(self, position: dict[str, int]) -> ShardWork:
        """The part of it that has not been processed yet: what a repeated fetch brings again is dropped."""
        inputs = self.inputs
        events = {topic: _rest(each, position[topic]) for topic, each in inputs.events.items()}
        return ShardWork(
            inputs=Inputs(
                overrides=[each for each in inputs.overrides if each.offset >= position[OVERRIDES]],
                signals=[each for each in inputs.signals if each.offset >= position[SIGNALS]],
                panes=[each for each in inputs.panes if each.offset >= position[PANES]],
                events={topic: rest for topic, rest in events.items() if rest is not None},
                calls=_rest(inputs.calls, position[TOOL_CALLS]) if inputs.calls is not None else None,
                acks=[each for each in inputs.acks if each.offset >= position[ACKS]],
            ),
            raw=self.raw,
            bad=[bad for bad in self.bad if bad.offset >= position[bad.topic]],
            next={topic: offset for topic, offset in self.next.items() if offset > position[topic]},
            arrivals={topic: self.arrivals[topic] for topic, offset in self.next.items() if offset > position[topic]},
        )

    def goes_on(self) -> list[str]:
        """The inputs that it has records of, but for panes, and for signals if they are all shards' own.

        A shard that publishes a signal at a tick of its idle clock reads it back at once, and its second's end comes
        back as a pane: that is no sign of life.
        """
        only_echoes = all(map(is_echo, self.inputs.signals)) and not any(bad.topic == SIGNALS for bad in self.bad)
        lifeless = {PANES, SIGNALS} if only_echoes else {PANES}
        return [topic for topic in self.next if topic not in lifeless]


def _rest(columns: _Columns, position: int) -> _Columns | None:
    """The records of a shard from an offset on, if there are any."""
    if len(columns) and columns.offset[0] < position:
        columns = columns.take(slice(int(np.searchsorted(columns.offset, position)), None))
    return columns if len(columns) else None


@dataclass(slots=True)
class Batch:
    """A decoded batch."""

    generation: int
    records: int
    work: dict[int, ShardWork]
    ends: list[tuple[str, int, int]]
    rules: RulesText
    """The rules that were wanted when it was decoded: what they need was read, and they are what it is folded under."""
    seconds: float = 0.0
    """What the decoding took."""


class Decoding:
    """Decodes batches. Thread-safe.

    Args:
        resolver: Finds the schemas that values were written with.
        seeds: Of this process, for the keys' hashes.
    """

    def __init__(self, resolver: Resolver, seeds: HashSeeds) -> None:
        self._resolver = resolver
        self._seeds = seeds
        self._decoder = Decoder(resolver)
        self._decoder.prepare(*(_RECORDS[topic] for topic in _SINGLE))

    def decode(self, raw: RawBatch, rules: RulesText) -> Batch:
        """Every record of a batch as work for its shard.

        Args:
            raw: What has arrived.
            rules: The rules that are wanted now.

        Raises:
            UnreachableError: A schema is unknown and the registry cannot be asked: nothing may be decided yet.
        """
        started = time.perf_counter()
        work: dict[int, ShardWork] = {}
        for arrived in raw.arrived:
            for partition, _begin, end in arrived.runs:
                shard = work.setdefault(partition, ShardWork())
                shard.next[arrived.topic] = int(arrived.offset[end - 1]) + 1
                shard.arrivals[arrived.topic] = int(arrived.arrival[end - 1])
                shard.raw[arrived.topic] = arrived
            if arrived.topic in _SINGLE:
                self._one_by_one(arrived, work)
            else:
                self._columns(arrived, work, rules.needs)
        return Batch(raw.generation, raw.records, work, raw.ends, rules, time.perf_counter() - started)

    def _columns(self, arrived: Arrived, work: dict[int, ShardWork], needs: frozenset[str]) -> None:
        topic = arrived.topic
        only = CALL_COLUMNS | needs if topic == TOOL_CALLS else EVENT_COLUMNS[topic]
        decoded = columnar.decode(_RECORDS[topic], arrived.values, self._resolver, only=only)
        partition, offset, arrival = arrived.partition, arrived.offset, arrived.arrival
        if decoded.positions is not None:
            good = decoded.positions
            partition, offset, arrival = partition[good], offset[good], arrival[good]
        if topic == TOOL_CALLS:
            for number, calls in prepare(decoded.frame, partition, offset, arrival, self._seeds).items():
                work[number].inputs.calls = calls
        else:
            parts = prepare_events(topic, decoded.frame, partition, offset, arrival, self._seeds)
            for number, events in parts.items():
                work[number].inputs.events[topic] = events
        _add_bad(arrived, [(bad.position, bad.reason, bad.detail) for bad in decoded.bad], work)

    def _one_by_one(self, arrived: Arrived, work: dict[int, ShardWork]) -> None:
        bad: list[_Verdict] = []
        for position, value in enumerate(arrived.values.unpacked()):
            try:
                record = self._decoder.decode(value, _RECORDS[arrived.topic])
            except DecodeError as error:
                bad.append((position, error.reason, error.detail))
                continue
            inputs = work[int(arrived.partition[position])].inputs
            into: dict[str, list[Received[Any]]] = {
                ACKS: inputs.acks, SIGNALS: inputs.signals, OVERRIDES: inputs.overrides, PANES: inputs.panes
            }  # fmt: skip
            into[arrived.topic].append(Received(int(arrived.offset[position]), int(arrived.arrival[position]), record))
        _add_bad(arrived, bad, work)


def _add_bad(arrived: Arrived, bad: Sequence[_Verdict], work: dict[int, ShardWork]) -> None:
    for each in bad_records(arrived, bad):
        work[each.partition].bad.append(each)


def bad_records(arrived: Arrived, bad: Sequence[_Verdict]) -> list[BadRecord]:
    """Records of a raw batch as ones that could not be used."""
    values = arrived.values.some([position for position, _, _ in bad]) if bad else []
    return [
        BadRecord(
            topic=arrived.topic,
            partition=int(arrived.partition[position]),
            offset=int(arrived.offset[position]),
            arrival_us=int(arrived.arrival[position]),
            reason=reason,
            detail=detail,
            key=arrived.keys[position],
            value=value,
        )
        for (position, reason, detail), value in zip(bad, values, strict=True)
    ]


def rejected_records(work: ShardWork, shard: int, rejected: Iterable[Rejected]) -> list[BadRecord]:
    """The records of a shard that the field rules refused, by their topics and offsets."""
    by_topic: dict[str, list[Rejected]] = {}
    for each in rejected:
        by_topic.setdefault(each.topic, []).append(each)
    found: list[BadRecord] = []
    for topic, several in by_topic.items():
        arrived = work.raw[topic]
        mine = np.flatnonzero(arrived.partition == shard)
        where = mine[np.searchsorted(arrived.offset[mine], [each.offset for each in several])]
        verdicts = [(at, each.reason, each.detail) for at, each in zip(where.tolist(), several, strict=True)]
        found += bad_records(arrived, verdicts)
    return found
