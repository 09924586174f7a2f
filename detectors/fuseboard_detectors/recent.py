"""How many distinct traces of an actor had a hit among its last so many actions, none of them too long ago.

Hits come in bursts: one stuck session repeats the same forbidden call. At a permitted rate of 0.1% "two hits in a
hundred actions" fires some 313 times per million actions on bursty traces, "hits in two distinct traces" 71 times, "in
three" 6 times (simulated). So every trace counts once, with its newest hit.

Per key a few slots are kept, one for each of the traces that were hit last: enough for any limit up to that number,
because an older trace could only matter if fewer than so many newer ones did.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

I64: TypeAlias = NDArray[np.int64]
U64: TypeAlias = NDArray[np.uint64]

SLOTS: Final = 8
"""Traces remembered for each key, and the highest limit."""


@dataclass(slots=True)
class RecentHits:
    """The traces of k keys that were hit last, shape (k, SLOTS) each; a slot whose number is 0 is empty."""

    trace: U64
    """A hash of the trace."""
    number: I64
    """The number of the key's action that was its newest hit, from 1."""
    at: I64
    """The time of that action, microseconds."""

    @classmethod
    def fresh(cls, k: int) -> RecentHits:
        """Keys without a hit."""
        return cls(
            np.zeros((k, SLOTS), dtype=np.uint64),
            np.zeros((k, SLOTS), dtype=np.int64),
            np.zeros((k, SLOTS), dtype=np.int64),
        )


def hit(state: RecentHits, trace: U64, number: I64, at_us: I64) -> None:
    """Remember one hit of every key, in place.

    Args:
        state: k keys.
        trace: a hash of the trace of each key's hit, shape (k,).
        number: the number of the action among the key's own, from 1, above that of any hit before; shape (k,).
        at_us: its time, microseconds, shape (k,).
    """
    rows = np.arange(len(trace))
    same = (state.trace == trace[:, None]) & (state.number > 0)
    # The slot of the trace, or an empty one, or that of the trace whose hit is longest ago: the least number.
    slot = np.where(same.any(axis=1), same.argmax(axis=1), state.number.argmin(axis=1))
    state.trace[rows, slot] = trace
    state.number[rows, slot] = number
    state.at[rows, slot] = at_us


def distinct(state: RecentHits, number: I64, at_us: I64, *, actions: int, max_age_us: int) -> I64:
    """In how many traces each key was hit lately, at most SLOTS, shape (k,).

    Args:
        state: k keys.
        number: the number of the key's present action, shape (k,).
        at_us: the time of it, microseconds, shape (k,).
        actions: how many of the key's last actions count, the present one among them.
        max_age_us: a hit longer ago than this does not count, microseconds.
    """
    near = (state.number > 0) & (state.number > (number - actions)[:, None])
    young = state.at >= (at_us - max_age_us)[:, None]
    found: I64 = (near & young).sum(axis=1)
    return found
