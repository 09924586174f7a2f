"""Is one session stuck? So many failures in a row, or so many identical calls in a row, of one trace.

A total outage inside one long session never trips its actor, because at most three failures of a trace are counted
there; this guard is what stops that session. On recorded agents eight failures in a row occur about 200 times per
million calls, nearly always in runs that are truly stuck, so it is a matter for the session and not for its actor.

Calls that are refused by a breaker are not given to it: containment must not feed what caused it. Calls of tools that
are declared to poll are given with ``polling``; they neither make nor break a run of identical calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

I64: TypeAlias = NDArray[np.int64]
U64: TypeAlias = NDArray[np.uint64]
Bools: TypeAlias = NDArray[np.bool_]


@dataclass(slots=True)
class LoopState:
    """k traces, shape (k,) each."""

    failures: I64
    """Failures since the last success."""
    last: U64
    """A hash of the tool and the arguments of the last call; 0 before the first."""
    identical: I64
    """How often that call has been made in a row."""

    @classmethod
    def fresh(cls, k: int) -> LoopState:
        """Traces that have made no call."""
        return cls(np.zeros(k, dtype=np.int64), np.zeros(k, dtype=np.uint64), np.zeros(k, dtype=np.int64))


@dataclass(slots=True)
class LoopCounts:
    """How long the runs are after each call, shape (n,) each."""

    failures: I64
    identical: I64


def fold(state: LoopState, starts: NDArray[np.intp], failed: Bools, call: U64, polling: Bools) -> LoopCounts:
    """Count the next calls of every trace; the state is that after the last of them.

    Args:
        state: k traces, in place, each with at least one call.
        starts: where each trace's calls begin, shape (k,), ascending from 0; a trace's calls are in their order.
        failed: which calls failed, shape (n,).
        call: a hash of the tool and the arguments of each, not 0, shape (n,).
        polling: which calls belong to tools that poll, shape (n,).
    """
    n = len(failed)
    ends = np.append(starts[1:], n) - 1
    failures = _run_lengths(starts, failed, state.failures)
    # A call of a poller passes the one before it on: as if it had not been made.
    previous = _last_before(starts, call, ~polling, state.last)
    same = polling | ((call == previous) & (previous != 0))
    kept = np.where(polling, 0, 1)
    identical = _identical(starts, same, kept, state.identical)
    state.failures = failures[ends]
    state.identical = identical[ends]
    state.last = np.where(polling[ends], previous[ends], call[ends])
    return LoopCounts(failures, identical)


def _run_lengths(starts: NDArray[np.intp], flag: Bools, before: I64) -> I64:
    """How many flagged calls in a row end at each; ``before`` says how many precede a trace's first."""
    n = len(flag)
    position = np.arange(n)
    first = np.repeat(starts, np.diff(np.append(starts, n)))
    broken = np.maximum.accumulate(np.where(flag, -1, position))
    inside = broken >= first
    carried = np.repeat(before, np.diff(np.append(starts, n)))
    found: I64 = np.where(inside, position - broken, position - first + 1 + carried)
    return found


def _last_before(starts: NDArray[np.intp], values: U64, counts: Bools, before: U64) -> U64:
    """The value of the last call that counts before each, of the same trace; ``before`` where there is none."""
    n = len(values)
    position = np.arange(n)
    sizes = np.diff(np.append(starts, n))
    first = np.repeat(starts, sizes)
    upto = np.maximum.accumulate(np.where(counts, position, -1))
    earlier = np.concatenate(([-1], upto[:-1])) if n else upto
    found: U64 = np.where(earlier >= first, values[np.maximum(earlier, 0)], np.repeat(before, sizes))
    return found


def _identical(starts: NDArray[np.intp], same: Bools, kept: I64, before: I64) -> I64:
    """How often in a row the call at each position has been made; a poller's repeats the count before it."""
    n = len(same)
    sizes = np.diff(np.append(starts, n))
    first = np.repeat(starts, sizes)
    total = np.cumsum(kept)
    position = np.arange(n)
    # A run begins at a call that is not the same as the one before, and goes on over pollers.
    begun = np.maximum.accumulate(np.where(same, -1, position))
    inside = begun >= first
    since = np.where(inside, total[np.maximum(begun, 0)] - kept[np.maximum(begun, 0)], total[first] - kept[first])
    found: I64 = total - since + np.where(inside, 0, np.repeat(before, sizes))
    return found
