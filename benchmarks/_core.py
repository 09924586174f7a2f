"""Tool calls of many simulated actors through a whole shard of the core, without Kafka."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from fuseboard_schemas.records import Outcome
from fuseboard_streams.core.prepare import prepare
from fuseboard_streams.core.settings import SECOND, CoreSettings, HashSeeds
from fuseboard_streams.core.shard import Shard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from fuseboard_streams.core.shard import Output

_SEEDS = HashSeeds(7, 11)
_START_US = 1_767_225_600 * SECOND
_FAILED = list(Outcome).index(Outcome.ERROR)
_BATCH = 200_000


@dataclass(frozen=True, slots=True)
class Calls:
    """n calls in order: shape (n,) each."""

    actor: NDArray[np.int64]
    tool: NDArray[np.int64]
    failed: NDArray[np.bool_]


class Core:
    """One shard that is driven with calls, a hundred calls per actor and minute of event time."""

    def __init__(self, settings: CoreSettings, actors: int, calls_per_trace: int = 5) -> None:
        self._calls_per_trace = calls_per_trace
        self.shard = Shard(0, 1, settings, _SEEDS)
        self._step_us = max(60 * SECOND // (100 * actors), 1)
        self._actors = pl.Series([f"actor-{i}" for i in range(actors)], dtype=pl.String)
        self._made = np.zeros(actors, dtype=np.int64)
        self._offset = 0

    def fold(self, calls: Calls) -> Iterator[Output]:
        """Fold calls in transactions, and pass on what was decided."""
        for begin in range(0, len(calls.actor), _BATCH):
            part = slice(begin, begin + _BATCH)
            yield from self._fold(calls.actor[part], calls.tool[part], calls.failed[part])

    def _fold(self, actor: NDArray[np.int64], tool: NDArray[np.int64], failed: NDArray[np.bool_]) -> Iterator[Output]:
        n = len(actor)
        offset = np.arange(self._offset, self._offset + n, dtype=np.int64)
        ts = _START_US + offset * self._step_us
        number = self._numbers(actor)
        nothing = pl.Series([None], dtype=pl.String).new_from_index(0, n)
        name = self._actors.gather(actor)
        trace = pl.concat_str([name, pl.Series(number // self._calls_per_trace)], separator="/")
        frame = pl.DataFrame(
            {
                "event_id": pl.Series(offset).cast(pl.String),
                "ts": ts,
                "tenant": pl.Series(["default"], dtype=pl.String).new_from_index(0, n),
                "actor": name,
                "client_id": actor,
                "seq": number,
                "trace_id": pl.select(trace).to_series(),
                "tool": pl.Series([f"tool-{i}" for i in range(int(tool.max()) + 1)], dtype=pl.String).gather(tool),
                "effect": np.zeros(n, dtype=np.uint8),
                "outcome": np.where(failed, _FAILED, 0).astype(np.uint8),
                "duration_ms": pl.Series([None], dtype=pl.Int64).new_from_index(0, n),
                "cost_usd_micros": pl.Series([None], dtype=pl.Int64).new_from_index(0, n),
                "probe": np.zeros(n, dtype=np.bool_),
                "gate_breaker": nothing,
                "gate_epoch": pl.Series([None], dtype=pl.Int64).new_from_index(0, n),
            }
        )
        self._offset += n
        batch = prepare(frame, np.zeros(n, dtype=np.int32), offset, ts, _SEEDS)
        self.shard.begin()
        self.shard.fold_tool_calls(batch[0])
        outputs = self.shard.take_outputs()
        self.shard.encode_changes(1 << 16)
        self.shard.commit()
        yield from outputs

    def _numbers(self, actor: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many calls each call's actor had made before it."""
        order = np.argsort(actor, kind="stable")
        ordered = actor[order]
        first = np.flatnonzero(np.diff(ordered, prepend=-1))
        rank = np.arange(len(actor)) - np.repeat(first, np.diff(np.append(first, len(actor))))
        number = np.empty(len(actor), dtype=np.int64)
        number[order] = self._made[ordered] + rank
        self._made += np.bincount(actor, minlength=len(self._made))
        return number
