"""Segments: the calls of many keys in one array, each key's own together and in their order; sums and places in them.

Keys are rows of tables and other small whole numbers. A stable sort of 16-bit numbers is a radix sort in numpy, some
twenty times as fast as its stable sort of 64-bit ones, and its general `unique` is slower than a sort: what is asked
for every run of calls is asked here.
"""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

I64: TypeAlias = NDArray[np.int64]
U64: TypeAlias = NDArray[np.uint64]
Bools: TypeAlias = NDArray[np.bool_]
Places: TypeAlias = NDArray[np.intp]
_Key = TypeVar("_Key", bound=np.integer[Any])
_WORD, _SHORT = 8, 2
"""Bytes of the longest keys, and of those that numpy sorts by their digits."""
_DIGIT = 16
_MASK = (1 << _DIGIT) - 1


def stable_order(keys: NDArray[np.integer[Any]]) -> Places:
    """The order that sorts keys and leaves equal ones as they are, shape (n,): that of a stable ``argsort``."""
    if len(keys) == 0:
        return np.zeros(0, dtype=np.intp)
    least, most = int(keys.min()), int(keys.max())
    if most - least > _MASK << _DIGIT | _MASK:
        return np.argsort(keys, kind="stable")
    whole = (keys - keys.dtype.type(least)).view(np.uint64) if keys.itemsize == _WORD else _widened(keys, least)
    order: Places = np.argsort((whole & np.uint64(_MASK)).astype(np.uint16), kind="stable")
    if most - least > _MASK:
        order = order[np.argsort((whole >> np.uint64(_DIGIT)).astype(np.uint16)[order], kind="stable")]
    return order


def _widened(keys: NDArray[np.integer[Any]], least: int) -> U64:
    return (keys.astype(np.int64) - least).view(np.uint64)


def different(keys: NDArray[_Key]) -> NDArray[_Key]:
    """The different keys, ascending."""
    if len(keys) == 0 or keys.min() == keys.max():
        return keys[:1].copy()
    # Sorts of short integers are radix sorts only if they are stable.
    ordered = np.sort(keys, kind="stable" if keys.itemsize <= _SHORT else None)
    return ordered[_new(ordered)]


def firsts(keys: NDArray[_Key]) -> tuple[NDArray[_Key], Places]:
    """The different keys, ascending, and where each appears first."""
    order = stable_order(keys)
    ordered = keys[order]
    new = _new(ordered)
    return ordered[new], order[new]


def _new(ordered: NDArray[np.integer[Any]]) -> Bools:
    new = np.ones(len(ordered), dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    return new


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
