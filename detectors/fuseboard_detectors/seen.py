"""Was this seen before? A bounded memory of 64-bit hashes: first in, first out, in buckets of a few.

It answers which observation is the first of its trace and tool, and which denial the first of its call. A hash belongs
to one bucket by its value; a full bucket forgets the hash it took in first. Forgetting only means that a thing counts
once more. With b buckets the memory holds up to 8 b hashes, and forgets early what falls into a crowded bucket.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors.segments import U64, Bools, Places, ordinals, stable_order
from fuseboard_schemas.errors import ConfigurationError

U8: TypeAlias = NDArray[np.uint8]

WAYS: Final = 8
"""Hashes of a bucket."""
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)
_HALF: Final = np.uint64(32)


@dataclass(slots=True)
class Seen:
    """A memory of b buckets, b a power of two."""

    hashes: U64
    """Shape (b, WAYS); 0 is an empty place."""
    next: U8
    """The place of each bucket that is taken next, shape (b,)."""

    @classmethod
    def fresh(cls, buckets: int) -> Seen:
        """A memory of nothing.

        Raises:
            ConfigurationError: ``buckets`` is no power of two.
        """
        if buckets < 1 or buckets & (buckets - 1):
            raise ConfigurationError(f"a memory has {buckets} buckets, expected a power of two: correct it.")
        return cls(np.zeros((buckets, WAYS), dtype=np.uint64), np.zeros(buckets, dtype=np.uint8))


def buckets_of(hashes: U64, buckets: int) -> Places:
    """The bucket of each hash, shape (n,), in a memory of so many: what `first_times` reads, and may change."""
    # The mixing tells hashes apart that differ in a few bits only; whole-number arithmetic wraps around.
    found: Places = (((hashes * _MIX) >> _HALF) & np.uint64(buckets - 1)).astype(np.intp)
    return found


def first_times(state: Seen, hashes: U64) -> Bools:
    """Which of these are not remembered, shape (n,); all of them are from now on, in place.

    Args:
        state: the memory.
        hashes: in the order in which they are seen, shape (n,), not 0.
    """
    return first_times_at(state, buckets_of(hashes, len(state.next)), hashes)


def first_times_at(state: Seen, bucket: Places, hashes: U64) -> Bools:
    """As `first_times`, of a part of a memory: ``bucket`` says which row of it each hash belongs to, shape (n,)."""
    first = np.zeros(len(hashes), dtype=np.bool_)
    for chosen in turns(bucket, hashes):
        rows = bucket[chosen]
        new = unknown(state.hashes[rows], hashes[chosen])
        first[chosen] = new
        rows, chosen = rows[new], chosen[new]
        state.hashes[rows, state.next[rows]] = hashes[chosen]
        state.next[rows] = (state.next[rows] + 1) % WAYS
    return first


def turns(bucket: Places, hashes: U64) -> list[Places]:
    """Cut hashes so that each turn asks a bucket once, and turn by turn each bucket's own come in their order.

    Hashes that repeat the one before them in their bucket change nothing and are left out.

    Args:
        bucket: of each hash, shape (n,).
        hashes: shape (n,).
    """
    if len(hashes) == 0:
        return []
    order = stable_order(bucket)
    asked, value = bucket[order], hashes[order]
    again = np.zeros(len(order), dtype=np.bool_)
    again[1:] = (asked[1:] == asked[:-1]) & (value[1:] == value[:-1])
    order, asked = order[~again], asked[~again]
    turn = ordinals(np.flatnonzero(np.diff(asked, prepend=-1)), len(order))
    return np.split(order[stable_order(turn)], np.cumsum(np.bincount(turn))[:-1])


def unknown(kept: U64, hashes: U64) -> Bools:
    """Which hashes are not in their buckets, shape (n,).

    Args:
        kept: the buckets, shape (n, WAYS).
        hashes: shape (n,).
    """
    # Eight truths are one word: looking at it takes a fraction of asking for any of eight.
    found: Bools = (kept == hashes[:, None]).view(np.uint64).ravel() == 0
    return found


def combine(one: U64, other: U64) -> U64:
    """One hash of two, never 0: of a trace and a tool."""
    mixed: U64 = ((one * _MIX) ^ (one >> _HALF)) + other * np.uint64(0xC2B2AE3D27D4EB4F)
    mixed = (mixed ^ (mixed >> _HALF)) * _MIX
    return np.maximum(mixed, np.uint64(1))


def full_buckets(state: Seen) -> int:
    """How many buckets would forget something at their next new hash."""
    per_bucket = (state.hashes != 0).sum(axis=1)
    return int(np.count_nonzero(per_bucket == WAYS))
