"""Until when an owner has heard everything: every shard has passed a second, or a grace has run out.

The grace is measured by the broker's clock, as it stands in the log: between the arrival of the first pane that says
that somebody has passed a second, and that of any later one. So nothing has to be journaled, a replay repeats it, and
shards that catch up wait for each other by the wall clock, however far their events are apart.
"""

from __future__ import annotations

from typing import Any, Final

GRACE_US: Final = 2_000_000
"""How long a second waits for shards that have not passed it."""


class Watermark:
    """How far an owner's panes are complete.

    Args:
        shards: How many there are.
    """

    def __init__(self, shards: int) -> None:
        self._passed = [0] * shards
        """By shard: whatever ended before this second has been sent."""
        self._arrival = 0
        self._reached: list[tuple[int, int]] = []
        """When the furthest shard came to which second, as far as the others have not."""
        self.second = 0
        """Everything before it is complete, or late."""

    def hear(self, shard: int, passed: int, arrival: int) -> int:
        """Take in that a pane has come.

        Args:
            shard: Who sends it.
            passed: The second that it says its shard has passed; 0 if it says nothing.
            arrival: When the broker appended it, microseconds.

        Returns:
            The second before which everything is complete.
        """
        self._arrival = max(self._arrival, arrival)
        if passed > max(self._passed):
            self._reached.append((self._arrival, passed))
        self._passed[shard] = max(self._passed[shard], passed)
        waited = [second for at, second in self._reached if at + GRACE_US <= self._arrival]
        self.second = max(self.second, min(self._passed), *waited[-1:])
        self._reached = [(at, second) for at, second in self._reached if second > self.second]
        return self.second

    def saved(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        return {"passed": self._passed, "arrival": self._arrival, "reached": self._reached, "second": self.second}

    def restore(self, saved: dict[str, Any]) -> None:
        """Put back what was saved."""
        self._passed = list(saved.get("passed") or [0] * len(self._passed))
        self._arrival, self.second = saved.get("arrival", 0), saved.get("second", 0)
        self._reached = [(at, second) for at, second in saved.get("reached", ())]
