"""The closed form against the step-by-step recursion, and what a key learns against lists of its events."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseboard_detectors.arithmetic import Floats
from fuseboard_detectors.failure import (
    FailureParams,
    FailureState,
    FailureStep,
    count_failure,
    fold_successes,
    learn_successes,
    likelihoods,
    mean_r,
    restart,
    successes_until_below,
)
from fuseboard_schemas.errors import ConfigurationError
from fuseboard_streams.core.settings import CoreSettings
from tests.support.reference import Statistic

KNOWN = FailureParams(known_null=0.005)
SHORT = FailureParams(trip=1e4, warn=1e2, period=20, floor=0.01)


def fail(state: FailureState, params: FailureParams, at_us: int = 0) -> FailureStep:
    return count_failure(state, np.full(len(state.p0), at_us), params)


def stream(rate: float, n: int, seed: int) -> list[bool]:
    rng = random.Random(seed)
    return [rng.random() < rate for _ in range(n)]


def stepwise(failed: list[bool], p0: float) -> tuple[list[int], list[list[float]]]:
    """The recursion R <- (R + 1) L as it is written: the alarms, and R after every event."""
    r = [0.0] * len(KNOWN.odds)
    alarms, history = [], []
    for at, bad in enumerate(failed):
        for i, theta in enumerate(KNOWN.odds):
            q = theta * p0 / (1 + (theta - 1) * p0)
            r[i] = (r[i] + 1) * (q / p0 if bad else (1 - q) / (1 - p0))
        history.append(list(r))
        if sum(r) / len(r) >= KNOWN.trip:
            alarms.append(at)
            r = [0.0] * len(r)
    return alarms, history


@pytest.mark.parametrize("rate", [0.005, 0.05, 0.2, 0.5])
def test_closed_form_is_the_recursion(rate: float) -> None:
    """Alarms at the same of 20,000 events, R within 1e-12 at every failure and a seventh of the successes."""
    failed = stream(rate, 20_000, seed=1)
    expected_alarms, expected_r = stepwise(failed, 0.005)
    state, alarms, worst = FailureState.fresh(1, KNOWN), [], 0.0
    for at, bad in enumerate(failed):
        r: Floats | None = None
        if bad:
            step = fail(state, KNOWN)
            r = state.r
            if step.tripped[0]:
                alarms.append(at)
                restart(state)
        else:
            state.successes += 1
            if at % 7 == 0:
                r = fold_successes(state.r, state.p0, state.successes, KNOWN.odds)
        if r is not None:
            worst = max(worst, *(abs(a / b - 1) for a, b in zip(r[0].tolist(), expected_r[at], strict=True)))
    assert alarms == expected_alarms
    assert worst < 1e-12
    assert bool(alarms) == (rate > 0.005)


def test_keys_do_not_touch_each_other() -> None:
    """One row at a time has the same bits as all at once."""
    rng = np.random.default_rng(3)
    together = FailureState.fresh(40, SHORT)
    alone = [FailureState.fresh(1, SHORT) for _ in range(40)]
    for _ in range(60):
        gaps = rng.geometric(0.1, 40) - 1
        together.successes += gaps
        step = fail(together, SHORT)
        for i, state in enumerate(alone):
            state.successes += gaps[i]
            assert fail(state, SHORT).mean[0] == step.mean[i]
    for i, state in enumerate(alone):
        assert state.r.tobytes() == together.r[i : i + 1].tobytes()
        assert (state.learned_calls[0], state.parked_failures[0]) == (
            together.learned_calls[i],
            together.parked_failures[i],
        )


def test_likelihoods_are_those_of_the_odds() -> None:
    p0 = np.array([0.005, 0.3])
    l0, l1, rest = likelihoods(p0, KNOWN.odds)
    for i, p in enumerate(p0.tolist()):
        for j, theta in enumerate(KNOWN.odds):
            q = theta * p / (1 - p + theta * p)
            assert l0[i, j] == pytest.approx((1 - q) / (1 - p), rel=1e-14)
            assert l1[i, j] == pytest.approx(q / p, rel=1e-14)
            assert rest[i, j] == pytest.approx(l0[i, j] / (1 - l0[i, j]), rel=1e-13)
            assert p * l1[i, j] + (1 - p) * l0[i, j] == pytest.approx(1.0, rel=1e-14)


@pytest.mark.parametrize("period", [20, 200])
@pytest.mark.parametrize("seed", range(6))
def test_learning_is_that_of_lists(period: int, seed: int) -> None:
    """Blocks of a period, learned one block later, nothing while suspect; the null from them at each failure."""
    params = FailureParams(trip=1e4, warn=1e2, period=period, floor=0.01)
    model = Statistic(CoreSettings(failure=params))
    state = FailureState.fresh(1, params)
    rng = random.Random(seed)
    rate, suspect, blocks = 0.03, 0, 0
    for at in range(3000):
        if rng.random() < 0.004:
            rate = rng.choice([0.0, 0.03, 0.1, 0.5])
        bad = rng.random() < rate
        level = model.take(bad, "t")
        if not bad:
            state.successes += 1
            continue
        step = fail(state, params, at)
        assert (level is not None and "trip" in level) == bool(step.tripped[0])
        assert (level is not None and "warn" in level) == bool(step.warned[0])
        assert state.p0[0] == pytest.approx(model.p0, rel=3e-4)
        for name in ("learned", "parked", "pending"):
            events = getattr(model, name)
            assert getattr(state, f"{name}_calls")[0] == len(events), (at, name)
            assert getattr(state, f"{name}_failures")[0] == sum(e.failed for e in events), (at, name)
        suspect += bool(step.mean[0] >= params.warn)
        blocks = int(state.learned_calls[0]) // period
        if step.tripped[0]:
            restart(state)
    assert suspect > 5
    assert blocks >= 3


def test_a_long_run_of_successes_fills_many_blocks_at_once() -> None:
    """The first of them takes along the failures that waited; the last stays parked."""
    state = FailureState.fresh(1, SHORT)
    fail(state, SHORT)
    state.successes += 19 + 20 * 4 + 7
    learn_successes(state, SHORT)
    assert (state.learned_calls[0], state.learned_failures[0]) == (80, 1)
    assert (state.parked_calls[0], state.parked_failures[0]) == (20, 0)
    assert (state.pending_calls[0], state.pending_failures[0]) == (7, 0)


def test_the_null_moves_only_at_a_failure_and_one_block_late() -> None:
    params = FailureParams()
    state = FailureState.fresh(1, params)
    cold = float(state.p0[0])
    state.successes += 399
    fail(state, params)
    assert state.p0[0] == cold, "the 400th event: 199 + 200 before it, none of which is two blocks old"
    state.successes += 1
    fail(state, params)
    assert state.p0[0] == params.null().p0(np.array([200]), np.array([0]))[0] < cold


def test_the_null_never_falls_below_the_floor() -> None:
    params = FailureParams(floor=0.02, warn=1e4)
    state = FailureState.fresh(1, params)
    state.successes += 1_000_000
    fail(state, params)
    assert state.p0[0] == 0.02


def test_a_known_null_is_not_learned() -> None:
    state = FailureState.fresh(3, KNOWN)
    for _ in range(50):
        state.successes += 100
        fail(state, KNOWN)
    assert (state.p0 == 0.005).all()


@given(seed=st.integers(0, 10**6), failures=st.integers(1, 30))
def test_suspicion_ends_at_the_success_that_the_bisection_finds(seed: int, failures: int) -> None:
    rng = np.random.default_rng(seed)
    state = FailureState.fresh(5, SHORT)
    for _ in range(failures):
        state.successes += rng.integers(0, 15, 5)
        fail(state, SHORT)
    suspect = mean_r(state.r) >= SHORT.warn
    until = successes_until_below(state, suspect, SHORT)
    assert ((until > 0) == suspect).all()
    for i in np.flatnonzero(suspect).tolist():
        steps = np.array([until[i] - 1, until[i]])
        means = mean_r(fold_successes(state.r[[i, i]], state.p0[[i, i]], steps, SHORT.odds))
        assert means[0] >= SHORT.warn > means[1]


def test_evidence_is_counted_from_its_first_failure() -> None:
    """After a rest the run begins anew: its calls, its failures, its time."""
    state = FailureState.fresh(1, KNOWN)
    state.successes += 5000
    fail(state, KNOWN, 1)
    state.successes += 5000
    for at in (10, 20, 30):
        state.successes += 2
        fail(state, KNOWN, at)
    assert (state.run_calls[0], state.run_failures[0], state.run_since[0]) == (7, 3, 10)
    state.successes += 5000
    fail(state, KNOWN, 40)
    assert (state.run_calls[0], state.run_failures[0], state.run_since[0]) == (1, 1, 40)


def test_a_restart_keeps_what_was_learned() -> None:
    state = FailureState.fresh(1, SHORT)
    for _ in range(30):
        state.successes += 9
        fail(state, SHORT)
    learned = int(state.learned_calls[0]), int(state.parked_calls[0]), int(state.pending_calls[0]), float(state.p0[0])
    restart(state)
    assert not state.r.any()
    assert (state.run_calls[0], state.successes[0], state.suspect_left[0]) == (0, 0, 0)
    assert learned == (state.learned_calls[0], state.parked_calls[0], state.pending_calls[0], state.p0[0])
    assert learned[0] > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"warn": 100.0},
        {"warn": 1e7},
        {"known_null": 1e-5},
        {"known_null": 0.0},
        {"floor": 1.0},
        {"quantile": 0.0},
        {"period": 0},
        {"effective": 0},
        {"cap": 0},
        {"prior_alpha": -1.0},
        {"odds": ()},
        {"odds": (1.0, 2.0)},
        {"warn": math.nan},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    """Among them levels below what successes alone bring: nothing would ever cease to be suspect."""
    with pytest.raises(ConfigurationError, match=r"expected"):
        FailureParams(**wrong)  # type: ignore[arg-type]
