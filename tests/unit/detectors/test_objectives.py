"""States of objectives against SciPy's bounds, and windows against lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fuseboard_detectors.objectives import (
    WINDOW_CELLS,
    ObjectiveCounts,
    ObjectiveParams,
    ObjectiveState,
    above,
    count,
    join,
    normal_quantile,
    roll,
    states,
    tails,
    window,
)
from fuseboard_schemas.errors import ConfigurationError

HOUR = 3_600_000_000
MINUTE = 60_000_000
SUCCESS = ObjectiveParams((1, 200))
UNKNOWN, MET, VIOLATED = ObjectiveState


def state_of(bad: int, total: int, params: ObjectiveParams = SUCCESS) -> ObjectiveState:
    counts = ObjectiveCounts.fresh(1)
    roll(counts, 10 * HOUR, params)
    count(counts, np.array([0]), np.array([10 * HOUR]), np.array([bad]), np.array([total]), params)
    return ObjectiveState(int(states(counts, params)[0]))


@given(total=st.integers(1, 20_000), part=st.floats(0, 1), limit=st.sampled_from([0.001, 0.005, 0.05, 0.5, 0.9]))
def test_a_state_is_that_of_the_bounds_of_clopper_and_pearson(total: int, part: float, limit: float) -> None:
    """`binomtest`'s interval at 90% has the two one-sided bounds of 95%."""
    spread = 4 * (limit * (1 - limit) / total) ** 0.5
    bad = min(total, max(0, round(total * (limit + (2 * part - 1) * spread))))
    few, many = tails(np.array([bad]), np.array([total]), limit, 0.05)
    interval = stats.binomtest(bad, total).proportion_ci(0.9, "exact")
    if min(abs(interval.high - limit), abs(interval.low - limit)) > 1e-9:
        assert (few[0], many[0]) == (interval.high < limit, interval.low > limit)


@pytest.mark.parametrize("share", [0.005, 0.3])
def test_millions_of_events_have_nearly_the_exact_bounds(share: float) -> None:
    """Where the normal distribution stands in, the probability at the bound is 5% within 0.05 points."""
    total = 10_000_000
    around = np.arange(-30_000, 30_000, dtype=np.int64) + int(total * share)
    few, many = tails(around, np.full(len(around), total), share, 0.05)
    last, first = around[few].max(), around[many].min()
    assert stats.binom.cdf(last, total, share) == pytest.approx(0.05, abs=5e-4)
    assert stats.binom.sf(first - 1, total, share) == pytest.approx(0.05, abs=5e-4)


def test_enough_evidence_is_needed_either_way() -> None:
    """99.5% of 1,000: one failure is met, two to nine say nothing, ten are a violation."""
    assert [state_of(bad, 1_000) for bad in (0, 1, 2, 5, 9, 10, 30)] == [MET] * 2 + [UNKNOWN] * 3 + [VIOLATED] * 2


def test_too_few_events_say_nothing() -> None:
    assert state_of(999, 999) is UNKNOWN
    assert state_of(1_000, 1_000) is VIOLATED


@pytest.mark.parametrize("into_the_cell", [0, 149])
def test_nothing_is_judged_within_its_grace(into_the_cell: int) -> None:
    """1 h with 10 minutes of grace, in cells of two and a half minutes; a request at a cell's start, and at its end."""
    params = ObjectiveParams((1, 20), HOUR, minimum=1, grace_us=10 * MINUTE)
    counts = ObjectiveCounts.fresh(1)
    asked = 100 * HOUR + into_the_cell * 1_000_000
    row = np.array([0])
    roll(counts, asked, params)
    count(counts, row, np.array([asked]), np.array([100]), np.array([100]), params)
    seen = []
    for minutes in range(90):
        roll(counts, asked + minutes * MINUTE, params)
        if minutes == 10:
            count(counts, row, np.array([asked]), np.array([-99]), np.array([0]), params)
        seen.append(ObjectiveState(int(states(counts, params)[0])))
    judged = [minute for minute, state in enumerate(seen) if state is not UNKNOWN]
    assert judged == list(range(judged[0], judged[-1] + 1))
    assert {seen[minute] for minute in judged} == {MET}, "by then they have shown themselves"
    assert 10 < judged[0] <= 13
    assert 59 <= len(judged) <= 60


@given(
    events=st.lists(st.tuples(st.integers(0, HOUR // 5), st.integers(0, 2 * HOUR), st.booleans()), max_size=40),
    grace=st.sampled_from([0, 1, 7 * MINUTE, 17 * MINUTE]),
)
def test_windows_hold_what_lies_in_their_cells(events: list[tuple[int, int, bool]], grace: int) -> None:
    params = ObjectiveParams((1, 20), HOUR, minimum=1, grace_us=grace)
    counts, now, kept = ObjectiveCounts.fresh(1), 0, list[tuple[int, bool]]()
    for passed, late, bad in events:
        now += passed
        roll(counts, now, params)
        at = max(now - late, 0)
        count(counts, np.array([0]), np.array([at]), np.array([int(bad)]), np.array([1]), params)
        kept.append((at, bad))
    newest, skip = now // params.width_us, params.cells_of_grace
    inside = [bad for at, bad in kept if skip <= newest - at // params.width_us < skip + WINDOW_CELLS]
    bad, total = window(counts, params)
    assert (bad[0], total[0]) == (sum(inside), len(inside))


def test_percentiles_are_decided_by_counting() -> None:
    """P50 < $0.02: fewer than half of the tasks cost two cents or more."""
    costs = np.array([19_999, 20_000, 20_001])
    assert above(costs, 20_000, reached=True).tolist() == [False, True, True]
    assert above(costs, 20_000, reached=False).tolist() == [False, False, True]


def test_a_target_of_two_parts_is_met_if_both_are() -> None:
    every = np.array([UNKNOWN, MET, VIOLATED], dtype=np.int8)
    one, other = np.repeat(every, 3), np.tile(every, 3)
    assert join(one, other).tolist() == [UNKNOWN, UNKNOWN, VIOLATED, UNKNOWN, MET, VIOLATED] + [VIOLATED] * 3


@pytest.mark.parametrize("error", [0.4, 0.05, 0.01, 0.001])
def test_the_normal_quantile(error: float) -> None:
    assert normal_quantile(error) == pytest.approx(stats.norm.isf(error), rel=1e-8)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"limit": (0, 1)}, "0/1"),
        ({"limit": (5, 5)}, "5/5"),
        ({"window_us": 25}, "multiple of 24"),
        ({"window_us": HOUR, "grace_us": 18 * MINUTE}, "at most 1050 s"),
        ({"minimum": 0}, "minimum of 0"),
    ],
    ids=str,
)
def test_impossible_objectives_are_refused(wrong: dict[str, int], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        ObjectiveParams(**{"limit": (1, 200)} | wrong)  # type: ignore[arg-type]
