"""The shards that a worker owns, and where each stands in its inputs and in the state log."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuseboard_streams.core.shard import Shard


@dataclass(slots=True)
class OwnedShard:
    """A shard with everything about it that is not in the core."""

    number: int
    shard: Shard
    next: dict[str, int]
    """Committed position in every input, by topic name without the prefix."""
    sequence: int = 0
    """Number of the last entry in the state log."""
    restore_from: int = 0
    """Where the last committed complete checkpoint round begins in the state log."""
    announced: int = 0
    """The ``restore_from`` that a committed record holds: nothing below it is needed any more."""
    round_start: int | None = None
    """Where the round under way begins in the state log."""
    slice_owed: int | None = None
    """Bytes of the checkpoint that have come together since its last slice; None if this process has written none."""
    left_at: int | None = None
    """Offset of the last record of the state log, as far as this worker knows; None if it cannot know."""
    claimed: bool = False
    """Whether the last committed record of the state log names this process."""
    trimmed_to: int = 0
    last_beat: float = float("-inf")
    """Monotonic time of the last heartbeat."""
    arrivals: dict[str, int] = field(default_factory=dict)
    """Arrival of the last processed record of each input, microseconds."""
    read_up_to: dict[str, int] = field(default_factory=dict)
    """The same, but only of inputs that have been read since the consumer was positioned last."""
    ready_at: float = 0.0
    caught_up_at: dict[str, float] = field(default_factory=dict)
    """Monotonic time at which each input was last told to be at its end: what waits there now arrived later."""
    ends: dict[str, int] = field(default_factory=dict)
    """Inputs that are at their end, and the offset of that end."""
    at_end_since: float | None = None
    """Monotonic time since which all inputs have been at their end."""
    clock_from: float | None = None
    """Monotonic time that stream time has been advanced up to."""

    def saw_end(self, topic: str, offset: int, now: float) -> None:
        """Note that an input has no more records at the moment."""
        if offset < self.next[topic]:
            return
        self.ends[topic] = offset
        if len(self.ends) == len(self.next) and self.at_end_since is None:
            self.at_end_since = self.clock_from = now

    def saw_records(self, topic: str) -> None:
        """Note that an input goes on."""
        self.ends.pop(topic, None)
        self.at_end_since = self.clock_from = None

    def processed(self, arrivals: dict[str, int]) -> None:
        """Note when the last processed records of some inputs arrived, microseconds."""
        self.arrivals.update(arrivals)
        self.read_up_to.update(arrivals)

    def at_end(self) -> bool:
        """Whether every input is at its end."""
        return self.at_end_since is not None

    def reached(self, stop_at: dict[str, int]) -> bool:
        """Whether every input has been processed up to an offset.

        The end of a log may be a transaction's marker, which is never delivered: being at the end counts as well.
        """
        return all(
            self.next[topic] >= offset or self.ends.get(topic, -1) >= offset for topic, offset in stop_at.items()
        )

    def lag_s(self, now: float, wall_us: int) -> float:
        """How far the input that is furthest behind is behind the clock; 0 if all are at their ends.

        Args:
            now: Monotonic time in seconds.
            wall_us: Wall clock in microseconds.
        """
        self.caught_up_at.update(dict.fromkeys(self.ends, now))
        return max((self._lag_of(topic, now, wall_us) for topic in self.next if topic not in self.ends), default=0.0)

    def _lag_of(self, topic: str, now: float, wall_us: int) -> float:
        """How long ago the last processed record arrived, and never more than the time since the end was reached."""
        arrival, caught_up_at = self.arrivals.get(topic), self.caught_up_at.get(topic)
        if arrival is None:
            return max(0.0, now - (self.ready_at if caught_up_at is None else caught_up_at))
        lag = max(0.0, (wall_us - arrival) / 1e6)
        # The first record after hours without any does not make the shard hours late.
        return lag if caught_up_at is None else min(lag, now - caught_up_at)

    def slice_budget(self, more: int, enough: int) -> int:
        """How many bytes of the checkpoint the next entry of the state log carries, 0 for none.

        The first entry of a process always carries some: one that only ever writes a few would never end a round.

        Args:
            more: What this entry is good for.
            enough: A slice is due when so much has come together.
        """
        if self.slice_owed is None:
            return enough + more
        owed = self.slice_owed + more
        return owed if owed >= enough else 0

    def entry_written(self, first_offset: int, last_offset: int, *, starts: bool, ends: bool) -> None:
        """Note where a committed entry lies, and what that means for the checkpoint rounds."""
        self.left_at = last_offset
        if starts:
            self.round_start = first_offset
        if ends and self.round_start is not None:
            self.restore_from, self.round_start = self.round_start, None

    def rewind(self) -> None:
        """The inputs are read again from the committed position: where they end must be found out anew."""
        self.ends.clear()
        self.read_up_to.clear()
        self.at_end_since = self.clock_from = None
