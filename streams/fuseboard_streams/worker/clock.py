"""Time: the clocks a worker looks at, and how stream time goes on where no events come."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_streams.worker.ownership import OwnedShard


def _wall_us() -> int:
    return time.time_ns() // 1_000


@dataclass(frozen=True, slots=True)
class Clock:
    """The clocks, so that tests can bring their own."""

    monotonic: Callable[[], float] = time.monotonic
    """Seconds from any start; only differences count."""
    wall_us: Callable[[], int] = _wall_us
    """Microseconds since 1970."""


def idle_advance_us(owned: OwnedShard, now: float, idle_after_s: float, every_s: float) -> int:
    """By how much a shard's stream time is to be advanced, in microseconds; 0 for not now.

    The time that has passed is added to stream time. It is never set to the wall clock: a shard that replays last
    month's events stays in last month.

    Args:
        owned: The shard.
        now: Monotonic time in seconds.
        idle_after_s: All inputs must have been at their end this long.
        every_s: Time between advances.
    """
    if owned.at_end_since is None or owned.clock_from is None or owned.shard.clock == 0:
        return 0
    if now - owned.at_end_since < idle_after_s or now - owned.clock_from < every_s:
        return 0
    return int((now - owned.clock_from) * 1_000_000)
