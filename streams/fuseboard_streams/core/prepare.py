"""From one decoded frame of many partitions to each shard's calls, as views of columns in partition order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fuseboard_schemas.rules import MAX_NAME_BYTES
from fuseboard_streams.core.runs import run_starts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fuseboard_streams.core.settings import HashSeeds

U64: TypeAlias = NDArray[np.uint64]
I64: TypeAlias = NDArray[np.int64]
Columns: TypeAlias = dict[str, NDArray[np.generic]]

COLUMNS = frozenset(
    {
        "event_id", "ts", "tenant", "actor", "client_id", "seq", "trace_id", "tool", "effect", "outcome", "duration_ms",
        "cost_usd_micros", "probe", "gate_breaker", "gate_epoch",
    }
)  # fmt: skip
"""What is always used of a tool call."""
FOR_VIOLATIONS = frozenset({"denied_by"})
FOR_SESSIONS = frozenset({"denied_by", "args_hash"})
FOR_FIRST_USES = frozenset({"denied_by"})
FOR_COVERAGE = frozenset({"session_id"})
FOR_SHARES_OF_VIOLATIONS = frozenset({"denied_by", "span_id"})
FOR_TASKS = FOR_SESSIONS
"""The hashes of traces come with those of arguments."""
"""What else rules of these kinds need."""
NO_SEQ = np.iinfo(np.int64).min
"""Stands for an event without a sequence number."""
NO_COST, NEGATIVE_COST = -1, -2
"""Stand for an event that tells no cost, and for one whose cost is below zero; costs are micro-dollars."""
_FEW = 50
_WORDS = pl.Array(pl.UInt64, 4)
_HALF = np.uint64(32)
_ZEROS = np.uint64(int.from_bytes(b"00000000", "little"))
_ODD = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)
"""Odd multipliers with well-spread bits (the golden ratio; primes of xxHash64)."""


@dataclass(slots=True)
class ToolCalls:
    """n tool calls of one shard in partition order; every array has shape (n,)."""

    offset: I64
    arrival: I64
    """When the broker appended the record, microseconds."""
    ts: I64
    """The end of the call as its client told it, microseconds."""
    duration: I64
    """Microseconds, below 0 where unknown."""
    cost: I64
    """Micro-dollars, `NO_COST` where unknown."""
    client: I64
    seq: I64
    """`NO_SEQ` where there is none."""
    outcome: NDArray[np.uint8]
    effect: NDArray[np.uint8]
    probe: NDArray[np.bool_]
    """A probe that names the breaker it was admitted by."""
    tool_lo: U64
    tool_hi: U64
    """128-bit hash of tenant, actor and tool."""
    actor_lo: U64
    actor_hi: U64
    """128-bit hash of tenant and actor."""
    denied_by: NDArray[np.uint8]
    """Number of a `DeniedBy`; 0 where not read."""
    trace: U64
    """A hash of the trace, the same on every machine; 0 without a trace or where not read."""
    arguments: U64
    """A hash of the arguments; likewise."""
    wordy: NDArray[np.bool_]
    """Whether one of its ids is too long to be repeated, see `long_ids`."""
    source: NDArray[np.uint32]
    """Row in ``frame``."""
    frame: pl.DataFrame

    def __len__(self) -> int:
        """The number of calls."""
        return len(self.offset)

    def strings(self, column: str, rows: NDArray[np.intp] | NDArray[np.int64]) -> list[str | None]:
        """The values of a text column for some of the calls."""
        return texts(self.frame, column, self.source[rows])

    def traces(self, rows: NDArray[np.intp]) -> U64:
        """A hash of the trace of some of the calls, the same on every machine; 0 without one."""
        if "args_hash" in self.frame.columns:
            return self.trace[rows]
        return stable_hash(self.frame.get_column("trace_id").gather(self.source[rows]))

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice) -> ToolCalls:
        """Some of the calls."""
        return replace(self, **{name: getattr(self, name)[rows] for name in _ARRAYS})


_ARRAYS = (
    "offset", "arrival", "ts", "duration", "cost", "client", "seq", "outcome", "effect", "probe",
    "tool_lo", "tool_hi", "actor_lo", "actor_hi", "denied_by", "trace", "arguments", "wordy",
    "source",
)  # fmt: skip


def hash_actors(tenant: pl.Series, actor: pl.Series, seeds: HashSeeds) -> tuple[U64, U64]:
    """128-bit keys of (tenant, actor) pairs."""
    base = _hash(tenant, seeds.first)
    first, second = _hash(actor, seeds.first), _hash(actor, seeds.second)
    return first + base * _odd(0), second ^ (base * _odd(1))


def extend_with_tool(actor_lo: U64, actor_hi: U64, tool: pl.Series, seeds: HashSeeds) -> tuple[U64, U64]:
    """128-bit keys of (tenant, actor, tool) from those of (tenant, actor)."""
    hashed = _hash(tool, seeds.first)
    return actor_lo * _odd(2) + hashed, actor_hi ^ (hashed * _odd(1))


def _odd(i: int) -> np.uint64:
    return np.uint64(_ODD[i])


def _hash(strings: pl.Series, seed: int) -> U64:
    return strings.hash(seed).to_numpy()


def prepare(
    frame: pl.DataFrame,
    partition: NDArray[np.int32],
    offset: I64,
    arrival: I64,
    seeds: HashSeeds,
) -> dict[int, ToolCalls]:
    """Split decoded tool calls by partition. Thread-safe; nothing is kept.

    Args:
        frame: n decoded ToolCall records in consumption order.
        partition: shape (n,).
        offset: shape (n,), growing within a partition.
        arrival: the broker's append times in microseconds, shape (n,).
        seeds: of this process.

    Returns:
        For each partition that occurs, its calls in offset order.
    """
    if frame.is_empty():
        # Every record of the batch was bad.
        return {}
    actor_lo, actor_hi = hash_actors(frame.get_column("tenant"), frame.get_column("actor"), seeds)
    tool_lo, tool_hi = extend_with_tool(actor_lo, actor_hi, frame.get_column("tool"), seeds)
    columns: Columns = {
        "offset": offset,
        "arrival": arrival,
        "ts": integers(frame, "ts", 0),
        "duration": integers(frame, "duration_ms", -1) * 1000,
        "cost": costs(frame),
        "client": integers(frame, "client_id", 0),
        "seq": numbers(frame),
        "outcome": frame.get_column("outcome").to_numpy(),
        "effect": frame.get_column("effect").to_numpy(),
        "probe": _probes(frame),
        "tool_lo": tool_lo,
        "tool_hi": tool_hi,
        "actor_lo": actor_lo,
        "actor_hi": actor_hi,
        **_extras(frame),
        "wordy": long_ids(frame),
        "source": np.arange(len(frame), dtype=np.uint32),
    }
    return {
        number: ToolCalls(**part, frame=frame)  # type: ignore[arg-type]
        for number, part in split(columns, partition)
    }


def split(columns: Columns, partition: NDArray[np.int32]) -> Iterator[tuple[int, Columns]]:
    """Columns of equal length by partition, as ``(partition, its columns)``; the order within one stays."""
    # A stable sort of small integers is a radix sort.
    order = np.argsort(partition.astype(np.uint16), kind="stable")
    by_shard = partition[order]
    if len(order) and by_shard[0] != by_shard[-1]:
        columns = {name: values[order] for name, values in columns.items()}
    starts = run_starts(by_shard)
    ends = np.append(starts[1:], len(by_shard))
    for a, b in zip(starts.tolist(), ends.tolist(), strict=True):
        yield int(by_shard[a]), {name: values[a:b] for name, values in columns.items()}


def texts(frame: pl.DataFrame, column: str, rows: NDArray[np.uint32]) -> list[str | None]:
    """The values of a text column in some rows of a frame."""
    values = frame.get_column(column)
    # Taking many at once costs as much as some fifty values one by one; `gather`, by the query engine, thrice that.
    return [values[at] for at in rows.tolist()] if len(rows) < _FEW else values[rows].to_list()


def long_ids(frame: pl.DataFrame) -> NDArray[np.bool_]:
    """Whether the id of an event or of its trace has more than `MAX_NAME_BYTES` bytes; bool[n].

    Decisions repeat both, and a trace's id names a breaker: without a limit one event could make a command that no
    topic takes.
    """
    found = np.zeros(len(frame), dtype=np.bool_)
    for name in ("event_id", "trace_id"):
        size = frame.get_column(name).str.len_bytes()
        longest = size.max()
        if isinstance(longest, int) and longest > MAX_NAME_BYTES:
            found |= (size > MAX_NAME_BYTES).fill_null(value=False).to_numpy()
    return found


def numbers(frame: pl.DataFrame) -> I64:
    """The sequence numbers, `NO_SEQ` where there is none."""
    seq = integers(frame, "seq", NO_SEQ)
    # A counter never falls below zero; such a number says nothing that could be remembered.
    return np.where(seq < 0, NO_SEQ, seq)


def costs(frame: pl.DataFrame) -> I64:
    """The costs in micro-dollars, with `NO_COST` and `NEGATIVE_COST`."""
    column = frame.get_column("cost_usd_micros")
    if column.null_count() == len(column):
        return np.full(len(column), NO_COST, dtype=np.int64)
    cost = integers(frame, "cost_usd_micros", 0)
    if cost.min() < 0:
        cost = np.where(cost < 0, NEGATIVE_COST, cost)
    return np.where(column.is_null().to_numpy(), NO_COST, cost) if column.null_count() else cost


def integers(frame: pl.DataFrame, name: str, missing: int) -> I64:
    """A column of integers, with something else for null."""
    column = frame.get_column(name)
    if column.null_count():
        column = column.fill_null(missing)
    return column.to_numpy().astype(np.int64, copy=False)


def _probes(frame: pl.DataFrame) -> NDArray[np.bool_]:
    gate = frame.get_column("gate_breaker")
    if gate.null_count() == len(gate):
        return np.zeros(len(frame), dtype=np.bool_)
    return (frame.get_column("probe") & gate.is_not_null()).to_numpy()


def _extras(frame: pl.DataFrame) -> dict[str, NDArray[np.generic]]:
    """What only some rules need, zeros where it was not read."""
    n, read = len(frame), set(frame.columns)
    return {
        "denied_by": frame.get_column("denied_by").to_numpy() if "denied_by" in read else np.zeros(n, np.uint8),
        "trace": stable_hash(frame.get_column("trace_id")) if "args_hash" in read else np.zeros(n, np.uint64),
        "arguments": stable_hash(frame.get_column("args_hash")) if "args_hash" in read else np.zeros(n, np.uint64),
    }


def hash_of(text: str) -> int:
    """64 bits for a text, the same in every process."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def stable_hash(texts: pl.Series) -> U64:
    """64 bits for each text, the same in every process: it is kept in the state; 0 for none.

    An id of 32 zeros is none: W3C Trace Context (3.2.2.3) calls such a trace invalid, and who sends it has none.

    Ids of 32 bytes, as W3C trace ids are, are read as four words; whatever else there is takes some hundred times as
    long.
    """
    words = texts.cast(pl.Binary).bin.reinterpret(dtype=_WORDS, endianness="little")
    if words.null_count() == 0:
        return _mixed(words.to_numpy())
    found = np.zeros(len(texts), dtype=np.uint64)
    plain = words.is_not_null()
    if plain.any():
        found[plain.to_numpy()] = _mixed(words.drop_nulls().to_numpy())
    other = np.flatnonzero((~plain & texts.is_not_null()).to_numpy())
    if len(other):
        found[other] = [hash_of(text) for text in texts.gather(other).to_list()]
    return found


def _mixed(words: U64) -> U64:
    """One word of four: ``uint64[n, 4]`` to ``uint64[n]``. Digits differ in few bits: every word moves all of them."""
    found: U64 = words[:, 0] * _odd(0)
    for i in (1, 2, 3):
        found ^= found >> _HALF
        found += words[:, i] * _odd(i - 1)
        found *= _odd(1)
    found ^= found >> _HALF
    found *= _odd(2)
    # Nothing but no id is 0, whatever a client makes up.
    found[found == 0] = 1
    zeros = words[:, 0] == _ZEROS
    if zeros.any():
        found[(words == _ZEROS).all(axis=1)] = 0
    return found


def hashed(frame: pl.DataFrame, column: str, rows: NDArray[np.uint32]) -> U64:
    """`stable_hash` of a text column in some rows of a frame, taken once per text; 0 where it was not read."""
    if len(rows) == 0 or column not in frame.columns:
        return np.zeros(len(rows), dtype=np.uint64)
    whole = frame.get_column(column)
    if whole.null_count() == len(whole):
        return np.zeros(len(rows), dtype=np.uint64)
    # Unlike ``gather`` this does not go through the query engine.
    values = whole[rows]
    different = values.unique()
    if 2 * len(different) > len(values):
        return stable_hash(values)
    known = pl.DataFrame({"text": different, "hash": stable_hash(different)})
    found = values.alias("text").to_frame().join(known, on="text", how="left", maintain_order="left", nulls_equal=True)
    return found.get_column("hash").to_numpy()
