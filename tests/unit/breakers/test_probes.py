"""The probe test: how many results it takes, and what it says about difficult baselines."""

from __future__ import annotations

import pytest

from fuseboard_detectors.probes import ProbeTest, ProbeVerdict, alternative


def run(p0: float, ok: bool) -> tuple[ProbeVerdict, int]:
    """Feed the same result until the test ends."""
    test = ProbeTest.start(p0)
    while test.verdict is ProbeVerdict.CONTINUE:
        test = test.observe(ok)
    return test.verdict, test.results


@pytest.mark.parametrize(
    ("p0", "clean", "failed"),
    [(0.005, 14, 2), (0.02, 14, 2), (0.05, 9, 3), (0.1, 6, 3), (0.3, 3, 5), (0.5, 3, 8), (0.8, 2, 23), (0.884, 2, 40)],
)
def test_results_needed(p0: float, clean: int, failed: int) -> None:
    assert run(p0, ok=True) == (ProbeVerdict.PASS, clean)
    assert run(p0, ok=False) == (ProbeVerdict.FAIL, failed)


@pytest.mark.parametrize("p0", [0.885, 0.9, 0.94, 0.99])
def test_near_certain_failure_ends_undecided(p0: float) -> None:
    assert run(p0, ok=False) == (ProbeVerdict.UNDECIDED, 40)
    assert run(p0, ok=True) == (ProbeVerdict.PASS, 2)


def chance_to_pass(p0: float, rate: float) -> float:
    """Exact probability that one period of 40 ends in PASS when calls fail at a rate."""
    paths = {(0, 0): 1.0}
    passed = 0.0
    factor_ok, factor_failed = (1 - alternative(p0)) / (1 - p0), alternative(p0) / p0
    for _ in range(40):
        reached: dict[tuple[int, int], float] = {}
        for (ok, failed), weight in paths.items():
            for result, share in (((ok + 1, failed), 1 - rate), ((ok, failed + 1), rate)):
                ratio = factor_ok ** result[0] * factor_failed ** result[1]
                if ratio <= 1 / 99:
                    passed += weight * share
                elif ratio < 99:
                    reached[result] = reached.get(result, 0.0) + weight * share
        paths = reached
    return passed


DOCUMENTED = {0.005: 99.8, 0.02: 97.9, 0.1: 99.3, 0.5: 99.3, 0.8: 94.4, 0.884: 78.5, 0.9: 74.3, 0.94: 47.5, 0.99: 6.1}


@pytest.mark.parametrize(("p0", "percent"), DOCUMENTED.items())
def test_documented_chances_of_recovery(p0: float, percent: float) -> None:
    assert round(100 * chance_to_pass(p0, rate=p0), 1) == percent


@pytest.mark.parametrize("p0", [0.005, 0.02, 0.1, 0.5, 0.9])
def test_broken_target_passes_at_most_once_in_a_hundred(p0: float) -> None:
    assert chance_to_pass(p0, rate=alternative(p0)) <= 0.01


def test_alternative_has_a_floor_then_follows_the_odds() -> None:
    assert alternative(0.005) == 0.3
    assert alternative(0.5) == pytest.approx(16 / 17)


def test_decided_test_stays_as_it_is() -> None:
    failed = ProbeTest.start(0.005).observe(False).observe(False)
    assert failed.observe(True) is failed


@pytest.mark.parametrize("p0", [0.0, 1.0, -0.1, float("nan"), 1.0 - 2**-53])
def test_untestable_baseline_is_refused(p0: float) -> None:
    with pytest.raises(ValueError, match="p0"):
        ProbeTest.start(p0)


@pytest.mark.parametrize("options", [{"error": 0.5}, {"error": 0.0}, {"limit": 0}, {"floor": 1.0}, {"odds": 1.0}])
def test_settings_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        ProbeTest.start(0.1, **options)  # type: ignore[arg-type]
