"""Every kind of rule at once: other cuts, aborts, restores and checkpoints of the same interleaving find the same."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.records import Action, BreakerCommand, Mode, Recovery, Scope, Signal
from fuseboard_streams.core.breaker_params import BreakerParams
from fuseboard_streams.core.rulebook import built_in
from fuseboard_streams.core.ruleset import (
    FirstUseTest,
    LostTest,
    Match,
    RecoveryPlan,
    Response,
    Rule,
    RuleSet,
    Rung,
    SilenceTest,
    Test,
    UngatedTest,
    Variant,
)
from fuseboard_streams.core.settings import SECOND, CoreSettings
from fuseboard_streams.core.shard import Output, Shard
from tests.property.core.test_events import Step, cut, history, inputs_of, play
from tests.support.calls import SEEDS
from tests.support.events import Remembering

SHORT = CoreSettings(
    failure=FailureParams(trip=1e4, warn=1e2, period=20, floor=0.01),
    breaker=BreakerParams(base_cooldown_us=20 * SECOND, max_cooldown_us=80 * SECOND),
    forget_after_us=300 * SECOND,
    client_idle_us=100 * SECOND,
)
CLEAR = RecoveryPlan(Recovery.CLEAR, quiet_us=20 * SECOND)
PERSON = RecoveryPlan(Recovery.PERSON, max_cooldown_us=30 * SECOND)


def rule(name: str, scope: Scope, test: Test, plan: RecoveryPlan, mode: Mode, changed: Test | None = None) -> Rule:
    action = Action.DISABLE_TOOL if scope is Scope.ACTOR_TOOL else Action.HALT
    response = Response(name, (Rung(action),), mode, plan)
    variants = () if changed is None else (((Match(actor="actor-1"),), Variant(changed, response)),)
    return Rule(name, name, scope, Match(), Variant(test, response), variants)


OWN = (
    rule("first", Scope.ACTOR_TOOL, FirstUseTest(3), PERSON, Mode.WARN, FirstUseTest(1)),
    rule("gate", Scope.ACTOR, UngatedTest(2 * SECOND), PERSON, Mode.WARN),
    rule("silent", Scope.ACTOR, SilenceTest(2, 8 * SECOND), CLEAR, Mode.ENFORCE, SilenceTest(1, 4 * SECOND)),
    rule("quiet", Scope.ACTOR, SilenceTest(3, 15 * SECOND), CLEAR, Mode.SHADOW),
    rule("lost", Scope.ACTOR, LostTest((1, 5), 60 * SECOND, 5), CLEAR, Mode.WARN),
    rule("losing", Scope.ACTOR, LostTest((1, 3), 30 * SECOND, 5), CLEAR, Mode.ENFORCE),
)
RULES = RuleSet("test", (*built_in(SHORT).rules, *OWN))


def shard() -> Shard:
    return Shard(0, 1, SHORT, SEEDS, RULES, follower=Remembering())


def checkpointed(steps: list[Step], slice_bytes: int) -> list[Output]:
    """As long as there is a slice at all, how fast checkpoints go round, and what they forget, never shows."""
    subject, outputs = shard(), []
    for step in steps:
        subject.begin()
        subject.fold(inputs_of(*step))
        outputs += subject.take_outputs()
        subject.encode_changes(slice_bytes)
        subject.commit()
    return outputs


def test_the_histories_make_every_rule_fire_and_let_go() -> None:
    """Otherwise the tests here would prove little."""
    fired: Counter[str] = Counter()
    for seed in range(8):
        outputs = play(shard(), history(seed))[0]
        fired.update(each.record.rule or "" for each in outputs if isinstance(each.record, Signal))
        fired.update(
            f"{each.record.rule} {each.record.cause}" for each in outputs if isinstance(each.record, BreakerCommand)
        )
    assert {each.rule for each in OWN} <= set(fired), fired
    assert {"silent CONDITION_CLEARED", "losing CONDITION_CLEARED"} <= set(fired), fired


def test_what_no_rule_asks_for_any_more_is_dropped() -> None:
    """As when a shard goes on under other rules; an abort brings it back."""
    before, after = shard(), Shard(0, 1, SHORT, SEEDS, built_in(SHORT), follower=Remembering())
    for block in play(before, history(3))[1]:
        after.apply(block)
    after.finish_restore()
    state = after._state
    kept = state.tools["used"].sum(), state.actors["calls"].sum(), state.losses.size, state.requests["heard"].sum()
    assert min(kept) > 0
    references = state.actors["refs"].sum()
    for end in (after.rollback, after.commit):
        after.begin()
        after._engine.forget_unasked(before._engine, after.stream_time)
        assert state.tools["used"].sum() == state.actors["calls"].sum() == state.losses.size == 0
        assert not state.requests["requests"].any()
        assert after._engine.next_stop is None
        assert state.actors["refs"].sum() == references - kept[2]
        after.encode_changes(400)
        end()
        left = state.tools["used"].sum(), state.actors["calls"].sum(), state.losses.size, state.requests["heard"].sum()
        assert (left == kept) == (end == after.rollback)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), parts=st.integers(0, 6))
def test_split_invariance(seed: int, parts: int) -> None:
    whole, torn = shard(), shard()
    outputs, _ = play(whole, history(seed))
    assert play(torn, cut(history(seed), seed, parts))[0] == outputs
    assert torn.counters == whole.counters


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_rolled_back_transaction_leaves_no_trace(seed: int) -> None:
    assert play(shard(), history(seed), random.Random(seed)) == play(shard(), history(seed))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), data=st.data())
def test_restore_continues_as_if_nothing_had_happened(seed: int, data: st.DataObject) -> None:
    steps = history(seed)
    crash = data.draw(st.integers(1, len(steps)))
    live, restored = shard(), shard()
    for block in play(live, steps[:crash])[1]:
        restored.apply(block)
    restored.finish_restore()
    assert restored._engine.next_stop == live._engine.next_stop
    assert play(restored, steps[crash:]) == play(live, steps[crash:])


@pytest.mark.parametrize("seed", range(4))
def test_what_a_checkpoint_forgets_never_shows(seed: int) -> None:
    assert checkpointed(history(seed), 1 << 20) == checkpointed(history(seed), 1)
