"""Who else looks at what a shard takes in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuseboard_schemas.records import Signal
    from fuseboard_streams.core.events import ActorEvents

Rows: TypeAlias = NDArray[np.int64]
I64: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Heard:
    """A signal that somebody else published and that the field rules let in."""

    offset: int
    ts: int
    """Event time, set back where it lay in the future, microseconds."""
    stream: int
    """Stream time once it has been seen, microseconds."""
    late: bool
    """Whether it lies too far behind the newest signal to decide anything."""
    record: Signal


class Follower:
    """Is given every run of events that were let in, without duplicates, between two timers of the shard.

    Every array has shape (n,), n > 0. Runs are cut anywhere: what follows from them may depend on each event and on
    stream time, never on where a run ends. What a follower changes must be taken back when the shard's transaction is:
    keep it in the shard's tables. This one looks at nothing; others override what they want to see.
    """

    def on_requests(self, events: ActorEvents, stream: I64, actor_rows: Rows) -> None:
        """Session requests.

        Args:
            events: Their times are set back where they lay in the future; ``late`` ones decide nothing.
            stream: Stream time once each has been seen, microseconds.
            actor_rows: Of the actors table.
        """

    def on_decisions(self, events: ActorEvents, stream: I64, actor_rows: Rows) -> None:
        """Policy decisions, likewise."""

    def on_steps(self, events: ActorEvents, stream: I64, actor_rows: Rows) -> None:
        """Steps of traces, likewise."""

    def on_signals(self, signals: Sequence[Heard]) -> None:
        """Signals of others; those that shards publish themselves are not among them."""
