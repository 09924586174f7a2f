"""The key index against a dictionary, with keys made to collide."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from fuseboard_streams.core.index import KeyIndex, _homes, first_occurrences

MASK = 2**64 - 1


def _crowd() -> list[tuple[int, int]]:
    """Keys that share the first slot of a table of 16 to 1024 slots, and keys that differ in one half only."""
    lo = np.arange(1, 200_001, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    hi = lo[::-1].copy()
    same = np.flatnonzero(_homes(lo, hi, 10) == _homes(lo[:1], hi[:1], 10)[0])[:40]
    crowd = [(int(lo[at]), int(hi[at])) for at in same]
    return (
        crowd
        + [(0, 0), (MASK, MASK), (0, MASK), (MASK, 0)]
        + [(lo, 7) for lo in range(8)]
        + [(7, hi) for hi in range(7)]
    )


CROWD = _crowd()
OPERATIONS = st.lists(
    st.tuples(st.booleans(), st.lists(st.sampled_from(CROWD), max_size=20, unique=True)), min_size=1, max_size=30
)


def _halves(keys: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([lo for lo, _ in keys], np.uint64), np.array([hi for _, hi in keys], np.uint64)


@given(operations=OPERATIONS, shared=st.booleans())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_behaves_like_a_dictionary(operations: list[tuple[bool, list[tuple[int, int]]]], shared: bool) -> None:
    keys_lo, keys_hi = np.zeros(80, np.uint64), np.zeros(80, np.uint64)
    index = KeyIndex(keys=(lambda: (keys_lo, keys_hi)) if shared else None)
    model: dict[tuple[int, int], int] = {}
    for inserting, keys in operations:
        if inserting:
            new = [key for key in keys if key not in model]
            # The lowest rows first, so that freed rows, whose old keys are still in the arrays, are used again.
            rows = [row for row in range(80) if row not in model.values()][: len(new)]
            lo, hi = _halves(new)
            keys_lo[rows], keys_hi[rows] = lo, hi
            index.insert(lo, hi, np.array(rows, np.int32))
            model.update(zip(new, rows, strict=True))
        else:
            index.remove(*_halves(keys))
            for key in keys:
                model.pop(key, None)
        assert len(index) == len(model)
        assert index.lookup(*_halves(CROWD * 2)).tolist() == [model.get(key, -1) for key in CROWD * 2]


@given(keys=st.lists(st.sampled_from(CROWD), max_size=200))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_first_occurrences(keys: list[tuple[int, int]]) -> None:
    order = list(dict.fromkeys(keys))
    unique, inverse = first_occurrences(*_halves(keys))
    assert unique.tolist() == [keys.index(key) for key in order]
    assert inverse.tolist() == [order.index(key) for key in keys]


def test_large() -> None:
    rng = np.random.default_rng(5)
    lo, hi = rng.integers(0, 2**64, (2, 60_000), dtype=np.uint64)
    index = KeyIndex()
    for start in range(0, lo.size, 7_000):
        part = slice(start, start + 7_000)
        index.insert(lo[part], hi[part], np.arange(lo.size, dtype=np.int32)[part])
    asked = rng.integers(0, lo.size, 20_000)
    assert (index.lookup(lo[asked], hi[asked]) == asked).all()
    assert (index.lookup(lo[asked], hi[asked] ^ np.uint64(1)) == -1).all()
    # Coming and going does not fill the table with removed slots, nor grow it.
    size = index.nbytes
    for start in range(0, lo.size, 1_000):
        part = slice(start, start + 1_000)
        index.remove(lo[part], hi[part])
        index.insert(lo[part], hi[part], np.arange(lo.size)[part])
    assert (index.lookup(lo, hi) == np.arange(lo.size)).all()
    assert index.nbytes <= 2 * size
    assert index.nbytes <= 20 * 4 * lo.size
