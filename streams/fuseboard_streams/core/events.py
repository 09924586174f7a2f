"""Events of an actor that are no tool calls: from one decoded frame of many partitions to each shard's, as columns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_streams.core.layout import EPOCH_S
from fuseboard_streams.core.prepare import costs, hash_actors, integers, long_ids, numbers, split, texts
from fuseboard_streams.core.settings import SECOND

if TYPE_CHECKING:
    import polars as pl

    from fuseboard_streams.core.prepare import Columns
    from fuseboard_streams.core.settings import HashSeeds

U64: TypeAlias = NDArray[np.uint64]
I64: TypeAlias = NDArray[np.int64]
Rows: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]

TRACES: Final = "traces"
DECISIONS: Final = "policy-decisions"
REQUESTS: Final = "session-requests"

COST: Final = "cost"
_CODES: Final = {
    TRACES: ("kind", "outcome"),
    DECISIONS: ("decision", "mode", "severity", "effect"),
    REQUESTS: ("accepted",),
}
"""The columns of each topic that are numbers as they are read: codes of enums, in the schema's order, and truths."""
_COMMON: Final = ("event_id", "ts", "tenant", "actor", "client_id", "seq", "trace_id", "session_id")
_FURTHER: Final = {
    TRACES: ("cost_usd_micros",),
    DECISIONS: ("span_id", "tool", "rule"),
    REQUESTS: (),
}
COLUMNS: Final = {topic: frozenset((*_COMMON, *codes, *_FURTHER[topic])) for topic, codes in _CODES.items()}
"""What is used of each topic's records, by topic name without the prefix."""


@dataclass(slots=True)
class ActorEvents:
    """n events of one topic and one shard in partition order; every array has shape (n,)."""

    topic: str
    """Without the prefix."""
    offset: I64
    arrival: I64
    """When the broker appended the record, microseconds."""
    ts: I64
    """When it happened, microseconds; once the shard has taken it in, set back where it lay in the future."""
    client: I64
    seq: I64
    """`NO_SEQ` where there is none."""
    actor_lo: U64
    actor_hi: U64
    """128-bit hash of tenant and actor."""
    wordy: Bools
    """Whether one of its ids is too long to be repeated, see `long_ids`."""
    source: NDArray[np.uint32]
    """Row in ``frame``."""
    late: Bools
    """Whether it lies too far behind its topic's newest event to decide anything; false until a shard has said so."""
    columns: dict[str, NDArray[Any]]
    """The topic's own numbers. ``traces``: ``cost`` in micro-dollars (`NO_COST` where unknown), ``kind``, ``outcome``.
    ``policy-decisions``: ``decision``, ``mode``, ``severity``, ``effect``. ``session-requests``: ``accepted``."""
    frame: pl.DataFrame

    def __len__(self) -> int:
        """The number of events."""
        return len(self.offset)

    def strings(self, column: str, rows: NDArray[np.intp] | NDArray[np.int64]) -> list[str | None]:
        """The values of a text column for some of the events."""
        return texts(self.frame, column, self.source[rows])

    def take(self, rows: NDArray[np.intp] | Bools | slice) -> ActorEvents:
        """Some of the events."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        return replace(self, **{name: getattr(self, name)[rows] for name in _ARRAYS}, columns=columns)


_ARRAYS = ("offset", "arrival", "ts", "client", "seq", "actor_lo", "actor_hi", "wordy", "source", "late")


@dataclass(slots=True)
class EventPiece:
    """n events in order that no timer interrupts, with the rows they belong to; every array has shape (n,)."""

    events: ActorEvents
    stream: I64
    """Stream time once the event has been seen."""
    actor: Rows
    client: Rows
    """-1 where the event carries no sequence number."""

    def __len__(self) -> int:
        """The number of events."""
        return len(self.stream)

    @property
    def seconds(self) -> NDArray[np.int32]:
        """Stream time in whole seconds since 2000, as the tables keep it."""
        return (self.stream // SECOND - EPOCH_S).astype(np.int32)

    def part(self, rows: slice | Bools) -> EventPiece:
        """Some of the events."""
        return EventPiece(self.events.take(rows), self.stream[rows], self.actor[rows], self.client[rows])


def prepare_events(
    topic: str,
    frame: pl.DataFrame,
    partition: NDArray[np.int32],
    offset: I64,
    arrival: I64,
    seeds: HashSeeds,
) -> dict[int, ActorEvents]:
    """Split decoded events of one topic by partition. Thread-safe; nothing is kept.

    Args:
        topic: One of `COLUMNS`.
        frame: n decoded records in consumption order, with the columns of `COLUMNS`.
        partition: shape (n,).
        offset: shape (n,), growing within a partition.
        arrival: the broker's append times in microseconds, shape (n,).
        seeds: of this process.

    Returns:
        For each partition that occurs, its events in offset order.
    """
    if frame.is_empty():
        # Every record of the batch was bad.
        return {}
    actor_lo, actor_hi = hash_actors(frame.get_column("tenant"), frame.get_column("actor"), seeds)
    own = _own_columns(topic, frame)
    columns: Columns = {
        "offset": offset,
        "arrival": arrival,
        "ts": integers(frame, "ts", 0),
        "client": integers(frame, "client_id", 0),
        "seq": numbers(frame),
        "actor_lo": actor_lo,
        "actor_hi": actor_hi,
        "wordy": long_ids(frame),
        "source": np.arange(len(frame), dtype=np.uint32),
        "late": np.zeros(len(frame), dtype=np.bool_),
    }
    made = {}
    for number, part in split(columns | own, partition):
        mine = {name: part.pop(name) for name in own}
        made[number] = ActorEvents(topic=topic, **part, columns=mine, frame=frame)  # type: ignore[arg-type]
    return made


def _own_columns(topic: str, frame: pl.DataFrame) -> Columns:
    own: Columns = {name: frame.get_column(name).to_numpy() for name in _CODES[topic]}
    if topic == TRACES:
        own[COST] = costs(frame)
    return own
