"""Taking a tool out of an actor's evidence, against a replay of the actor's events without that tool's failures."""

from __future__ import annotations

import random

import numpy as np
import pytest

from fuseboard_detectors.attribution import (
    RING,
    FailureRing,
    given_calls,
    least_without_a_tool,
    remember,
    take_out,
)
from fuseboard_detectors.failure import FailureParams, FailureState, count_failure, fold_successes, mean_r
from fuseboard_streams.core.settings import CoreSettings
from tests.support.reference import Statistic

PARAMS = FailureParams(trip=1e60, warn=1e4, period=20, floor=0.01)


class Actors:
    """K actors that make the same calls, and a model of each that only appends events to lists."""

    def __init__(self, k: int = 1) -> None:
        self.state = FailureState.fresh(k, PARAMS)
        self.ring = FailureRing.fresh(k, len(PARAMS.odds), self.state.p0)
        self.models = [Statistic(CoreSettings(failure=PARAMS)) for _ in range(k)]

    def call(self, failed: bool, tool: int) -> None:
        for model in self.models:
            model.take(failed, str(tool))
        if not failed:
            self.state.successes += 1
            return
        k = len(self.models)
        gap = self.state.successes
        step = count_failure(self.state, np.zeros(k, dtype=np.int64), PARAMS)
        learned = np.where(step.mean < PARAMS.warn, given_calls(self.state) - 1, -1)
        remember(self.ring, np.full(k, tool), gap, self.state.p0, learned, PARAMS)

    def calls(self, seed: int, n: int) -> None:
        rng = random.Random(seed)
        rate = [0.02, 0.02, 0.02]
        for _ in range(n):
            if rng.random() < 0.02:
                rate[rng.randrange(3)] = rng.choice([0.02, 0.02, 0.6])
            tool = rng.randrange(3)
            self.call(rng.random() < rate[tool], tool)

    def check(self) -> None:
        r = fold_successes(self.state.r, self.state.p0, self.state.successes, PARAMS.odds)
        for i, model in enumerate(self.models):
            assert r[i].tolist() == pytest.approx(model.r, rel=1e-9)
            assert self.state.p0[i] == pytest.approx(model.p0, rel=3e-4)


@pytest.mark.parametrize("seed", range(8))
def test_taking_out_is_a_replay(seed: int) -> None:
    """R, the null and the learned blocks; the oldest failures, beyond what is remembered, stay in."""
    actors = Actors()
    model = actors.models[0]
    for part in range(6):
        actors.calls(10 * seed + part, 90)
        take_out(actors.ring, actors.state, np.array([part % 3]), PARAMS)
        model.take_out(str(part % 3))
        actors.check()
        # Successes are learned at the next failure at the latest.
        actors.call(True, 1)
        for name in ("learned", "parked", "pending"):
            events = getattr(model, name)
            assert getattr(actors.state, f"{name}_calls")[0] == len(events)
            assert getattr(actors.state, f"{name}_failures")[0] == sum(e.failed for e in events)
        remaining = [int(e.tool) for e in model.history if e.failed and not e.settled][-RING:]
        assert actors.ring.tool[0, : actors.ring.size[0]].tolist() == remaining


def test_a_tool_without_failures_changes_nothing() -> None:
    actors = Actors()
    actors.calls(1, 120)
    r, size = actors.state.r.tobytes(), actors.ring.size.tolist()
    take_out(actors.ring, actors.state, np.array([7]), PARAMS)
    assert (actors.state.r.tobytes(), actors.ring.size.tolist()) == (r, size)


def test_each_actor_loses_its_own_tool() -> None:
    """All the same calls, but another tool taken out of each."""
    actors = Actors(3)
    actors.calls(4, 150)
    take_out(actors.ring, actors.state, np.arange(3), PARAMS)
    for tool, model in enumerate(actors.models):
        model.take_out(str(tool))
    actors.check()


@pytest.mark.parametrize("seed", range(6))
def test_what_no_single_tool_explains(seed: int) -> None:
    """The smallest mean that any tool's removal would leave; nothing is changed by asking."""
    actors = Actors(2)
    actors.calls(seed, 100)
    actors.call(True, seed % 3)
    before = actors.state.r.tobytes(), actors.ring.tool.tobytes(), actors.state.pending_calls.tolist()
    least, tool = least_without_a_tool(actors.ring, actors.state, PARAMS)
    assert before == (actors.state.r.tobytes(), actors.ring.tool.tobytes(), actors.state.pending_calls.tolist())
    model = actors.models[0]
    expected, blamed = min((model.without(tool), tool) for tool in {e.tool for e in model.removable()})
    assert least.tolist() == pytest.approx([expected] * 2, rel=1e-9)
    assert tool.tolist() == [int(blamed)] * 2
    assert expected < float(mean_r(actors.state.r)[0])
