"""Objectives against a plain model of single events: other cuts, aborts, restores and checkpoints say the same."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuseboard_schemas.records import (
    BreakerCommand,
    Cause,
    Decision,
    DeniedBy,
    Mode,
    Outcome,
    Signal,
    SignalLevel,
    StepKind,
)
from fuseboard_streams.core.events import DECISIONS, TRACES
from fuseboard_streams.core.inputs import TOOL_CALLS
from fuseboard_streams.core.rulebook import built_in
from fuseboard_streams.core.ruleset import RuleSet
from fuseboard_streams.core.settings import SECOND, CoreSettings
from fuseboard_streams.core.shard import Output, Shard
from fuseboard_streams.rules.compile import compile_rules
from tests.property.core.test_events import Step, cut, inputs_of
from tests.support.calls import SEEDS, T0, Call
from tests.support.events import TOPICS, made
from tests.support.objectives_model import Model, Said

SEEDS_OF_HISTORIES = (0, 1, 2)
SETTINGS = CoreSettings(client_idle_us=100_000_000)
TEXT = b"""
version: 1
objectives:
  traced: {metric: sessions.traced, per: ACTOR, target: ">50%", window: 12m, min: 5, grace: 90s}
  success: {metric: calls.ok, per: ACTOR, target: ">75%", window: 4m, min: 12}
  tools: {metric: calls.ok, per: ACTOR_TOOL, target: ">=60%", window: 5m, min: 8, confidence: 90%}
  denied: {metric: actions.violating, per: ACTOR, target: "<20%", window: 8m, min: 15}
  cost:
    metric: tasks.cost_usd
    per: ACTOR
    target: {p50: "<0.05", p95: "<=0.4"}
    window: 12m
    min: 6
    confidence: 60%
overrides:
  - match: {actor: actor-1}
    set: {success: {window: 8m, target: ">60%"}, traced: {grace: 1m}, cost: {target: {p50: "<0.08"}}}
  - {match: {tool: tool-1}, set: {tools: {min: 4}}}
"""
BREAKERS = b"""
breakers:
  failing:
    metric: calls.failed
    scope: ACTOR_TOOL
    test: {kind: e-detector, baseline: {floor: 10%, quantile: 99%}, max_failures_per_trace: 3, warn: 20, trip: 100}
    action: DISABLE_TOOL
    mode: enforce
    recovery: {by: probe, cooldown: 30s, max_cooldown: 60s, probes: 10}
  burning:
    metric: spend.usd
    scope: ACTOR
    test: {kind: burn, budget: {usd: 4.00, per: 24h}, windows: [5%/5m/30s]}
    action: FAST_MODEL_ONLY
    mode: enforce
    recovery: {by: clear, quiet: 30s}
"""
BUSY = TEXT + BREAKERS
"""Breakers open and close, and money is spent: there are timers at many seconds, some in no cut but one."""


@cache
def rules_of(text: bytes = TEXT) -> RuleSet:
    # Nobody is there to give leave to trips.
    return replace(compile_rules(text, "test").rules, blast_radius=None)


@cache
def history(seed: int) -> list[Step]:
    """An hour of runs of records of one topic at a time; actors get worse and better, and fall silent."""
    rng = random.Random(seed)
    steps: list[Step] = []
    counts: dict[str, int] = {}
    at = 0.0
    while at < 3_600:
        topic = rng.choice((TOOL_CALLS, TOOL_CALLS, *TOPICS))
        bad = 0.45 if int(at / 450) % 2 else 0.04
        records: list[Any] = []
        for _ in range(rng.randrange(1, 30)):
            at += rng.expovariate(1 / 1.8)
            when = at - rng.choice((0, 0, 0, rng.uniform(0, 50), rng.uniform(200, 500)) if rng.random() < 0.2 else (0,))
            records.append(_record(rng, topic, when, at, bad))
        at += rng.uniform(100, 1_200) if rng.random() < 0.02 else 0
        steps.append((topic, records, counts.get(topic, 0)))
        counts[topic] = counts.get(topic, 0) + len(records)
    return steps


def _record(rng: random.Random, topic: str, when: float, at: float, bad: float) -> Any:
    actor, block = f"actor-{rng.randrange(3)}", int(at / 60)
    session = f"s{block - rng.randrange(3)}-{rng.randrange(2)}" if rng.random() < 0.6 - bad else None
    trace = f"trace-{block // 2}-{rng.randrange(4)}" if rng.random() < 0.9 else None
    span = f"span-{block}-{rng.randrange(12)}" if rng.random() < 0.8 else None
    cost = None if rng.random() < 0.3 else rng.choice((0, 3_000, 20_000, 300_000 if rng.random() < bad else 1_000))
    if topic == TOOL_CALLS:
        outcome = rng.choice((Outcome.ERROR, Outcome.TIMEOUT, Outcome.DENIED)) if rng.random() < bad else Outcome.OK
        denied = rng.choice((DeniedBy.POLICY, DeniedBy.POLICY, DeniedBy.BREAKER))
        return Call(
            when, outcome, actor, f"tool-{rng.randrange(2)}", trace=trace, cost=cost, session=session, span=span,
            arrival=at, denied_by=denied if outcome is Outcome.DENIED else DeniedBy.NONE,
        )  # fmt: skip
    fields: dict[str, Any] = {"actor": actor, "session_id": session, "trace_id": trace}
    if topic == TRACES:
        kind = StepKind.SESSION_END if rng.random() < 0.03 else StepKind.LLM_CALL
        fields |= {"cost_usd_micros": cost, "kind": kind}
    elif topic == DECISIONS:
        fields |= {"span_id": span, "mode": rng.choice((Mode.ENFORCE, Mode.ENFORCE, Mode.SHADOW))}
        fields["decision"] = Decision.DENY if rng.random() < bad else Decision.ALLOW
    else:
        fields["session_id"] = f"s{block}-{rng.randrange(2)}"
        fields["accepted"] = rng.random() < 0.95
    return made(topic, when, **fields)


def subject(text: bytes = TEXT) -> Shard:
    return Shard(0, 1, SETTINGS, SEEDS, rules_of(text))


def play(
    shard: Shard, steps: list[Step], aborts: random.Random | None = None, slice_bytes: int = 700
) -> tuple[list[Output], list[bytes]]:
    outputs: list[Output] = []
    blocks: list[bytes] = []
    for step in steps:
        while aborts is not None and aborts.random() < 0.2:
            shard.begin()
            shard.fold(inputs_of(*step))
            shard.rollback()
        shard.begin()
        shard.fold(inputs_of(*step))
        outputs += shard.take_outputs()
        blocks.append(shard.encode_changes(slice_bytes).block)
        shard.commit()
    return outputs, blocks


@cache
def played(seed: int, text: bytes = TEXT) -> tuple[list[Output], list[bytes]]:
    return play(subject(text), history(seed))


def of_objectives(outputs: list[Output]) -> list[Output]:
    names = {each.rule for each in rules_of().objectives}
    return [each for each in outputs if isinstance(each.record, Signal) and each.record.rule in names]


def said(outputs: list[Output]) -> list[Said]:
    found = []
    for each in outputs:
        record = each.record
        assert isinstance(record, Signal)
        state = (record.reason or "").split(":")[0]
        assert record.level is (SignalLevel.WARN if state == "violated" else SignalLevel.INFO)
        numbers = record.ts, record.calls or 0, record.failures or 0
        found.append((record.rule or "", record.actor or "", record.tool, state, *numbers))
    return found


def modelled(steps: list[Step]) -> list[Said]:
    model = Model(rules_of(), SETTINGS)
    for topic, records, _ in steps:
        for record in records:
            model.take(topic, record)
    return sorted(model.said, key=str)


@pytest.mark.parametrize("seed", SEEDS_OF_HISTORIES)
def test_what_is_said_is_what_a_plain_model_says(seed: int) -> None:
    assert sorted(said(played(seed)[0]), key=str) == modelled(history(seed))


def test_the_histories_make_every_objective_change_its_state() -> None:
    """Otherwise the tests here would prove little."""
    found = Counter((rule, state) for seed in SEEDS_OF_HISTORIES for rule, _, _, state, *_ in said(played(seed)[0]))
    states = {"met", "violated", "unknown"}
    assert {(each.rule, state) for each in rules_of().objectives for state in states} <= set(found), found


@pytest.mark.parametrize("text", [TEXT, BUSY], ids=["alone", "busy"])
@settings(max_examples=4, deadline=None)
@given(seed=st.sampled_from(SEEDS_OF_HISTORIES), parts=st.integers(1, 8))
def test_split_invariance(text: bytes, seed: int, parts: int) -> None:
    assert play(subject(text), cut(history(seed), seed, parts))[0] == played(seed, text)[0]


@pytest.mark.parametrize("seed", SEEDS_OF_HISTORIES)
def test_timers_of_others_change_nothing(seed: int) -> None:
    """Breakers that open and close, money that is spent: whatever comes between, objectives say the same."""
    outputs = played(seed, BUSY)[0]
    commands = Counter(each.record.cause for each in outputs if isinstance(each.record, BreakerCommand))
    assert {Cause.COOLDOWN_OVER, Cause.CONDITION_CLEARED} <= set(commands), commands
    assert said(of_objectives(outputs)) == said(played(seed)[0])
    if seed == SEEDS_OF_HISTORIES[-1]:
        single = [(topic, [record], at + i) for topic, records, at in history(seed) for i, record in enumerate(records)]
        assert play(subject(BUSY), single)[0] == outputs


@pytest.mark.parametrize("size", [1, 7, 100, 2_000])
def test_tasks_are_counted_at_whole_minutes_only(size: int) -> None:
    """Another actor spends all the time, so that there is a tick at every second, in a batch or between two."""
    calls = [Call(5 + i * 0.7, trace=f"trace-{i}", cost=1_000) for i in range(60)]
    calls += [Call(60 + i * 0.4, actor="b", cost=1) for i in range(1_600)]
    steps: list[Step] = [(TOOL_CALLS, calls[i : i + size], i) for i in range(0, len(calls), size)]
    found = said(of_objectives(play(subject(BUSY), steps)[0]))
    # Nothing has come of the last of them for ten minutes at 646.3 s.
    assert [each for each in found if each[0] == "cost"] == [("cost", "a", None, "met", T0 + 660 * SECOND, 60, 0)]


@pytest.mark.parametrize("apart", [False, True])
def test_a_denial_counts_again_when_it_is_remembered_no_more(apart: bool) -> None:
    """It is remembered for 15 minutes: until 901 s, which may lie within a run of calls. The window is shorter."""
    calls = [Call(at, Outcome.DENIED, denied_by=DeniedBy.POLICY, span="x") for at in (1, 900.8, 901.3)]
    shard = subject()
    play(shard, [(TOOL_CALLS, calls[:1], 0)])
    play(shard, [(TOOL_CALLS, calls[1:2], 1), (TOOL_CALLS, calls[2:], 2)] if apart else [(TOOL_CALLS, calls[1:], 1)])
    table = shard._state.measured
    bad = table["bad"] + table["bad_cells"].sum(axis=1)
    assert (int(bad.max()), int(shard._state.denials["until"].max())) == (1, T0 + 1_801_300_000)


@pytest.mark.parametrize("seed", SEEDS_OF_HISTORIES)
def test_a_rolled_back_transaction_leaves_no_trace(seed: int) -> None:
    assert play(subject(), history(seed), random.Random(seed)) == played(seed)


@settings(max_examples=3, deadline=None)
@given(seed=st.sampled_from(SEEDS_OF_HISTORIES), data=st.data())
def test_restore_continues_as_if_nothing_had_happened(seed: int, data: st.DataObject) -> None:
    steps = history(seed)
    crash = data.draw(st.integers(1, len(steps)))
    restored, (outputs, blocks) = subject(), played(seed)
    for block in blocks[:crash]:
        restored.apply(block)
    restored.finish_restore()
    later, following = play(restored, steps[crash:])
    assert following == blocks[crash:]
    assert later == outputs[len(outputs) - len(later) :]


def test_what_a_checkpoint_forgets_never_shows() -> None:
    eager, lazy, steps = subject(), subject(), history(0)
    assert play(eager, steps, slice_bytes=1 << 20)[0] == play(lazy, steps, slice_bytes=1)[0] == played(0)[0]
    assert eager._state.coverage.size < lazy._state.coverage.size
    assert eager._state.denials.size < lazy._state.denials.size


def test_what_no_objective_asks_for_any_more_is_dropped() -> None:
    """An abort brings it back."""
    shard = subject()
    play(shard, history(1))
    state = shard._state
    tables = state.measured, state.coverage, state.denials, state.tasks
    sizes, references = [each.size for each in tables], int(state.actors["refs"].sum())
    assert min(sizes) > 0
    for end in (shard.rollback, shard.commit):
        shard.begin()
        shard.change_rules(built_in(SETTINGS), b"none")
        assert [each.size for each in tables] == [0, 0, 0, 0]
        assert int(state.actors["refs"].sum()) == references - sum(sizes)
        assert shard._engine.next_stop is None
        shard.encode_changes(100)
        end()
        assert ([each.size for each in tables] == sizes) == (end == shard.rollback)


def test_without_an_objective_nothing_is_kept() -> None:
    shard = Shard(0, 1, SETTINGS, SEEDS, built_in(SETTINGS))
    play(shard, history(2))
    state = shard._state
    assert [each.size for each in (state.measured, state.coverage, state.denials, state.tasks)] == [0, 0, 0, 0]
