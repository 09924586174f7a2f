"""An actor's first call of a tool, once it has made so many calls without it.

Tool mixes follow the task: on recorded agents a test of their drift had no usable power, so that only this is watched
live. A tool whose row was forgotten for being idle counts as new when it is called again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fuseboard_detectors.segments import I64, Bools, Places, firsts, ordinals, sizes


@dataclass(slots=True)
class Experience:
    """How many calls k actors have made, shape (k,)."""

    calls: I64

    @classmethod
    def fresh(cls, k: int) -> Experience:
        """Actors that have made no call."""
        return cls(np.zeros(k, dtype=np.int64))


@dataclass(slots=True)
class Used:
    """Which tools of actors have been called, shape (m,)."""

    used: Bools

    @classmethod
    def fresh(cls, m: int) -> Used:
        """Tools that have not been called."""
        return cls(np.zeros(m, dtype=np.bool_))


def fold(actors: Experience, tools: Used, starts: Places, tool: Places, *, after: int) -> Bools:
    """Count the next calls of every actor, in place: which are a first use, shape (n,).

    Args:
        actors: k actors, each with at least one call.
        tools: m tools of actors.
        starts: where each actor's calls begin, shape (k,), ascending from 0; an actor's calls are in their order.
        tool: which of the m tools each call is of, shape (n,).
        after: the actor has made at least so many calls before.
    """
    n = len(tool)
    length = sizes(starts, n)
    before = ordinals(starts, n) + np.repeat(actors.calls, length)
    first = np.zeros(n, dtype=np.bool_)
    row, place = firsts(tool)
    first[place] = ~tools.used[row]
    tools.used[row] = True
    actors.calls = actors.calls + length
    return first & (before >= after)
