"""Sorting and telling apart whole numbers, against numpy's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fuseboard_detectors.segments import different, firsts, stable_order

KEYS = st.one_of(
    arrays.arrays(dtype, st.integers(0, 60), elements=st.integers(low, high))
    for dtype, low, high in (
        (np.int64, -3, 3),
        (np.int64, -(1 << 15), 1 << 15),
        (np.int64, 1 << 40, (1 << 40) + (1 << 33)),
        (np.int64, -(1 << 63), (1 << 63) - 1),
        (np.uint64, 0, (1 << 64) - 1),
        (np.uint64, (1 << 64) - 70_000, (1 << 64) - 1),
        (np.int32, -(1 << 31), (1 << 31) - 1),
        (np.uint16, 0, (1 << 16) - 1),
        (np.uint8, 0, 255),
        (np.int16, -5, 5),
    )
)


@given(keys=KEYS)
def test_keys_are_sorted_as_numpy_sorts_them(keys: np.ndarray[Any, Any]) -> None:
    assert stable_order(keys).tolist() == np.argsort(keys, kind="stable").tolist()


@given(keys=KEYS)
def test_different_keys_are_found_as_numpy_finds_them(keys: np.ndarray[Any, Any]) -> None:
    unique, first = np.unique(keys, return_index=True)
    assert different(keys).tolist() == unique.tolist()
    assert different(keys).dtype == keys.dtype
    found, where = firsts(keys)
    assert (found.tolist(), where.tolist()) == (unique.tolist(), first.tolist())


@pytest.mark.parametrize("span", [1 << 16, (1 << 16) - 1, 1 << 32, (1 << 32) - 1])
def test_the_last_key_of_each_size_is_sorted(span: int) -> None:
    keys = np.array([span, 0, 1, span - 1, 0, span, 65_536, 65_535], dtype=np.int64) + 7
    assert stable_order(keys).tolist() == np.argsort(keys, kind="stable").tolist()


def test_nothing_new_is_written_to_the_keys() -> None:
    keys = np.array([5, 5, 5], dtype=np.int64)
    found = different(keys)
    found[0] = 9
    assert keys.tolist() == [5, 5, 5]
