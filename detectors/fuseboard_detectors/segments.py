"""Sums and places within segments: the calls of many keys in one array, each key's own together and in their order."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

I64: TypeAlias = NDArray[np.int64]
U64: TypeAlias = NDArray[np.uint64]
Bools: TypeAlias = NDArray[np.bool_]
Places: TypeAlias = NDArray[np.intp]


def sizes(starts: Places, n: int) -> I64:
    """How long each segment is, shape (k,), for segments that begin at ``starts``, ascending from 0, of n elements."""
    return np.diff(starts, append=n).astype(np.int64, copy=False)


def owners(starts: Places, n: int) -> Places:
    """Which segment each element belongs to, shape (n,)."""
    return np.repeat(np.arange(len(starts)), sizes(starts, n))


def ordinals(starts: Places, n: int) -> I64:
    """The place of each element in its segment, from 0, shape (n,)."""
    found: I64 = np.arange(n) - np.repeat(starts, sizes(starts, n))
    return found


def running_sum(starts: Places, values: I64) -> I64:
    """The sum of each segment's values up to and with each element, shape (n,). Exact: whole numbers."""
    total = np.cumsum(values)
    before = total[starts] - values[starts] if len(starts) else total[:0]
    return total - np.repeat(before, sizes(starts, len(values)))
