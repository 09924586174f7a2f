"""Panes: sums that do not depend on order, shards or repeats, and the statistic step by step."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseboard_detectors.breadth import broad
from fuseboard_detectors.failure import FailureParams
from fuseboard_detectors.pooled import Panes, PooledState, Sums, capped, count_pane, merge, restart

KNOWN = FailureParams(known_null=0.02)
SHORT = FailureParams(trip=1e4, warn=1e2, period=20, floor=0.01)


def ints(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


def panes(*rows: tuple[int, ...]) -> Panes:
    columns = zip(*rows, strict=True) if rows else [()] * 7
    return Panes(*(np.array(column, dtype=np.int64) for column in columns))


def listed(sums: Sums) -> list[tuple[int, ...]]:
    return list(zip(*(getattr(sums, f.name).tolist() for f in fields(Sums)), strict=True))


# --- sums


def test_an_actor_counts_for_three_failures_of_a_pane() -> None:
    """Seven failures of one actor and two of another, in one second; one more in the next."""
    actor = np.repeat([1, 2, 1], [7, 2, 1])
    second = np.repeat([10, 10, 11], [7, 2, 1])
    n = len(actor)
    sums = capped(second, np.zeros(n, int), actor, np.zeros(n, int), np.ones(n, int), cap=3)
    assert listed(sums) == [(10, 0, 0, 5), (11, 0, 0, 1)]


calls = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 3), st.booleans()), min_size=1, max_size=60
)


@given(given_calls=calls, order=st.randoms(use_true_random=False))
def test_sums_are_those_of_any_order_and_of_partial_sums(
    given_calls: list[tuple[int, int, int, bool]], order: object
) -> None:
    def summed(rows: list[tuple[int, int, int, bool]]) -> list[tuple[int, ...]]:
        second, tool, actor, failed = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
        return listed(capped(second, tool, actor, 1 - failed, failed, cap=3))

    expected = []
    for second, tool in sorted({(s, t) for s, t, _, _ in given_calls}):
        mine = [(a, bad) for s, t, a, bad in given_calls if (s, t) == (second, tool)]
        failures = sum(min(3, sum(bad for b, bad in mine if b == a)) for a in {a for a, _ in mine})
        expected.append((second, tool, sum(not bad for _, bad in mine), failures))
    shuffled = list(given_calls)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert summed(given_calls) == summed(shuffled) == expected


sent = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(0, 1), st.integers(0, 2), st.integers(1, 9), st.integers(0, 4), st.integers(0, 4)
    ),
    min_size=1,
    max_size=25,
)


@given(rows=sent, repeats=st.lists(st.integers(0, 24), max_size=10), order=st.randoms(use_true_random=False))
def test_panes_may_come_in_any_order_and_twice(
    rows: list[tuple[int, int, int, int, int, int]], repeats: list[int], order: object
) -> None:
    """Each shard sends ranges of offsets one after the other, of which some come again."""
    offset = dict.fromkeys(range(3), 0)
    originals = []
    for second, tool, shard, length, successes, failures in rows:
        first = offset[shard]
        offset[shard] += length
        originals.append((second, tool, shard, first, offset[shard] - 1, successes, failures))
    again = [originals[i] for i in repeats if i < len(originals)]
    mixed = originals + again
    order.shuffle(mixed)  # type: ignore[attr-defined]
    expected: dict[tuple[int, int], tuple[int, int]] = {}
    for second, tool, _, _, _, successes, failures in originals:
        s, f = expected.get((second, tool), (0, 0))
        expected[second, tool] = s + successes, f + failures
    sums, duplicates = merge(panes(*mixed))
    assert listed(sums) == [(*key, *expected[key]) for key in sorted(expected)]
    assert duplicates == len(again)


def test_of_two_panes_with_the_same_beginning_the_longer_one_stays() -> None:
    sums, duplicates = merge(panes((5, 0, 1, 10, 19, 4, 1), (5, 0, 1, 10, 29, 6, 2), (5, 0, 2, 10, 19, 1, 0)))
    assert (listed(sums), duplicates) == ([(5, 0, 7, 2)], 1)


def test_no_panes_are_no_sums() -> None:
    sums, duplicates = merge(panes())
    assert (listed(sums), duplicates) == ([], 0)


# --- the statistic


def stepwise(panes_: list[tuple[int, int]], p0: float) -> list[float]:
    """R <- (R + 1) L1^f L0^(n - f) as it is written."""
    r = [0.0] * len(KNOWN.odds)
    means = []
    for successes, failures in panes_:
        for i, theta in enumerate(KNOWN.odds):
            q = theta * p0 / (1 + (theta - 1) * p0)
            r[i] = (r[i] + 1) * (q / p0) ** failures * ((1 - q) / (1 - p0)) ** successes
        means.append(sum(r) / len(r))
    return means


@pytest.mark.parametrize("rate", [0.02, 0.1])
def test_it_is_the_recursion_over_panes(rate: float) -> None:
    rng = np.random.default_rng(1)
    state = PooledState.fresh(1, KNOWN)
    rows = []
    for calls_ in rng.integers(1, 30, 40).tolist():
        failed = int(rng.binomial(calls_, rate))
        rows.append((calls_ - failed, failed))
    for second, ((successes, failures), expected) in enumerate(zip(rows, stepwise(rows, 0.02), strict=True)):
        step = count_pane(state, ints(successes), ints(failures), ints(second), KNOWN)
        assert step.mean[0] == pytest.approx(expected, rel=1e-11)


def test_thousands_of_failures_at_once_do_not_overflow() -> None:
    state = PooledState.fresh(2, KNOWN)
    for second in range(5):
        step = count_pane(state, ints(0, 10**6), ints(3_000, 3_000), ints(second, second), KNOWN)
    assert np.isfinite(state.r).all()
    assert step.tripped.tolist() == [True, False]


def test_the_expected_value_of_a_step_is_at_most_one() -> None:
    """Over all outcomes of a pane of four calls at the null: what makes A a bound."""
    p0, total = 0.02, np.zeros(1)
    for failures in range(5):
        state = PooledState.fresh(1, KNOWN)
        step = count_pane(state, ints(4 - failures), ints(failures), ints(0), KNOWN)
        ways = [1, 4, 6, 4, 1][failures]
        total = total + ways * p0**failures * (1 - p0) ** (4 - failures) * step.mean
    assert total[0] == pytest.approx(1.0, rel=1e-12)


def test_a_pane_of_a_broken_tool_trips_and_begins_anew() -> None:
    state = PooledState.fresh(2, KNOWN)
    count_pane(state, ints(50, 50), ints(0, 0), ints(1, 1), KNOWN)
    step = count_pane(state, ints(2, 50), ints(9, 1), ints(2, 2), KNOWN)
    assert (step.tripped.tolist(), step.warned.tolist()) == ([True, False], [True, False])
    assert (state.run_since[0], state.run_failures[0], state.run_calls[0]) == (2, 9, 11)
    restart(state, step.tripped)
    assert not state.r[0].any()
    assert state.r[1].any()
    assert state.run_calls.tolist() == [0, 51]


def test_the_null_is_learned_a_block_late_and_never_while_suspect() -> None:
    state = PooledState.fresh(1, SHORT)
    cold = float(state.p0[0])
    for second in range(6):
        count_pane(state, ints(9), ints(1), ints(second), SHORT)
    assert (state.learned_calls[0], state.parked_calls[0], state.pending_calls[0]) == (40, 20, 0)
    assert (state.learned_failures[0], state.parked_failures[0]) == (4, 2)
    count_pane(state, ints(9), ints(1), ints(6), SHORT)
    assert state.p0[0] == SHORT.null().p0(ints(40), ints(4))[0] < cold
    count_pane(state, ints(0), ints(12), ints(7), SHORT)
    assert state.pending_calls[0] == 10, "at warn level nothing is learned"


def test_a_success_alone_does_not_move_the_null() -> None:
    state = PooledState.fresh(1, SHORT)
    cold = float(state.p0[0])
    for second in range(6):
        count_pane(state, ints(10), ints(0), ints(second), SHORT)
    assert state.learned_calls[0] == 40
    assert state.p0[0] == cold


def test_a_tool_that_nobody_knows_yet_is_not_judged() -> None:
    """It fails in six of ten calls from its first one on: that is how it is. What it becomes later is an outage."""
    params = FailureParams()
    state = PooledState.fresh(2, params)
    for second in range(120):
        step = count_pane(state, ints(4, 10), ints(6, 0), ints(second, second), params)
        assert not (step.warned | step.tripped).any()
        # Two blocks have to be full.
        assert (state.learned_calls > 0).tolist() == [second >= 39] * 2
    assert state.p0[0] > 0.6
    tripped = np.zeros(2, dtype=np.bool_)
    for second in range(120, 130):
        tripped |= count_pane(state, ints(4, 4), ints(6, 6), ints(second, second), params).tripped
    assert tripped.tolist() == [False, True]


# --- breadth


@pytest.mark.parametrize(
    ("suspects", "callers", "found"),
    [(2, 2, False), (3, 3, True), (3, 15, True), (3, 16, False), (4, 16, True), (19, 100, False), (20, 100, True)],
)
def test_a_tool_fails_for_three_actors_and_a_fifth_of_them(suspects: int, callers: int, found: bool) -> None:
    assert broad(ints(suspects), ints(callers)).tolist() == [found]
