"""Why nothing else tripped: the worker's own core, run again over the calls in the topic, watched on its way."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import numpy as np

from fuseboard_schemas.columnar import decode
from fuseboard_schemas.records import BreakerCommand, Cause, Outcome
from fuseboard_schemas.registry import PackagedResolver
from fuseboard_streams.core.prepare import prepare
from fuseboard_streams.core.settings import HashSeeds
from fuseboard_streams.core.shard import Shard

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl

    from fuseboard_streams.core.prepare import ToolCalls
    from fuseboard_streams.core.settings import CoreSettings
    from fuseboard_streams.demo.topics import Stored

_OUTCOMES = tuple(Outcome)
_FAILED = tuple(_OUTCOMES.index(each) for each in (Outcome.ERROR, Outcome.TIMEOUT))
_MADE = (*_FAILED, _OUTCOMES.index(Outcome.OK))


@dataclass(frozen=True, slots=True)
class Peak:
    """The strongest evidence that ever stood against a tool of an actor."""

    actor: str
    tool: str
    calls: int
    """Calls made: refused and cancelled ones are none."""
    failures: int
    null_p0: float
    """The failure probability that was taken for normal at the peak."""
    log10: float
    """log10 of the evidence; 0 where there was none."""


@dataclass(frozen=True, slots=True)
class Rerun:
    """What the core finds in the calls once more."""

    peaks: tuple[Peak, ...]
    trips: tuple[BreakerCommand, ...]
    """The commands with which breakers left CLOSED."""
    calls: int
    """How many calls there were, refused ones included."""


def rerun(calls: Sequence[Stored], partitions: int, settings: CoreSettings) -> Rerun:
    """Fold stored tool calls again, cut after every failure: only there can the evidence rise.

    Args:
        calls: By partition and offset.
        partitions: Of the topic.
        settings: Those of the worker.
    """
    seeds = HashSeeds(1, 2)
    peaks: dict[tuple[str, str], Peak] = {}
    trips: list[BreakerCommand] = []
    for number, group in groupby(calls, key=lambda stored: stored.partition):
        stored = list(group)
        decoded = decode("ToolCall", [each.value for each in stored], PackagedResolver())
        frame = decoded.frame
        good = stored if decoded.positions is None else [stored[at] for at in decoded.positions.tolist()]
        offsets = np.array([each.offset for each in good], dtype=np.int64)
        arrivals = np.array([each.arrival_us for each in good], dtype=np.int64)
        prepared = prepare(frame, np.full(len(good), number, dtype=np.int32), offsets, arrivals, seeds)
        shard = Shard(number, partitions, settings, seeds)
        found = _counts(frame)
        for part in _after_each_failure(prepared[number]) if number in prepared else ():
            shard.begin()
            shard.fold_tool_calls(part)
            trips += [
                each.record
                for each in shard.take_outputs()
                if isinstance(each.record, BreakerCommand) and each.record.cause is Cause.TRIP
            ]
            shard.commit()
            _note_peaks(shard, found, peaks)
    for command in trips:
        _note_trip(command, peaks)
    return Rerun(tuple(peaks.values()), tuple(trips), len(calls))


def _after_each_failure(calls: ToolCalls) -> Iterator[ToolCalls]:
    failed = np.flatnonzero(np.isin(calls.outcome, _FAILED)) + 1
    edges = [0, *failed.tolist(), len(calls)]
    for begin, end in pairwise(edges):
        if end > begin:
            yield calls.take(slice(begin, end))


def _counts(frame: pl.DataFrame) -> dict[tuple[str, str], tuple[int, int]]:
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    columns = (frame.get_column(name).to_list() for name in ("actor", "tool", "outcome"))
    for actor, tool, outcome in zip(*columns, strict=True):
        calls, failures = counts.get((actor, tool), (0, 0))
        counts[actor, tool] = calls + (outcome in _MADE), failures + (outcome in _FAILED)
    return counts


def _note_peaks(
    shard: Shard, counts: dict[tuple[str, str], tuple[int, int]], peaks: dict[tuple[str, str], Peak]
) -> None:
    for each in shard.tool_evidence():
        key = (each.actor, each.tool)
        log10 = math.log10(each.mean) if each.mean > 1 else 0.0
        if key not in peaks or log10 > peaks[key].log10:
            peaks[key] = Peak(each.actor, each.tool, *counts[key], each.null_p0, log10)


def _note_trip(command: BreakerCommand, peaks: dict[tuple[str, str], Peak]) -> None:
    # A trip takes its evidence with it: the statistic begins anew before anybody can look.
    key = (command.actor or "", command.tool or "")
    if key in peaks and command.evidence_log10 is not None and command.null_p0 is not None:
        peak = peaks[key]
        peaks[key] = Peak(
            peak.actor, peak.tool, peak.calls, peak.failures, command.null_p0, max(peak.log10, command.evidence_log10)
        )
