"""Where a shard stands in time: its stream time, and the newest event of each input."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_streams.core.inputs import DATED

if TYPE_CHECKING:
    from fuseboard_streams.core.settings import CoreSettings

I64: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]


@dataclass(slots=True)
class Placed:
    """The times of n events; every array has shape (n,)."""

    ts: I64
    """Event time, set back to the arrival where it lay in the future, microseconds."""
    stream: I64
    """Stream time once the event has been seen, microseconds."""
    late: Bools
    """Whether it lies too far behind the newest event of its topic to decide anything."""
    newest: int
    """The topic's newest time once all have been seen."""
    clamped: int
    """How many were set back."""


@dataclass(slots=True)
class Times:
    """Stream time and each topic's own newest time, microseconds; they never fall.

    Stream time is what timers and clocks go by, and every topic moves it. Whether an event is late is measured against
    its own topic alone: else what one topic decides would depend on how far another has been read.
    """

    stream: int = 0
    newest: dict[str, int] = field(default_factory=dict)
    """By topic; nothing where no event has been seen."""

    def copy(self) -> Times:
        """The same, to go back to."""
        return Times(self.stream, dict(self.newest))

    def advance(self, to_us: int) -> None:
        """All inputs are at their end: time passes for each of them."""
        self.stream = to_us
        self.newest = dict.fromkeys(DATED, to_us)

    def place(self, topic: str, ts: I64, arrival: I64, settings: CoreSettings) -> Placed:
        """The times of the next events of a topic, in partition order, shape (n,), n > 0."""
        future = ts > arrival + settings.future_tolerance_us
        ts = np.where(future, arrival, ts)
        highest = np.maximum.accumulate(ts)
        stream = np.maximum(highest, self.stream)
        newest = np.maximum(highest, self.newest.get(topic, 0))
        late = newest - ts > settings.late_after_us
        return Placed(ts, stream, late, int(newest[-1]), int(np.count_nonzero(future)))

    def reach(self, topic: str, placed: Placed) -> None:
        """Those events have been folded: move on."""
        self.stream, self.newest[topic] = int(placed.stream[-1]), placed.newest
