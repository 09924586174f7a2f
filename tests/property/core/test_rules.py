"""Rules of every kind in force: other cuts, aborts, restores and changes of the rules under way decide the same."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.records import (
    BreakerCommand,
    BreakerState,
    Decision,
    DeniedBy,
    Mode,
    Outcome,
    Scope,
    Severity,
    Signal,
    SignalLevel,
)
from fuseboard_streams.core.inputs import TOOL_CALLS
from fuseboard_streams.core.ruleset import RuleSet
from fuseboard_streams.core.settings import SECOND, CoreSettings
from fuseboard_streams.core.shard import Output, Shard
from fuseboard_streams.rules.compile import compile_rules
from tests.property.core.test_events import SIGNAL, Step, cut, inputs_of
from tests.support.calls import SEEDS, T0, Call
from tests.support.events import TOPICS, made
from tests.support.random_calls import random_calls

SHORT = CoreSettings(forget_after_us=3_000 * SECOND, client_idle_us=100 * SECOND)
TEXT = b"""
version: 1
defaults: {mode: enforce, runbook: "docs/runbooks/{id}.md"}
breakers:
  tool-failing:
    metric: calls.failed
    scope: ACTOR_TOOL
    test: {kind: e-detector, warn: 1e3, trip: 1e4}
    action: DISABLE_TOOL
    recovery: {by: probe, cooldown: 30s, max_cooldown: 300s, probes: 10}
  actor-failing:
    metric: calls.failed
    scope: ACTOR
    test: {kind: e-detector, warn: 1e3, trip: 1e4}
    ladder: [{action: READ_ONLY}, {action: HALT}]
    recovery: {by: probe}
  denied-critical:
    metric: actions.violating
    scope: ACTOR
    test: {kind: distinct, traces: 1, of_last: 20, within: 30m, severities: [critical]}
    action: READ_ONLY
    severity: critical
  denied-often:
    metric: actions.violating
    scope: ACTOR
    test: {kind: distinct, traces: 3, of_last: 40, within: 30m}
    action: REQUIRE_APPROVAL
    mode: warn
  burning:
    metric: spend.usd
    scope: ACTOR
    test: {kind: burn, budget: {usd: 4.00, per: 24h}, windows: [5%/5m/30s, 10%/30m/3m]}
    ladder: [{action: FAST_MODEL_ONLY}, {action: HALT, after: 20s}]
    recovery: {by: clear, quiet: 1m}
  day-cap: {metric: spend.usd, scope: ACTOR, test: {kind: cap, usd: 3.00, per: day}, action: HALT}
  call-cap: {metric: spend.usd, scope: ACTOR, test: {kind: cap, usd: 0.19, per: event}, action: READ_ONLY, mode: shadow}
  looping:
    metric: calls.repeated
    scope: SESSION
    test: {kind: runs, failures: 4, identical: 3, polling: [tool-2]}
    action: HALT
  judged: {metric: signals.tone, scope: ACTOR, test: {kind: signal, level: trip}, action: REQUIRE_APPROVAL}
overrides:
  - {match: {actor: actor-1}, set: {burning: {test: {budget: {usd: 8.00}}}, tool-failing: {test: {trip: 1e6}}}}
  - {match: {tool: tool-1}, set: {tool-failing: {test: {baseline: {floor: 2%}}}}}
"""
SECOND_BUDGET = b"""  burning-too:
    metric: spend.usd
    scope: ACTOR
    test: {kind: burn, budget: {usd: 9.00, per: 24h}, windows: [5%/5m/30s]}
    action: FAST_MODEL_ONLY
"""
OTHER = (
    (
        TEXT.replace(b"trip: 1e4}\n    action: DISABLE_TOOL", b"trip: 1e5}\n    action: DISABLE_TOOL")
        .replace(b"  day-cap:", b"  day-limit:")
        .replace(b"floor: 2%", b"floor: 3%")
        .replace(b"of_last: 40", b"of_last: 60")
        .replace(b"failures: 4", b"failures: 3")
        .replace(
            b"usd: 0.19, per: event}, action: READ_ONLY, mode: shadow", b"usd: 0.05, per: event}, action: READ_ONLY"
        )
        .replace(b"  burning:\n", SECOND_BUDGET + b"  burning:\n")
    )
    + b"""  - {match: {actor: actor-2}, set: {looping: {test: {polling: ["*"]}}, denied-often: {test: {of_last: 20}}}}
"""
)


@cache
def rules_of(text: bytes) -> RuleSet:
    # One shard alone has nobody to ask for leave.
    return replace(compile_rules(text, "test", FailureParams()).rules, blast_radius=None)


@cache
def history(seed: int) -> list[Step]:
    """Runs of records of one topic at a time: calls that cost, repeat, fail and are denied, and what others say."""
    rng = random.Random(seed)
    calls = [_spiced(rng, call) for call in random_calls(seed, 420, actors=3)]
    counts: dict[str, int] = {}
    steps: list[Step] = []
    position = 0
    while position < len(calls):
        topic = rng.choice((TOOL_CALLS, TOOL_CALLS, *TOPICS, SIGNAL))
        n, at, first = rng.randrange(1, 25), calls[position].at, counts.get(topic, 0)
        if topic == TOOL_CALLS:
            records: list[Any] = calls[position : position + n]
            position += len(records)
        else:
            records = [_record(rng, topic, at + i * 0.3, first + i) for i in range(n)]
        steps.append((topic, records, first))
        counts[topic] = first + len(records)
    return steps


def _spiced(rng: random.Random, call: Call) -> Call:
    spent = replace(call, cost=rng.choice((None, 0, 4_000, 60_000)) if rng.random() < 0.98 else 200_000)
    spent = replace(spent, arguments=f"{rng.randrange(3):032x}" if rng.random() < 0.8 else None, trace=_trace(rng))
    if call.outcome is Outcome.DENIED:
        return replace(spent, denied_by=rng.choice((DeniedBy.POLICY, DeniedBy.BREAKER)))
    return spent


def _trace(rng: random.Random) -> str | None:
    return None if rng.random() < 0.1 else f"{rng.randrange(25):032x}"


def _record(rng: random.Random, topic: str, at: float, number: int) -> Any:
    fields: dict[str, Any] = {"actor": f"actor-{rng.randrange(3)}", "client_id": rng.randrange(3), "seq": number}
    if topic == SIGNAL:
        return Signal(
            signal_id=f"s{number}", ts=T0 + round(at * SECOND), source="judge", tenant="default", scope=Scope.ACTOR,
            level=SignalLevel.TRIP if rng.random() < 0.05 else SignalLevel.WARN, metric="tone", **fields,
        )  # fmt: skip
    if topic == "traces":
        fields["cost_usd_micros"] = rng.choice((None, 1_000, 30_000))
    elif topic == "policy-decisions":
        severity = rng.choice((Severity.TICKET, Severity.PAGE)) if rng.random() < 0.97 else Severity.CRITICAL
        decision = Decision.DENY if rng.random() < 0.1 else Decision.ALLOW
        fields |= {"decision": decision, "severity": severity, "mode": rng.choice((Mode.ENFORCE, Mode.SHADOW))}
        fields["trace_id"] = _trace(rng)
    return made(topic, at, **fields)


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
        while aborts is not None and aborts.random() < 0.3:
            shard.begin()
            if text is not None:
                shard.change_rules(rules_of(text), text)
            shard.fold(inputs_of(*step))
            shard.rollback()
        shard.begin()
        if text is not None:
            shard.change_rules(rules_of(text), text)
        shard.fold(inputs_of(*step))
        outputs += shard.take_outputs()
        blocks.append(shard.encode_changes(slice_bytes).block)
        shard.commit()
    return outputs, blocks


def changes_in(steps: list[Step], seed: int) -> dict[tuple[str, int], bytes]:
    """Changes of the rules at some of the steps, to and fro."""
    rng = random.Random(seed)
    chosen = sorted(rng.sample(range(len(steps)), min(4, len(steps))))
    return {(steps[at][0], steps[at][2]): (OTHER, TEXT)[i % 2] for i, at in enumerate(chosen)}


def test_the_histories_make_every_rule_fire() -> None:
    fired: set[str] = set()
    states: set[BreakerState] = set()
    for seed in range(4):
        for output in play(subject(), history(seed))[0]:
            if isinstance(output.record, Signal):
                fired.add(output.record.rule or "")
            elif isinstance(output.record, BreakerCommand):
                states.add(output.record.state)
    assert fired == {view.rule for view in rules_of(TEXT).rules}
    assert states == {BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED}


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), parts=st.integers(1, 8))
def test_split_invariance(seed: int, parts: int) -> None:
    whole, torn = subject(), subject()
    steps = history(seed)
    changes = changes_in(steps, seed)
    outputs, _ = play(whole, steps, changes=changes)
    assert play(torn, cut(steps, seed, parts), changes=changes)[0] == outputs
    assert torn.counters == whole.counters


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_rolled_back_transaction_leaves_no_trace(seed: int) -> None:
    calm, shaken = subject(), subject()
    changes = changes_in(history(seed), seed)
    expected = play(calm, history(seed), changes=changes)
    assert play(shaken, history(seed), random.Random(seed), changes) == expected
    assert shaken.counters == calm.counters


@settings(max_examples=6, deadline=None)
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


@pytest.mark.parametrize("seed", range(4))
def test_what_a_checkpoint_forgets_never_shows(seed: int) -> None:
    steps = history(seed)
    changes = changes_in(steps, seed)
    assert play(subject(), steps, changes=changes, slice_bytes=1 << 20)[0] == play(subject(), steps, changes=changes)[0]


def test_a_rule_that_is_gone_lets_go_and_one_that_stays_holds_on() -> None:
    shard = subject()
    steps = history(3)
    play(shard, steps)
    before = {key: shard._breakers.get(key) for key in shard.open_breakers()}
    held = {hold.rule for row in before.values() if row is not None for hold in row.holds}
    assert held
    rules = RuleSet("empty", ())
    shard.begin()
    shard.change_rules(rules, b"nothing")
    released = [output.record for output in shard.take_outputs()]
    shard.encode_changes(100)
    shard.commit()
    left = {hold.rule for key in shard.open_breakers() if (row := shard._breakers.get(key)) for hold in row.holds}
    # What waits for a person goes on waiting.
    assert left <= {"denied-critical", "judged"} < held | left
    assert all(isinstance(each, BreakerCommand) and each.cause.value == "RULE_REMOVED" for each in released)
