"""The share of missing numbers within a window, against a list of counts; and the rings under it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fuseboard_detectors.lost import CELLS, LostCounts, count, losing, roll

SECOND = 1_000_000
WITHIN = 60 * SECOND
CELL = WITHIN // CELLS


def add(state: LostCounts, row: int, at: int, expected: int, missing: int) -> None:
    roll(state, np.where(np.arange(len(state.newest)) == row, at, 0), WITHIN)
    count(state, np.array([row]), np.array([at]), np.array([expected]), np.array([missing]), WITHIN)


def test_a_share_of_enough_numbers() -> None:
    state = LostCounts.fresh(3)
    for row, (expected, missing) in enumerate([(99, 50), (100, 1), (101, 1)]):
        add(state, row, SECOND, expected, missing)
    assert losing(state, (1, 100), 100).tolist() == [False, True, False]


def test_it_is_over_when_the_window_has_passed() -> None:
    state = LostCounts.fresh(1)
    add(state, 0, 100 * SECOND, 200, 100)
    roll(state, 100 * SECOND + WITHIN - CELL, WITHIN)
    assert losing(state, (1, 100), 100)[0]
    roll(state, 100 * SECOND + WITHIN, WITHIN)
    assert not losing(state, (1, 100), 100)[0]


def test_numbers_that_come_in_late_are_not_lost() -> None:
    state = LostCounts.fresh(1)
    add(state, 0, SECOND, 200, 10)
    assert losing(state, (1, 100), 100)[0]
    add(state, 0, 2 * SECOND, 0, -10)
    assert not losing(state, (1, 100), 100)[0]


def test_late_numbers_of_a_gap_that_is_forgotten_do_no_harm() -> None:
    state = LostCounts.fresh(1)
    add(state, 0, SECOND, 200, 10)
    add(state, 0, SECOND + WITHIN, 100, -10)
    assert not losing(state, (1, 100), 100)[0]


@given(
    counts=st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 20 * SECOND), st.integers(0, 90 * SECOND), st.integers(0, 9)),
        max_size=40,
    )
)
def test_windows_hold_what_lies_in_their_cells(counts: list[tuple[int, int, int, int]]) -> None:
    state, now, kept = LostCounts.fresh(2), 0, list[tuple[int, int, int]]()
    for row, passed, late, n in counts:
        now += passed
        roll(state, now, WITHIN)
        at = max(now - late, 0)
        count(state, np.array([row]), np.array([at]), np.array([n]), np.array([n // 2]), WITHIN)
        kept.append((row, at, n))
    for row in (0, 1):
        inside = [n for r, at, n in kept if r == row and now // CELL - at // CELL < CELLS]
        assert state.expected[row].sum() == sum(inside)
        assert state.missing[row].sum() == sum(n // 2 for n in inside)


def test_what_is_older_than_the_window_has_no_place_in_it() -> None:
    state = LostCounts.fresh(1)
    roll(state, 200 * SECOND, WITHIN)
    for at, kept in ((200 * SECOND - WITHIN, 0), (200 * SECOND - WITHIN + CELL, 5)):
        count(state, np.array([0]), np.array([at]), np.array([5]), np.array([1]), WITHIN)
        assert state.expected.sum() == kept


def test_several_counts_of_one_key_add_up() -> None:
    state = LostCounts.fresh(2)
    count(state, np.array([1, 1, 1]), np.full(3, 5), np.array([1, 2, 3]), np.array([0, 1, 0]), WITHIN)
    assert (state.expected.sum(axis=1).tolist(), state.missing.sum(axis=1).tolist()) == ([0, 6], [0, 1])
