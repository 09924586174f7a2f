"""Hard caps: what one event may cost, and what may be spent in one day by UTC.

A cap is exceeded by more than it, never by as much as it. It holds until it rolls over: a daily one at the next
midnight by UTC.

The current day is that of stream time. A late event of the day before counts for its own day, which is over, so it
counts nowhere: it can no longer be stopped, and must not use up what may be spent today. Sums are whole micro-dollars,
so that they are exact however the events are cut into batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from fuseboard_detectors.segments import I64, Bools, Places, owners, running_sum, sizes

DAY: Final = 86_400_000_000
"""Microseconds of a day; days by UTC have no leap seconds in time since the epoch."""


@dataclass(slots=True)
class DaySpending:
    """What k keys have spent today, shape (k,) each."""

    day: I64
    """The number of the day since the epoch."""
    micro_usd: I64
    """Micro-dollars spent in it."""

    @classmethod
    def fresh(cls, k: int) -> DaySpending:
        """Keys that have spent nothing."""
        return cls(np.zeros(k, dtype=np.int64), np.zeros(k, dtype=np.int64))


@dataclass(slots=True)
class DayTotals:
    """What each of n events brought its key to, shape (n,) each."""

    spent: I64
    """Micro-dollars of the day so far, this event's among them."""
    counted: Bools
    """Whether the event is of the current day; the others count nowhere."""


def over_event(micro_usd: I64, cap: int | I64) -> Bools:
    """Which events cost more than a cap on one event, shape (n,)."""
    found: Bools = micro_usd > cap
    return found


def fold(state: DaySpending, starts: Places, at_us: I64, stream_us: I64, micro_usd: I64) -> DayTotals:
    """Count the next events of every key; the state is that after the last of them.

    Args:
        state: k keys, in place, each with at least one event.
        starts: where each key's events begin, shape (k,), ascending from 0; a key's events are in their order.
        at_us: the time of each event, microseconds, shape (n,).
        stream_us: stream time at each, not before the event's and never falling within a key, shape (n,).
        micro_usd: what each cost, not negative, shape (n,).
    """
    n = len(at_us)
    if n == 0:
        return DayTotals(micro_usd, np.zeros(0, dtype=np.bool_))
    today = stream_us // DAY
    counted = at_us // DAY == today
    cost = np.where(counted, micro_usd, 0)
    key = owners(starts, n)
    # A day's sum begins with what the state has of it, or at nothing at the first event of a later day.
    begins = np.ones(n, dtype=np.bool_)
    begins[1:] = (today[1:] != today[:-1]) | (key[1:] != key[:-1])
    first = np.flatnonzero(begins)
    before = np.zeros(len(first), dtype=np.int64)
    before[np.searchsorted(first, starts)] = np.where(today[starts] == state.day, state.micro_usd, 0)
    spent = running_sum(first, cost) + np.repeat(before, sizes(first, n))
    last = np.append(starts[1:], n) - 1
    state.day, state.micro_usd = today[last], spent[last]
    return DayTotals(spent, counted)


def over_day(totals: DayTotals, micro_usd: I64, cap: int | I64) -> Bools:
    """Which events brought their key above a daily cap, shape (n,): at most one for each key and day."""
    found: Bools = totals.counted & (totals.spent > cap) & (totals.spent - micro_usd <= cap)
    return found


def still_over(state: DaySpending, now_us: int, cap: int | I64) -> Bools:
    """Which keys are above a daily cap at a time, shape (k,); from midnight on none is."""
    found: Bools = (state.day == now_us // DAY) & (state.micro_usd > cap)
    return found


def rolls_over(at_us: I64) -> I64:
    """When the caps of the day of each time end: the next midnight by UTC, microseconds."""
    found: I64 = (at_us // DAY + 1) * DAY
    return found
