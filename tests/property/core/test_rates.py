"""Slow and dear tools, and actors that are denied too often: cuts, aborts, restores and rules that change under way."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.records import BreakerCommand, Decision, DeniedBy, Outcome, Signal
from fuseboard_streams.core.inputs import TOOL_CALLS
from fuseboard_streams.core.ruleset import RuleSet
from fuseboard_streams.core.settings import SECOND, CoreSettings
from fuseboard_streams.core.shard import Output, Shard
from fuseboard_streams.rules.compile import compile_rules
from tests.property.core.test_events import Step, cut, inputs_of
from tests.support.calls import SEEDS, Call
from tests.support.events import made

# So few traces are remembered that some are forgotten, and so short a time that tools are.
SHORT = CoreSettings(forget_after_us=60 * SECOND, client_idle_us=40 * SECOND, max_traces=64)
TEXT = b"""
version: 1
defaults: {mode: enforce, runbook: "docs/runbooks/{id}.md"}
blast_radius: {tenant_actors: 100%}
breakers:
  slow:
    metric: calls.latency
    scope: ACTOR_TOOL
    test: {kind: exceed, quantile: 80%, reference: 100, warn: 300, trip: 3000}
    action: DISABLE_TOOL
  slower:
    metric: calls.latency
    scope: ACTOR_TOOL
    match: {tool: tool-0}
    test: {kind: exceed, quantile: 90%, reference: 120, warn: 300, trip: 3000}
    action: REQUIRE_APPROVAL
    mode: shadow
  dear:
    metric: calls.cost_usd
    scope: ACTOR_TOOL
    test: {kind: exceed, quantile: 80%, reference: 100, warn: 300, trip: 3000}
    action: REQUIRE_APPROVAL
  denied:
    metric: actions.violating
    scope: ACTOR
    test: {kind: e-detector, baseline: {known: 5%}, warn: 100, trip: 1000}
    action: READ_ONLY
  denied-more: {metric: actions.violating, scope: ACTOR, test: {kind: e-detector, warn: 300, trip: 1000}, action: HALT}
overrides:
  - {match: {actor: actor-1}, set: {denied: {test: {baseline: {known: 10%}}}}}
"""
OTHER = TEXT.replace(b"  dear:", b"  costly:").replace(b"reference: 120", b"reference: 110").replace(b"1000}", b"2000}")


@cache
def rules_of(text: bytes) -> RuleSet:
    return compile_rules(text, "test", FailureParams()).rules


@cache
def history(seed: int) -> list[Step]:
    """Calls of two actors that are slow, dear and denied in stretches, and decisions that deny them."""
    rng = random.Random(seed)
    steps: list[Step] = []
    counts = Counter[str]()
    at = 0.0
    while counts[TOOL_CALLS] < 1_500:
        topic = rng.choice((TOOL_CALLS, TOOL_CALLS, TOOL_CALLS, "policy-decisions"))
        records: list[Any] = []
        for _ in range(rng.randrange(1, 60 if topic == TOOL_CALLS else 5)):
            at += rng.expovariate(10) if rng.random() < 0.9993 else 61.0
            number = counts[topic]
            counts[topic] += 1
            records.append(_call(rng, at, number) if topic == TOOL_CALLS else _decision(rng, at, number))
        if rng.random() < 0.2:
            records.append(rng.choice(records))
            counts[topic] += 1
        steps.append((topic, records, counts[topic] - len(records)))
    return steps


def _call(rng: random.Random, at: float, number: int) -> Call:
    bad = (number // 260) % 3 == 2
    call = Call(
        at, actor=f"actor-{rng.random() < 0.2:d}", tool=f"tool-{rng.random() < 0.2:d}", trace=_trace(rng, number),
        client=rng.randrange(2), duration_ms=_value(rng, 200, bad),
        cost=_value(rng, 1_000, bad),
        seq=number, probe=rng.random() < 0.02, gate=("ACTOR_TOOL:default/actor-0/tool-0", 1),
    )  # fmt: skip
    if rng.random() < (0.4 if bad else 0.03):
        return replace(call, outcome=Outcome.DENIED, denied_by=rng.choice((DeniedBy.POLICY, DeniedBy.BREAKER)))
    return replace(call, outcome=rng.choice((Outcome.OK, Outcome.OK, Outcome.ERROR, Outcome.CANCELLED)))


def _value(rng: random.Random, usual: int, bad: bool) -> int | None:
    return None if rng.random() < 0.1 else int(usual * rng.lognormvariate(0, 0.4)) * (4 if bad else 1)


def _decision(rng: random.Random, at: float, number: int) -> Any:
    decision = Decision.DENY if rng.random() < 0.3 else Decision.ALLOW
    fields = {"actor": f"actor-{rng.random() < 0.2:d}", "client_id": 1, "seq": number, "decision": decision}
    return made("policy-decisions", at, trace_id=_trace(rng, 3 * number), **fields)


def _trace(rng: random.Random, number: int) -> str | None:
    return None if rng.random() < 0.1 else f"{max(number - rng.randrange(12), 0):032x}"


def subject(text: bytes = TEXT) -> Shard:
    return Shard(0, 1, SHORT, SEEDS, rules_of(text))


def play(
    shard: Shard,
    steps: list[Step],
    aborts: random.Random | None = None,
    changes: dict[tuple[str, int], bytes] | None = None,
    slice_bytes: int = 600,
) -> tuple[list[Output], list[bytes]]:
    """Fold the steps; ``changes`` names rules that hold from a step's first record on."""
    outputs: list[Output] = []
    blocks: list[bytes] = []
    for step in steps:
        text = (changes or {}).get((step[0], step[2]))
        again = True
        while again:
            again = aborts is not None and aborts.random() < 0.3
            shard.begin()
            if text is not None:
                shard.change_rules(rules_of(text), text)
            shard.fold(inputs_of(*step))
            if again:
                shard.rollback()
        outputs += shard.take_outputs()
        blocks.append(shard.encode_changes(slice_bytes).block)
        shard.commit()
    return outputs, blocks


def changes_in(steps: list[Step], seed: int) -> dict[tuple[str, int], bytes]:
    """Changes of the rules at some of the steps, to and fro."""
    rng = random.Random(seed)
    chosen = sorted(rng.sample(range(len(steps)), min(2, len(steps))))
    return {(steps[at][0], steps[at][2]): (OTHER, TEXT)[i % 2] for i, at in enumerate(chosen)}


def test_the_histories_make_every_rule_fire_and_forget() -> None:
    """Otherwise the tests here would prove little."""
    fired: Counter[str] = Counter()
    for seed in range(2):
        shard = subject()
        for output in play(shard, history(seed))[0]:
            if isinstance(output.record, Signal):
                fired[f"{output.record.rule} {output.record.level}"] += 1
            elif isinstance(output.record, BreakerCommand):
                fired[str(output.record.cause)] += 1
        state = shard._state
        assert state.references.size > 2, fired
        assert (state.observed["hash"][: state.observed.size] != 0).sum() == 64
    expected = {f"{name} {level}" for name in ("slow", "dear", "denied", "denied-more") for level in ("WARN", "TRIP")}
    assert expected | {"slower INFO"} <= set(fired), fired
    assert not any(name.startswith("slower") and name != "slower INFO" for name in fired)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000), parts=st.integers(1, 8))
def test_split_invariance(seed: int, parts: int) -> None:
    whole, torn = subject(), subject()
    steps = history(seed)
    changes = changes_in(steps, seed)
    outputs, _ = play(whole, steps, changes=changes)
    assert play(torn, cut(steps, seed, parts), changes=changes)[0] == outputs
    assert torn.counters == whole.counters


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_rolled_back_transaction_leaves_no_trace(seed: int) -> None:
    calm, shaken = subject(), subject()
    changes = changes_in(history(seed), seed)
    expected = play(calm, history(seed), changes=changes)
    assert play(shaken, history(seed), random.Random(seed), changes) == expected
    assert shaken.counters == calm.counters


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000), data=st.data())
def test_restore_continues_as_if_nothing_had_happened(seed: int, data: st.DataObject) -> None:
    steps = history(seed)
    crash = data.draw(st.integers(1, len(steps)))
    changes = changes_in(steps, seed)
    live = subject()
    _, blocks = play(live, steps[:crash], changes=changes)
    restored = subject(TEXT if live.rules_in_force == rules_of(TEXT).version else OTHER)
    for block in blocks:
        restored.apply(block)
    restored.finish_restore()
    live.counters.__init__()  # type: ignore[misc]
    assert play(restored, steps[crash:], changes=changes) == play(live, steps[crash:], changes=changes)
    assert restored.counters == live.counters


@pytest.mark.parametrize("seed", range(3))
def test_what_a_checkpoint_forgets_never_shows(seed: int) -> None:
    quick, slow = subject(), subject()
    assert play(quick, history(seed), slice_bytes=1 << 22)[0] == play(slow, history(seed), slice_bytes=1)[0]
    for shard in (quick, slow):
        shard.begin()
        shard.advance(shard.stream_time + 50 * SECOND)
        shard.encode_changes(1 << 22)
        shard.commit()
        check_references(shard)
        # Others' calls, until what was not called has been forgotten.
        play(
            shard,
            [(TOOL_CALLS, [Call(900.0 + i * 20, actor="other")], 9_000 + i) for i in range(9)],
            slice_bytes=1 << 22,
        )
        check_references(shard)
        assert shard.keys["references"] == 1, "no cost is known"
        assert shard.keys["tools"] == 1


def check_references(shard: Shard) -> None:
    """Nothing is freed that something points at, and nothing is left that nothing points at."""
    state = shard._state
    references, tools = state.references, state.tools
    rows = np.flatnonzero(references.live)
    owners = references["owner"][rows].astype(np.int64)
    assert tools.live[owners].all()
    assert (np.bincount(owners, minlength=tools.capacity) == tools["refs"]).all()
    first = references["histogram"][rows]
    first = first[first >= 0]
    assert len(set(first.tolist())) == len(first) == state.histograms.size // 16
    assert state.histograms.live[(first[:, None] + np.arange(16)).ravel()].all()
    rows = np.flatnonzero(state.violating.live)
    assert state.actors.live[state.violating["owner"][rows].astype(np.int64)].all()


def test_a_tool_is_forgotten_after_its_references_wherever_a_slice_is_cut() -> None:
    """A round of slices may have passed a reference before it was idle, and come to its tool when it is."""
    freed = 0
    for phase in range(6):
        shard = subject()
        once = [Call(i / 10, tool=f"tool-{i}", cost=5) for i in range(10)]
        later = [Call(2.0 + i, actor="other") for i in range(130)]
        for i, some in enumerate((once, *([each] for each in later))):
            # The rounds are out of step with each other.
            size = 120 if i > phase else 500
            play(shard, [(TOOL_CALLS, some, 100 * i)], slice_bytes=size)
            check_references(shard)
        freed += shard.keys["tools"] < 11
    assert freed
