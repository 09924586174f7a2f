"""Reference histograms against sorted lists, and the null against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fuseboard_detectors.exceed import (
    BINS,
    ExceedParams,
    Observed,
    ReferenceState,
    detector_params,
    edges,
    forget,
    observe,
)
from fuseboard_detectors.failure import FailureState, count_failure
from fuseboard_schemas.errors import ConfigurationError

P95 = ExceedParams()
HOUR_US = 3_600_000_000
ONE = np.zeros(1, dtype=np.intp)


def lognormal(
    seed: int, n: int, middle: float = 200_000.0, spread: float = 0.6
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return (middle * np.exp(np.random.default_rng(seed).normal(0, spread, n))).astype(np.int64)


def learned(
    values: np.ndarray[tuple[int], np.dtype[np.int64]], params: ExceedParams = P95
) -> tuple[ReferenceState, Observed]:
    state = ReferenceState.fresh(1)
    return state, observe(state, ONE, values, params)


def test_the_bins_reach_from_a_millisecond_to_an_hour_in_steps_of_13_percent() -> None:
    found = edges(1_000)
    assert len(found) == BINS - 1
    assert found[0] == 1_000
    assert found[-1] > HOUR_US
    assert (found[1:] / found[:-1]).max() < 1.1311
    assert (np.diff(edges(1)) > 0).all(), "whole numbers that grow, however small"


def test_the_threshold_is_the_lowest_edge_that_few_enough_reach() -> None:
    values = lognormal(1, 1_000)
    state, found = learned(values)
    threshold = int(state.threshold[0])
    ladder = edges(1_000)
    assert found.frozen.tolist() == [True]
    assert threshold in ladder
    assert (values >= threshold).sum() <= 50 < (values >= ladder[np.searchsorted(ladder, threshold) - 1]).sum()
    assert np.quantile(values, 0.95) <= threshold < 1.14 * np.quantile(values, 0.95)


def test_just_as_many_as_the_nominal_share_may_reach_it() -> None:
    """95 of one bin and 5 of a higher one: the edge between them will do; with 6 it takes the one above."""
    params = ExceedParams(reference=100)
    five, _ = learned(np.repeat([5_000, 50_000], [95, 5]), params)
    six, _ = learned(np.repeat([5_000, 50_000], [94, 6]), params)
    assert 5_000 < five.threshold[0] <= 5_650
    assert 50_000 < six.threshold[0] <= 56_500


@pytest.mark.parametrize("quantile", [(1, 2), (9, 10), (99, 100)])
def test_the_null_is_the_quantile_of_the_posterior_of_reaching_it(quantile: tuple[int, int]) -> None:
    values = lognormal(2, 400)
    state, _ = learned(values, ExceedParams(quantile=quantile, reference=400))
    reached = int((values >= state.threshold[0]).sum())
    expected = max(0.005, stats.beta.ppf(0.99, 0.5 + reached, 0.5 + 400 - reached))
    assert state.p0[0] == pytest.approx(expected, rel=1e-9)


def test_observations_are_judged_from_the_first_after_the_reference() -> None:
    state, found = learned(np.append(np.full(100, 5_000), [5_000, 10_000]), ExceedParams(reference=100))
    assert found.judged.tolist() == [False] * 100 + [True, True]
    assert found.reached.tolist() == [False] * 101 + [True]
    assert (state.seen[0], state.counts.sum()) == (100, 100)
    later = observe(state, ONE, np.array([state.threshold[0] - 1, state.threshold[0]]), ExceedParams(reference=100))
    assert later.reached.tolist() == [False, True]
    assert not later.frozen[0]


def test_values_beyond_the_bins_are_no_error() -> None:
    """Too small: the lowest edge is the threshold. Too large: the highest, with a null that knows."""
    small, _ = learned(np.zeros(1_000, dtype=np.int64))
    assert small.threshold[0] == 1_000
    assert small.p0[0] == 0.005
    large, _ = learned(np.full(1_000, 2 * HOUR_US))
    assert large.threshold[0] == edges(1_000)[-1]
    assert 0.9999 < large.p0[0] < 1.0
    mixed, _ = learned(np.repeat([5_000, 2 * HOUR_US], 500))
    assert mixed.p0[0] == pytest.approx(stats.beta.ppf(0.99, 500.5, 500.5), rel=1e-9)


def test_a_tool_twice_as_slow_trips_the_detector() -> None:
    state, _ = learned(lognormal(3, 1_000))
    params = detector_params(P95)
    detector = FailureState.fresh(1, params)
    detector.p0[:] = state.p0
    tripped = []
    for reached in observe(state, ONE, 2 * lognormal(4, 300), P95).reached.tolist():
        tripped.append(reached and bool(count_failure(detector, np.zeros(1, dtype=np.int64), params).tripped[0]))
        detector.successes += not reached
    assert tripped.index(True) < 100
    assert detector.p0[0] == state.p0[0], "the detector does not learn another null"


def test_a_reference_is_forgotten_on_demand() -> None:
    state = ReferenceState.fresh(2)
    observe(state, np.array([0, 100]), lognormal(5, 200), ExceedParams(reference=100))
    kept = int(state.threshold[1])
    forget(state, np.array([0]))
    assert (state.threshold.tolist(), state.seen.tolist()) == ([0, kept], [0, 100])
    assert not state.counts[0].any()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"quantile": (1, 1)}, "1/1"),
        ({"quantile": (0, 5)}, "0/5"),
        ({"reference": 99}, "99 observations"),
        ({"reference": 60_000}, "60000 observations"),
        ({"lowest": 0}, "lowest edge"),
        ({"floor": 0.0}, "between 0 and 1"),
        ({"posterior": 1.0}, "between 0 and 1"),
    ],
    ids=str,
)
def test_impossible_references_are_refused(wrong: dict[str, int], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        ExceedParams(**wrong)  # type: ignore[arg-type]
