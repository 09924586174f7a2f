"""What needs no statistics: budgets that burn, and sessions that are stuck."""

from __future__ import annotations

import numpy as np

from fuseboard_detectors.burn import SECOND, BurnPair, Spending, burning, roll, spend
from fuseboard_detectors.loops import LoopState, fold

PAIRS = (
    BurnPair((1, 20), 300 * SECOND, 30 * SECOND),
    BurnPair((1, 10), 1_800 * SECOND, 180 * SECOND),
    BurnPair((1, 4), 10_800 * SECOND, 900 * SECOND),
)
NORMAL = 1_000
"""Micro-dollars a second; the budget is one and a half times a day of it."""
_DAY_S = 86_400


def burn_seconds(factors: tuple[int, ...], *, after_a_day: bool) -> list[int]:
    """Seconds until spending at so many times the normal rate is found, evaluated every second.

    Args:
        factors: one key each.
        after_a_day: whether each has spent normally for a day before; otherwise it has spent nothing.
    """
    k = len(factors)
    state, rows, found = Spending.fresh(k), np.arange(k), np.zeros(k, dtype=np.int64)
    start = _DAY_S if after_a_day else 0
    for minute in range(start // 60):
        now = np.full(k, minute * 60 * SECOND)
        roll(state, now)
        spend(state, rows, now, np.full(k, 60 * NORMAL))
    second = start
    while (found == 0).any():
        now = np.full(k, second * SECOND)
        roll(state, now)
        spend(state, rows, now, NORMAL * np.array(factors))
        second += 1
        fires = burning(state, 3 * NORMAL * _DAY_S // 2, PAIRS)
        found = np.where((found == 0) & fires, second - start, found)
    return found.tolist()


def loop_calls(rate: float, k: int, rng: np.random.Generator, limit: int = 8) -> np.ndarray:
    """Calls from the outage of everything that a session uses to the one at which the session is stopped.

    Each of k sessions makes 30 calls of which 2% fail, then up to 400 of which the share ``rate`` does.
    """
    before, after = 30, 400
    failed = rng.random((k, before + after)) < np.repeat([0.02, rate], [before, after])
    call = np.tile(np.arange(1, before + after + 1, dtype=np.uint64), k)
    starts = np.arange(k) * (before + after)
    counts = fold(LoopState.fresh(k), starts, failed.ravel(), call, np.zeros(len(call), dtype=np.bool_))
    stopped = counts.failures.reshape(failed.shape) >= limit
    first = np.where(stopped.any(axis=1), stopped.argmax(axis=1) - before + 1, after)
    return first[first > 0]
