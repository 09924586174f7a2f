"""What the detection benchmark simulates: its generators, and that every line has its figure."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks._certain import burn_seconds, loop_calls
from benchmarks._detector_runs import TARGETS, Scale, other_metrics, other_runs
from benchmarks._harness import Target
from benchmarks._onset import BURST, RULES, Violating, delays, false_alarms
from benchmarks._slowdown import Tools
from benchmarks.detection import GRID
from benchmarks.detection import TARGETS as ALL_TARGETS
from fuseboard_detectors.exceed import ExceedParams


@pytest.mark.parametrize("burst", [None, BURST])
@pytest.mark.parametrize("rate", [0.001, 1 / 34])
def test_violations_have_the_rate_that_is_asked_for(rate: float, burst: float | None) -> None:
    gap, same = Violating(rate, burst).following(200_000, np.random.default_rng(1))
    assert 1 / gap.mean() == pytest.approx(rate, rel=0.02)
    assert gap.min() == 1
    # Ten actions of a trace on average: the next one is of the same trace nine times of ten.
    at_once = (gap == 1).mean()
    assert at_once == pytest.approx(0.9 * (burst or rate) + 0.1 * rate, rel=0.2, abs=2e-4)
    assert same[gap == 1].mean() > 0.8
    assert same[gap > 60].mean() < 0.01


def test_a_rule_of_distinct_traces_finds_less_and_is_wrong_less_often() -> None:
    rng = np.random.default_rng(2)
    alarms = {name: false_alarms(name, BURST, 500, 4_000, rng)[0] for name in RULES}
    assert alarms["any_2_in_100"] > alarms["traces_2_in_100"] > alarms["traces_3_in_100"] >= alarms["e_detector"]
    means = {name: delays(name, BURST, 500, 5_000, rng).mean() for name in RULES}
    assert means["any_2_in_100"] < means["traces_2_in_100"] < means["traces_3_in_100"] < means["e_detector"]


def test_a_tool_is_as_slow_as_its_generator_says() -> None:
    tools = Tools.drawn(2_000, ExceedParams(), np.random.default_rng(3))
    assert 0.02 < tools.reaching().mean() < 0.06, "the edge lies at or above the quantile"
    assert (tools.reaching() <= tools.reference.p0).mean() > 0.97, "the null is their 99% bound"
    assert (tools.reaching(2.0) > tools.reaching()).all()


def test_what_is_certain() -> None:
    assert burn_seconds((100,), after_a_day=False) == [65]
    calls = loop_calls(1.0, 50, np.random.default_rng(4))
    assert calls.max() == 8
    assert calls.min() >= 6, "a failure before the outage belongs to the run"


def test_every_line_has_its_figure() -> None:
    metrics = other_metrics(other_runs(Scale(100, 100, 100, 200), np.random.default_rng(5)))
    assert set(TARGETS) - set(metrics) == set()
    assert set(TARGETS) < set(ALL_TARGETS)
    assert {f"grid_{100 * rate:g}_percent_mean" for rate in GRID} < set(ALL_TARGETS)
    assert all(np.isfinite(value) for value in metrics.values())


def test_a_line_of_two_sides_is_shown_with_both() -> None:
    assert str(Target(at_least=1.0, at_most=2.5)) == ">= 1, <= 2.5"
    assert str(Target(at_most=2.5)) == "<= 2.5"
    assert [Target(at_least=1.0, at_most=2.5).met(value) for value in (0.9, 1.0, 2.6)] == [False, True, False]
