"""What is said of an objective."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fuseboard_detectors.objectives import ObjectiveState, bound
from fuseboard_streams.core.objective_words import Finding, words_of
from fuseboard_streams.core.ruleset import COST, SUCCESS, TRACED, VIOLATING, ObjectiveTest

HOUR = 3_600_000_000
UNKNOWN, MET, VIOLATED = ObjectiveState


def finding(metric: str, test: ObjectiveTest, state: int, counts: list[int], total: int, each: list[int]) -> Finding:
    def one(value: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array([value], dtype=np.int64)

    states = [np.array([at], dtype=np.int8) for at in each]
    return Finding(test, metric, np.array([state], dtype=np.int8), states, [one(bad) for bad in counts], one(total))


@pytest.mark.parametrize(
    ("metric", "share", "state", "bad", "total", "value", "words"),
    [
        (SUCCESS, (1, 200), VIOLATED, 34, 1_200, 0.971667,
         "violated: 34 of 1,200 calls failed within 24 h (2.83%); at least 2.09% with 95% confidence, "
         "expected less than 0.5%"),
        (TRACED, (1, 20), MET, 2, 400, 0.995,
         "met: 2 of 400 requested sessions showed no event within 24 h (0.5%); at most 1.57% with 95% confidence, "
         "expected less than 5%"),
        (VIOLATING, (1, 1000), UNKNOWN, 1, 12, 0.083333, "unknown: 12 actions within 24 h, it takes 50"),
    ],
)  # fmt: skip
def test_counts_bound_and_expectation(
    metric: str, share: tuple[int, int], state: int, bad: int, total: int, value: float, words: str
) -> None:
    test = ObjectiveTest((share,), 24 * HOUR, 50)
    (facts,) = words_of(finding(metric, test, state, [bad], total, [state]))
    assert (facts.reason, facts.value, facts.calls, facts.failures) == (words, value, total, bad)


def test_of_two_limits_the_one_that_decided_is_told() -> None:
    test = ObjectiveTest(((1, 2), (1, 20)), HOUR, 50, (20_000, 100_000))
    (facts,) = words_of(finding(COST, test, VIOLATED, [10, 60], 300, [MET, VIOLATED]))
    assert facts.reason.startswith("violated: 60 of 300 tasks cost $0.10 or more within 1 h (20%); at least 16.")
    (facts,) = words_of(finding(COST, test, VIOLATED, [200, 1], 300, [VIOLATED, MET]))
    assert facts.reason.startswith("violated: 200 of 300 tasks cost $0.02 or more")
    # A state that lasts although it is not certain any more.
    (facts,) = words_of(finding(COST, test, MET, [10, 14], 300, [MET, UNKNOWN]))
    assert facts.reason.startswith("met: 14 of 300 tasks cost $0.10 or more")


def test_nothing_counted_has_no_share() -> None:
    (facts,) = words_of(finding(SUCCESS, ObjectiveTest(((1, 2),), HOUR, 1), UNKNOWN, [0], 0, [UNKNOWN]))
    assert (facts.value, facts.calls) == (None, 0)


@pytest.mark.parametrize("total", [1, 20, 1_000, 100_000, 10_000_000])
def test_bounds_are_those_of_clopper_and_pearson(total: int) -> None:
    """Beyond a thousand bad events or 300,000 in all, Wilson's are within two in a hundred of them."""
    bad = np.unique(np.array([0, total // 1000, total // 50, total // 2, total]))
    for upper in (True, False):
        found = bound(bad, np.full(len(bad), total), np.full(len(bad), upper), 0.05)
        for one, value in zip(bad.tolist(), found.tolist(), strict=True):
            interval = stats.binomtest(one, total).proportion_ci(0.9, "exact")
            expected = interval.high if upper else interval.low
            close = 1e-6 if total <= 1_000 else 0.02
            assert value == pytest.approx(expected, rel=close, abs=1e-6)
