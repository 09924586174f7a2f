"""Beta quantiles against SciPy, and the null that is learned from counts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from fuseboard_detectors.beta import LearnedNull, beta_quantile, regularized_incomplete_beta
from fuseboard_detectors.failure import FailureParams, initial_null

PARAMS = FailureParams()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261123)


def null(quantile: float = 0.99, floor: float = 0.005, effective: int = 500, period: int = 200) -> LearnedNull:
    return LearnedNull(0.72, 12.7, quantile=quantile, floor=floor, effective=effective, period=period)


def posterior(calls: int, failures: float) -> float:
    return max(0.005, float(stats.beta.ppf(0.99, 0.72 + failures, 12.7 + calls - failures)))


def test_distribution_function(rng: np.random.Generator) -> None:
    a, b = 10 ** rng.uniform(-0.5, 3, 3000), 10 ** rng.uniform(-0.5, 3, 3000)
    x = stats.beta.ppf(rng.uniform(0.01, 0.99, 3000), a, b)
    assert np.max(np.abs(regularized_incomplete_beta(x, a, b) - special.betainc(a, b, x))) < 1e-11


@pytest.mark.parametrize("probability", [0.9, 0.99, 0.999])
def test_quantile(probability: float, rng: np.random.Generator) -> None:
    """All posteriors that the null asks about: up to 500 calls and the prior's."""
    calls = rng.integers(0, 501, 1500)
    failures = np.floor(rng.uniform(0, 1, 1500) ** 3 * (calls + 1))
    a = (0.72 + failures).astype(np.float64)
    b = (12.7 + calls - failures).astype(np.float64)
    expected = stats.beta.ppf(probability, a, b)
    assert np.max(np.abs(beta_quantile(probability, a, b) - expected) / expected) < 1e-12


def test_quantile_is_the_same_in_any_chunk(rng: np.random.Generator) -> None:
    a, b = rng.uniform(0.7, 50, 20), rng.uniform(10, 500, 20)
    parts = [beta_quantile(0.99, a[i : i + 7], b[i : i + 7]) for i in range(0, 20, 7)]
    assert np.concatenate(parts).tobytes() == beta_quantile(0.99, a, b).tobytes()


def test_without_history_it_is_the_priors_quantile() -> None:
    assert initial_null(PARAMS) == pytest.approx(posterior(0, 0), rel=1e-12)
    assert initial_null(FailureParams(known_null=0.03)) == 0.03


def test_few_calls_are_exact() -> None:
    """Whole blocks, and what is left of one when failures were taken back."""
    learned = PARAMS.null()
    calls = np.array([0, 200, 200, 400, 400, 197, 183, 395, 17])
    failures = np.array([0, 0, 9, 2, 400, 5, 183, 0, 1])
    expected = [posterior(n, f) for n, f in zip(calls.tolist(), failures.tolist(), strict=True)]
    assert learned.p0(calls, failures).tolist() == pytest.approx(expected, rel=1e-12)


def test_more_calls_are_interpolated_within_two_in_ten_thousand(rng: np.random.Generator) -> None:
    """From 500 calls on only the ratio counts: the stated error of the table."""
    learned = PARAMS.null()
    calls = rng.integers(500, 100_000, 4000)
    failures = np.floor(rng.uniform(0, 1, 4000) ** 4 * calls).astype(np.int64)
    failures[:500] = rng.integers(0, 4, 500)
    scaled = failures * 500 / calls
    expected = np.maximum(stats.beta.ppf(0.99, 0.72 + scaled, 12.7 + 500 - scaled), 0.005)
    error = np.abs(learned.p0(calls, failures) - expected) / expected
    assert np.max(error) < 2e-4
    assert np.max(error) > 1e-7, "that would be no interpolation: tell the table's documentation"


def test_history_never_counts_for_more_than_the_effective_calls() -> None:
    learned = PARAMS.null()
    counts = np.array([500, 1000, 100_000, 10**12])
    assert len(set(learned.p0(counts, counts // 50).tolist())) == 1
    assert learned.p0(counts, counts).tolist() == pytest.approx([posterior(500, 500)] * 4, rel=1e-12)


def test_it_is_never_below_the_floor() -> None:
    raised = null(floor=0.02)
    calls = np.array([0, 200, 400, 500, 10**9])
    assert (raised.p0(calls, np.zeros(5, dtype=np.int64)) >= 0.02).all()
    assert raised.p0(calls[-1:], np.zeros(1, dtype=np.int64)).tolist() == [0.02]


def test_it_does_not_depend_on_what_was_asked_before(rng: np.random.Generator) -> None:
    calls = rng.integers(0, 600, 12)
    failures = np.floor(rng.uniform(0, 0.2, 12) * calls).astype(np.int64)
    once, again = null(), null()
    singly = [float(again.p0(calls[i : i + 1], failures[i : i + 1])[0]) for i in range(11, -1, -1)]
    assert once.p0(calls, failures).tolist() == singly[::-1]
