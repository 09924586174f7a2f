"""Burn windows against a list of everything that was spent, and the delays that the notes promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseboard_detectors.burn import RINGS, SECOND, BurnPair, Spending, burning, roll, spend, within
from fuseboard_schemas.errors import ConfigurationError

SHIPPED = (
    BurnPair((1, 20), 300 * SECOND, 30 * SECOND),
    BurnPair((1, 10), 1_800 * SECOND, 180 * SECOND),
    BurnPair((1, 4), 10_800 * SECOND, 900 * SECOND),
)
WINDOWS = sorted({width * cells for width, cells in RINGS} | {180 * SECOND, 1_800 * SECOND, 5 * SECOND})


def put(state: Spending, row: int, at_us: int, micros: int) -> None:
    roll(state, np.where(np.arange(len(state.newest)) == row, at_us, 0))
    spend(state, np.array([row]), np.array([at_us]), np.array([micros]))


@given(
    spent=st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 4_000 * SECOND), st.integers(0, 10**12)), min_size=1, max_size=60
    ),
    order=st.randoms(use_true_random=False),
)
def test_windows_hold_what_was_spent_in_their_cells(spent: list[tuple[int, int, int]], order: object) -> None:
    """In whatever order it comes, as long as it is not older than the ring."""
    state, times = Spending.fresh(2), [0, 0]
    kept: list[tuple[int, int, int]] = []
    for row, at, micros in spent:
        times[row] = max(times[row], at)
        put(state, row, times[row], 0)
        spend(state, np.array([row]), np.array([at]), np.array([micros]))
        kept.append((row, at, micros))
    for length in WINDOWS:
        width = next(width for width, cells in RINGS if length % width == 0 and length // width <= cells)
        for row in (0, 1):
            first = times[row] // width - length // width + 1
            expected = sum(m for r, at, m in kept if r == row and at // width >= first)
            assert within(state, length)[row] == expected, (length, row)


NORMAL = 1_000
"""Micro-dollars per second; the budget is half as much again as a day of it."""
BUDGET = 3 * NORMAL * 86_400 // 2


def seconds_until_found(state: Spending, start: int, factor: int, limit: int) -> int:
    for second in range(start, start + limit):
        put(state, 0, second * SECOND, NORMAL * factor)
        if burning(state, BUDGET, SHIPPED)[0]:
            return second - start + 1
    raise AssertionError("never")


@pytest.mark.parametrize(("factor", "delay_s"), [(100, 65), (20, 648), (5, 6_480)])
def test_a_runaway_is_found_as_fast_as_promised(factor: int, delay_s: int) -> None:
    assert seconds_until_found(Spending.fresh(1), 0, factor, 2 * delay_s) == pytest.approx(delay_s, rel=0.02)


def test_normal_spending_is_no_burn_and_makes_a_runaway_known_sooner() -> None:
    state, day = Spending.fresh(1), 86_400
    for minute in range(day // 60):
        put(state, 0, minute * 60 * SECOND, NORMAL * 60)
        assert not burning(state, BUDGET, SHIPPED)[0], minute
    assert seconds_until_found(state, day, 100, 100) < 65


def test_it_stops_burning_when_the_spending_stops() -> None:
    state = Spending.fresh(1)
    put(state, 0, 0, 10**9)
    assert burning(state, 10**9, SHIPPED)[0]
    roll(state, 29 * SECOND)
    assert burning(state, 10**9, SHIPPED)[0]
    roll(state, 1_000 * SECOND)
    assert not burning(state, 10**9, SHIPPED)[0], "the short windows are empty"


def test_time_never_falls() -> None:
    state = Spending.fresh(1)
    put(state, 0, 1_000 * SECOND, 5)
    roll(state, 10 * SECOND)
    assert state.newest.tolist() == [1_000 * SECOND]
    spend(state, np.array([0]), np.array([0]), np.array([7]))
    assert within(state, 30 * SECOND)[0] == 5, "older than the ring"
    assert within(state, 86_400 * SECOND)[0] == 12


@pytest.mark.parametrize(
    ("share", "long_s", "short_s", "says"),
    [((0, 1), 300, 30, "share"), ((3, 2), 300, 30, "share"), ((1, 2), 30, 30, "shorter"), ((1, 2), 301, 30, "301 s")],
)
def test_impossible_windows_are_refused(share: tuple[int, int], long_s: int, short_s: int, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        BurnPair(share, long_s * SECOND, short_s * SECOND)
