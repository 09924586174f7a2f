"""The bounded memory against a model of its buckets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseboard_detectors.seen import WAYS, Seen, buckets_of, combine, first_times, full_buckets
from fuseboard_schemas.errors import ConfigurationError


def hashes(values: list[int]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array(values, dtype=np.uint64)


def test_a_hash_is_new_once() -> None:
    state = Seen.fresh(16)
    assert first_times(state, hashes([7, 8, 7, 7, 9])).tolist() == [True, True, False, False, True]
    assert first_times(state, hashes([9, 10, 8])).tolist() == [False, True, False]


@given(values=st.lists(st.integers(1, 30), max_size=200), buckets=st.sampled_from([1, 2, 4]))
def test_a_full_bucket_forgets_what_it_took_in_first(values: list[int], buckets: int) -> None:
    state, single = Seen.fresh(buckets), Seen.fresh(buckets)
    found = first_times(state, hashes(values)).tolist()
    queues: dict[int, list[int]] = {}
    for value, new in zip(values, found, strict=True):
        bucket = ((value * 0x9E3779B97F4A7C15) % 2**64 >> 32) % buckets
        queue = queues.setdefault(bucket, [])
        assert new == (value not in queue)
        if new:
            queue.append(value)
            del queue[:-WAYS]
        assert first_times(single, hashes([value])).tolist() == [new]
    assert state.hashes.tobytes() == single.hashes.tobytes()
    assert full_buckets(state) == sum(len(queue) == WAYS for queue in queues.values())


def test_many_hashes_spread_over_the_buckets() -> None:
    """Neighbouring numbers do not share buckets: a memory of 8,192 keeps nearly all of 4,096."""
    state = Seen.fresh(1_024)
    first_times(state, hashes(list(range(1, 4_097))))
    forgotten = first_times(state, hashes(list(range(1, 4_097)))).sum()
    assert forgotten < 4_096 * 0.05


def test_only_the_buckets_of_the_hashes_change() -> None:
    state = Seen.fresh(64)
    some = hashes([5, 6, 7, 5])
    first_times(state, some)
    changed = np.flatnonzero(state.hashes.any(axis=1))
    assert changed.tolist() == sorted(set(buckets_of(some, 64).tolist()))


def test_two_hashes_make_one() -> None:
    one, other = np.meshgrid(np.arange(1, 101, dtype=np.uint64), np.arange(1, 101, dtype=np.uint64))
    mixed = combine(one.ravel(), other.ravel())
    assert len(np.unique(mixed)) == 10_000
    assert (mixed > 0).all()


@pytest.mark.parametrize("buckets", [0, 3, 12])
def test_a_number_of_buckets_is_a_power_of_two(buckets: int) -> None:
    with pytest.raises(ConfigurationError, match=f"{buckets} buckets"):
        Seen.fresh(buckets)
