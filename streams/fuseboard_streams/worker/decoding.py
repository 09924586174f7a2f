"""From raw batches to each shard's work. Pure but for the schema registry; runs on a second thread while lagging."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fuseboard_schemas import columnar
from fuseboard_schemas.codec import DecodeError, Decoder
from fuseboard_streams.core.prepare import COLUMNS, prepare
from fuseboard_streams.worker.deadletters import BadRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fuseboard_schemas.records import DeadLetterReason, EnforcementAck
    from fuseboard_schemas.registry import Resolver
    from fuseboard_streams.core.prepare import ToolCalls
    from fuseboard_streams.core.settings import HashSeeds
    from fuseboard_streams.worker.source import Arrived, RawBatch

    _Verdict: TypeAlias = tuple[int, DeadLetterReason, str]
    """Position in a batch, and why what is there is bad."""

TOOL_CALLS = "tool-calls"
ACKS = "enforcement-acks"


@dataclass(slots=True)
class Ack:
    """An acknowledgement and where it was read."""

    offset: int
    record: EnforcementAck


@dataclass(slots=True)
class ShardWork:
    """What one batch holds for one shard."""

    calls: ToolCalls | None = None
    raw_calls: Arrived | None = None
    """Where the calls were read, for those that the field rules refuse."""
    acks: list[Ack] = field(default_factory=list)
    bad: list[BadRecord] = field(default_factory=list)
    next: dict[str, int] = field(default_factory=dict)
    """The position after it, for the inputs that it has records of."""
    arrival_us: int = 0
    """Arrival of its last record."""

    def after(self, position: dict[str, int]) -> ShardWork:
        """The part of it that has not been processed yet: what a repeated fetch brings again is dropped."""
        calls = self.calls
        start = position[TOOL_CALLS]
        if calls is not None and len(calls) and calls.offset[0] < start:
            calls = calls.take(slice(int(np.searchsorted(calls.offset, start)), None))
        return ShardWork(
            calls=calls if calls is not None and len(calls) else None,
            raw_calls=self.raw_calls,
            acks=[ack for ack in self.acks if ack.offset >= position[ACKS]],
            bad=[bad for bad in self.bad if bad.offset >= position[bad.topic]],
            next={topic: offset for topic, offset in self.next.items() if offset > position[topic]},
            arrival_us=self.arrival_us,
        )


@dataclass(slots=True)
class Batch:
    """A decoded batch."""

    generation: int
    records: int
    work: dict[int, ShardWork]
    ends: list[tuple[str, int, int]]
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
        self._decoder.prepare("EnforcementAck")

    def decode(self, raw: RawBatch) -> Batch:
        """Every record of a batch as work for its shard.

        Raises:
            UnreachableError: A schema is unknown and the registry cannot be asked: nothing may be decided yet.
        """
        started = time.perf_counter()
        work: dict[int, ShardWork] = {}
        for arrived in raw.arrived:
            for partition, _begin, end in arrived.runs:
                shard = work.setdefault(partition, ShardWork())
                shard.next[arrived.topic] = int(arrived.offset[end - 1]) + 1
                shard.arrival_us = max(shard.arrival_us, int(arrived.arrival[end - 1]))
            if arrived.topic == TOOL_CALLS:
                self._tool_calls(arrived, work)
            else:
                self._acks(arrived, work)
        return Batch(raw.generation, raw.records, work, raw.ends, time.perf_counter() - started)

    def _tool_calls(self, arrived: Arrived, work: dict[int, ShardWork]) -> None:
        decoded = columnar.decode("ToolCall", arrived.values, self._resolver, only=COLUMNS)
        partition, offset, arrival = arrived.partition, arrived.offset, arrived.arrival
        if decoded.positions is not None:
            good = decoded.positions
            partition, offset, arrival = partition[good], offset[good], arrival[good]
        for number, calls in prepare(decoded.frame, partition, offset, arrival, self._seeds).items():
            work[number].calls = calls
            work[number].raw_calls = arrived
        _add_bad(arrived, [(bad.position, bad.reason, bad.detail) for bad in decoded.bad], work)

    def _acks(self, arrived: Arrived, work: dict[int, ShardWork]) -> None:
        bad: list[_Verdict] = []
        for position, value in enumerate(arrived.values.unpacked()):
            try:
                record = self._decoder.decode(value, "EnforcementAck")
            except DecodeError as error:
                bad.append((position, error.reason, error.detail))
            else:
                shard = int(arrived.partition[position])
                work[shard].acks.append(Ack(int(arrived.offset[position]), record))
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


def rejected_records(
    work: ShardWork, shard: int, rejected: Iterable[tuple[int, DeadLetterReason, str]]
) -> list[BadRecord]:
    """The records of a shard that the field rules refused, by their offsets."""
    arrived = work.raw_calls
    wanted = list(rejected)
    if arrived is None or not wanted:
        return []
    mine = np.flatnonzero(arrived.partition == shard)
    where = mine[np.searchsorted(arrived.offset[mine], [offset for offset, _, _ in wanted])]
    return bad_records(
        arrived,
        [(position, reason, detail) for position, (_, reason, detail) in zip(where.tolist(), wanted, strict=True)],
    )
