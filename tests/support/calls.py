"""Tool calls as decoded frames, made by hand or at random, for tests of the core."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from fuseboard_schemas.keys import actor_key, partition_for
from fuseboard_schemas.records import DeniedBy, Effect, Outcome
from fuseboard_streams.core.prepare import ToolCalls, prepare
from fuseboard_streams.core.ruleset import RuleSet
from fuseboard_streams.core.settings import SECOND, CoreSettings, HashSeeds
from fuseboard_streams.core.shard import Output, Shard

SEEDS = HashSeeds(7, 11)
T0 = 1_767_225_600 * SECOND
_OUTCOMES = {outcome: code for code, outcome in enumerate(Outcome)}
_DENIERS = {each: code for code, each in enumerate(DeniedBy)}
_EFFECTS = {effect: code for code, effect in enumerate(Effect)}


@dataclass
class Call:
    """One tool call; ``at`` is its end in seconds after T0."""

    at: float
    outcome: Outcome = Outcome.OK
    actor: str = "a"
    tool: str = "t"
    tenant: str = "default"
    trace: str | None = None
    client: int = 1
    seq: int | None = None
    effect: Effect = Effect.READ
    duration_ms: int | None = 10
    probe: bool = False
    gate: tuple[str, int] | None = None
    arrival: float | None = None
    cost: int | None = None
    denied_by: DeniedBy = DeniedBy.NONE
    arguments: str | None = None
    session: str | None = None
    span: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def frame_of(calls: list[Call], first_offset: int = 0) -> pl.DataFrame:
    """The frame that decoding these calls would give."""
    n = len(calls)
    return pl.DataFrame(
        {
            "event_id": pl.Series([f"e{first_offset + i}" for i in range(n)], dtype=pl.String),
            "ts": pl.Series([T0 + round(c.at * SECOND) for c in calls], dtype=pl.Int64),
            "tenant": pl.Series([c.tenant for c in calls], dtype=pl.String),
            "actor": pl.Series([c.actor for c in calls], dtype=pl.String),
            "client_id": pl.Series([c.client for c in calls], dtype=pl.Int64),
            "seq": pl.Series([c.seq for c in calls], dtype=pl.Int64),
            "trace_id": pl.Series([c.trace for c in calls], dtype=pl.String),
            "tool": pl.Series([c.tool for c in calls], dtype=pl.String),
            "effect": pl.Series([_EFFECTS[c.effect] for c in calls], dtype=pl.UInt8),
            "outcome": pl.Series([_OUTCOMES[c.outcome] for c in calls], dtype=pl.UInt8),
            "duration_ms": pl.Series([c.duration_ms for c in calls], dtype=pl.Int64),
            "cost_usd_micros": pl.Series([c.cost for c in calls], dtype=pl.Int64),
            "denied_by": pl.Series([_DENIERS[c.denied_by] for c in calls], dtype=pl.UInt8),
            "session_id": pl.Series([c.session for c in calls], dtype=pl.String),
            "span_id": pl.Series([c.span for c in calls], dtype=pl.String),
            "args_hash": pl.Series([c.arguments for c in calls], dtype=pl.String),
            "probe": pl.Series([c.probe for c in calls], dtype=pl.Boolean),
            "gate_breaker": pl.Series([c.gate[0] if c.gate else None for c in calls], dtype=pl.String),
            "gate_epoch": pl.Series([c.gate[1] if c.gate else None for c in calls], dtype=pl.Int64),
        }
    )


def prepared(calls: list[Call], shard: int = 0, first_offset: int = 0) -> ToolCalls:
    """The calls as one shard's prepared batch; they arrive when they end."""
    n = len(calls)
    arrival = np.array([T0 + round((c.at if c.arrival is None else c.arrival) * SECOND) for c in calls])
    batch = prepare(
        frame_of(calls, first_offset),
        np.full(n, shard, dtype=np.int32),
        np.arange(first_offset, first_offset + n, dtype=np.int64),
        arrival.astype(np.int64),
        SEEDS,
    )
    return batch[shard]


def make_shard(
    settings: CoreSettings | None = None, number: int = 0, partitions: int = 1, rules: RuleSet | None = None
) -> Shard:
    """A fresh shard."""
    return Shard(number, partitions, settings or CoreSettings(), SEEDS, rules)


def fold(shard: Shard, calls: list[Call], cuts: list[int] | None = None, first_offset: int = 0) -> list[Output]:
    """Fold the calls in transactions cut at these positions; the outputs in order."""
    outputs: list[Output] = []
    edges = [0, *(cuts or []), len(calls)]
    for a, b in itertools.pairwise(edges):
        if a == b:
            continue
        shard.begin()
        shard.fold_tool_calls(prepared(calls[a:b], shard.number, first_offset + a))
        outputs += shard.take_outputs()
        shard.encode_changes(256)
        shard.commit()
    return outputs


def home(actor: str, partitions: int, tenant: str = "default") -> int:
    """The partition of an actor."""
    return partition_for(actor_key(tenant, actor), partitions)
