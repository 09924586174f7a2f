"""The probe test over all baselines."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from fuseboard_detectors.probes import ProbeTest, ProbeVerdict, alternative

BASELINES = st.floats(1e-9, 0.95, exclude_max=True)
ENOUGH_FAILURES = 0.8843
"""The baseline up to which 40 failures decide."""


def run(p0: float, ok: bool) -> ProbeTest:
    test = ProbeTest.start(p0)
    while test.verdict is ProbeVerdict.CONTINUE:
        test = test.observe(ok)
    return test


@given(BASELINES)
def test_clean_probes_always_close(p0: float) -> None:
    test = run(p0, ok=True)
    assert test.verdict is ProbeVerdict.PASS
    assert 2 <= test.results <= 14


@given(BASELINES)
def test_failures_never_close(p0: float) -> None:
    test = run(p0, ok=False)
    assert test.verdict is (ProbeVerdict.FAIL if p0 < ENOUGH_FAILURES else ProbeVerdict.UNDECIDED)
    assert test.results <= 40


def test_where_forty_failures_cease_to_decide() -> None:
    assert run(0.8842, ok=False).verdict is ProbeVerdict.FAIL
    assert run(0.8844, ok=False).verdict is ProbeVerdict.UNDECIDED


@given(st.floats(1e-12, 1 - 1e-9))
def test_alternative_lies_above_the_baseline(p0: float) -> None:
    assert p0 < alternative(p0) < 1
    assert alternative(p0) >= 0.3


@given(BASELINES, st.lists(st.booleans(), max_size=60))
def test_verdict_is_that_of_exact_arithmetic(p0: float, results: list[bool]) -> None:
    exact0 = Fraction(p0)
    odds = 16 * exact0 / (1 - exact0)
    exact1 = max(Fraction(0.3), odds / (1 + odds))
    ratio, test, decided = Fraction(1), ProbeTest.start(p0), False
    for n, ok in enumerate(results, 1):
        test = test.observe(ok)
        if decided:
            continue
        ratio *= (1 - exact1) / (1 - exact0) if ok else exact1 / exact0
        if min(abs(ratio / 99 - 1), abs(ratio * 99 - 1)) < 1e-12:
            return  # too near a bound for the rounding of a double: either verdict is right
        expected = ProbeVerdict.CONTINUE
        if ratio >= 99:
            expected = ProbeVerdict.FAIL
        elif ratio * 99 <= 1:
            expected = ProbeVerdict.PASS
        elif n >= 40:
            expected = ProbeVerdict.UNDECIDED
        decided = expected is not ProbeVerdict.CONTINUE
        assert test.verdict is expected
