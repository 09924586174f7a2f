"""A failure rule that climbs: its statistic goes on while it holds, and the cuts of batches show in nothing."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.records import Action, BreakerCommand, BreakerState, Cause, Outcome, Scope, Signal, SignalLevel
from fuseboard_streams.core import rulebook
from fuseboard_streams.core.ruleset import Rule, RuleSet, Rung
from fuseboard_streams.core.settings import SECOND, CoreSettings
from tests.support.calls import Call, fold, make_shard
from tests.support.random_calls import cuts_of, random_calls, with_probes
from tests.unit.core.test_life import TOOL_ID, Line

SENSITIVE = CoreSettings(failure=FailureParams(trip=1e3, warn=1e2, known_null=0.01))


@pytest.fixture(autouse=True)
def climbing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure rule asks for approval first, then for what it asks for otherwise."""
    usual = rulebook.built_in

    def climbs(rule: Rule) -> Rule:
        ladder = (Rung(Action.REQUIRE_APPROVAL), *rule.base.response.ladder)
        return replace(rule, base=replace(rule.base, response=replace(rule.base.response, ladder=ladder)))

    def climbing(settings: CoreSettings) -> RuleSet:
        rules = usual(settings)
        return replace(rules, rules=tuple(map(climbs, rules.rules)))

    monkeypatch.setattr(rulebook, "built_in", climbing)


def test_the_statistic_goes_on_until_the_top() -> None:
    line = Line(SENSITIVE)
    for i in range(40):
        line.call(Call(i, Outcome.ERROR))
    commands = line.commands(TOOL_ID)
    assert [c.action for c in commands][:2] == [Action.REQUIRE_APPROVAL, Action.DISABLE_TOOL]
    assert commands[1].ts - commands[0].ts > 5 * SECOND
    trips = [o.record.ts for o in line.outputs if isinstance(o.record, Signal) and o.record.level is SignalLevel.TRIP]
    assert max(trips) == commands[1].ts, "at the top it rests"


@pytest.mark.parametrize("seed", range(4))
def test_any_cuts_give_the_same(seed: int) -> None:
    calls = with_probes(make_shard(SENSITIVE), random_calls(seed, 300, tools=3), seed)
    whole, cut = make_shard(SENSITIVE), make_shard(SENSITIVE)
    expected = fold(whole, calls)
    assert fold(cut, calls, cuts_of(random.Random(seed), len(calls), 60)) == expected
    assert cut.counters == whole.counters


def test_the_histories_climb_and_step_down() -> None:
    seen = set()
    for seed in range(4):
        calls = with_probes(make_shard(SENSITIVE), random_calls(seed, 300, tools=3), seed)
        for output in fold(make_shard(SENSITIVE), calls):
            if isinstance(output.record, BreakerCommand) and output.record.scope is Scope.ACTOR_TOOL:
                seen.add((output.record.state, output.record.action))
    assert {(BreakerState.OPEN, Action.REQUIRE_APPROVAL), (BreakerState.OPEN, Action.DISABLE_TOOL)} <= seen


def test_calls_that_began_under_the_step_before_do_not_climb() -> None:
    """They hang for a minute: none that fails in the minute after a step can have known of it."""
    line = Line(SENSITIVE)
    for i in range(200):
        line.call(Call(i, Outcome.ERROR, duration_ms=60_000))
    trips = [c for c in line.commands(TOOL_ID) if c.cause is Cause.TRIP]
    assert [c.action for c in trips] == [Action.REQUIRE_APPROVAL, Action.DISABLE_TOOL]
    assert trips[1].ts - trips[0].ts > 65 * SECOND
