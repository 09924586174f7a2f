"""What an event costs in each detector, called as the core calls it: a piece of some thousand events sorted by key.

Detectors that take one event of each key at a time are charged by key; `objectives` counts by event, and judges by key
(`objectives_tick`).
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import numpy as np

from fuseboard_detectors import (
    burn,
    caps,
    exceed,
    failure,
    first_use,
    guard,
    loops,
    lost,
    objectives,
    pooled,
    recent,
    seen,
    silence,
    ungated,
    violations,
)

if TYPE_CHECKING:
    from collections.abc import Callable

SECOND = 1_000_000
KEYS, EVENTS = 1_000, 20_000
BY_KEY = {"failure", "objectives_tick", "pooled", "recent"}


def costs(rng: np.random.Generator, rounds: int = 7) -> dict[str, float]:
    """Microseconds of an event (of a key for those of `BY_KEY`), the least of some rounds, by detector."""
    found = {}
    for name, once in _calls(rng).items():
        once()
        least = min(_seconds(once) for _ in range(rounds))
        found[name] = least / (KEYS if name in BY_KEY else EVENTS) * 1e6
    return found


def _seconds(once: Callable[[], object]) -> float:
    begin = time.perf_counter()
    once()
    return time.perf_counter() - begin


def _calls(rng: np.random.Generator) -> dict[str, Callable[[], object]]:
    """One piece for each detector; those that take one event of a key at a time get one of each key."""
    key = np.sort(rng.integers(0, KEYS, EVENTS))
    key[:KEYS] = np.arange(KEYS)
    key.sort()
    starts = np.searchsorted(key, np.arange(KEYS))
    at = np.sort(rng.integers(10**15, 10**15 + SECOND, EVENTS))
    amount, bad = rng.integers(0, 10**6, EVENTS), rng.random(EVENTS) < 0.01
    hashes, one = rng.integers(1, 2**62, EVENTS).astype(np.uint64), np.ones(EVENTS, dtype=np.int64)
    none, number = np.zeros(EVENTS, dtype=np.bool_), np.full(KEYS, 7)
    each, now = at[starts], int(at[-1])
    known = failure.FailureParams(known_null=0.005)
    goal, reference = objectives.ObjectiveParams((1, 200)), exceed.ExceedParams()
    state = failure.FailureState.fresh(KEYS, known)
    ring, counts = lost.LostCounts.fresh(KEYS), objectives.ObjectiveCounts.fresh(KEYS)
    lost.roll(ring, now, 3_600 * SECOND)
    objectives.roll(counts, now, goal)
    objectives.count(counts, np.arange(KEYS), each, number, np.full(KEYS, 2_000), goal)
    spending = burn.Spending.fresh(KEYS)
    burn.roll(spending, now)
    later = itertools.count()
    day, refs, loop = caps.DaySpending.fresh(KEYS), exceed.ReferenceState.fresh(KEYS), loops.LoopState.fresh(KEYS)
    quiet, breaches, memory = silence.Unanswered.fresh(KEYS), ungated.Breaches.fresh(KEYS), seen.Seen.fresh(2**14)
    actors, tools = first_use.Experience.fresh(KEYS), first_use.Used.fresh(KEYS)
    hits, panes = recent.RecentHits.fresh(KEYS), pooled.PooledState.fresh(KEYS, known)
    limit, tenants = np.full(KEYS, 100), guard.GuardState.fresh(KEYS)
    return {
        "burn": lambda: burn.spend(spending, key, at, amount),
        "caps": lambda: caps.fold(day, starts, at, at, amount),
        "exceed": lambda: exceed.observe(refs, starts, amount, reference),
        "failure": lambda: failure.count_failure(state, each, known),
        "first_use": lambda: first_use.fold(actors, tools, starts, key, after=5),
        "guard": lambda: guard.decide(tenants, key, at, hashes, limit, guard.GuardParams()),
        "loops": lambda: loops.fold(loop, starts, bad, hashes, none),
        "lost": lambda: lost.count(ring, key, at, one, one, 3_600 * SECOND),
        "objectives": lambda: objectives.count(counts, key, at, one, one, goal),
        "pooled": lambda: pooled.count_pane(panes, number, number, number, known),
        "recent": lambda: recent.hit(hits, hashes[:KEYS], number, each),
        "silence": lambda: silence.fold(quiet, starts, at, bad),
        "ungated": lambda: ungated.count(
            breaches, key, at, ungated.ungated(at, at - 10 * amount, bad, none, after_us=5 * SECOND)
        ),
        "objectives_tick": lambda: objectives.states(counts, goal),
        "violations": lambda: violations.violations(memory, hashes + np.uint64(next(later)), bad),
    }
