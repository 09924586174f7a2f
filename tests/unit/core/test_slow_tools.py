"""Tools that become slow or dear, actors that are denied too often: what shuts them out, and what lets them in."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from fuseboard_schemas.records import (
    Action,
    BreakerCommand,
    BreakerState,
    Cause,
    Decision,
    DeniedBy,
    Mode,
    Outcome,
    Recovery,
    Scope,
    Signal,
    SignalLevel,
)
from fuseboard_streams.core.prepare import ToolCalls
from fuseboard_streams.core.rulebook import needs_of, unfollowed
from fuseboard_streams.core.ruleset import RuleSet
from fuseboard_streams.core.shard import Output, Shard
from fuseboard_streams.rules.compile import compile_rules
from tests.support.calls import T0, Call, fold, make_shard
from tests.support.calls import prepared as prepared_calls
from tests.support.events import made, prepared

SLOW = "slow: {metric: calls.latency, scope: ACTOR_TOOL, test: {kind: exceed, reference: 300}, action: DISABLE_TOOL}"
DEAR = SLOW.replace("slow", "dear").replace("calls.latency", "calls.cost_usd")
NOISY = (
    "noisy: {metric: actions.violating, scope: ACTOR, test: {kind: e-detector, baseline: {known: 5%}}, "
    "action: READ_ONLY}"
)
TOOL_ID = "ACTOR_TOOL:default/a/tool-1"
CHANGE = 2_000


def rules_of(*lines: str, mode: str = "enforce") -> RuleSet:
    head = f"version: 1\ndefaults: {{mode: {mode}}}\nblast_radius: {{tenant_actors: 100%}}\nbreakers:\n"
    text = head + "\n".join(f"  {line}" for line in lines)
    return compile_rules(text.encode(), "test").rules


def commands(outputs: list[Output]) -> list[BreakerCommand]:
    return [each.record for each in outputs if isinstance(each.record, BreakerCommand)]


def signals(outputs: list[Output]) -> list[Signal]:
    return [each.record for each in outputs if isinstance(each.record, Signal)]


def calls(factor: float = 1.0, n: int = 4_000, seed: int = 0) -> list[Call]:
    """Calls of three tools in traces of four, of which one tool takes and costs more from a call on."""
    rng = random.Random(seed)
    found = []
    for i in range(n):
        tool, more = f"tool-{rng.randrange(3)}", factor if i >= CHANGE else 1.0
        value = round(400 * rng.lognormvariate(0, 0.5) * (more if tool == "tool-1" else 1.0))
        found.append(Call(i * 0.5, tool=tool, trace=f"{i // 4:032x}", duration_ms=value, cost=value * 10))
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("line", "metric"), [(SLOW, "calls.latency"), (DEAR, "calls.cost_usd")])
def test_a_tool_that_takes_twice_as_much_is_found_and_no_other(line: str, metric: str, seed: int) -> None:
    shard = make_shard(rules=rules_of(line))
    made_calls = calls(2.0, seed=seed)
    outputs = fold(shard, made_calls)
    told = [signal for signal in signals(outputs) if signal.tool == "tool-1"]
    assert {(each.level, each.metric, each.scope) for each in signals(outputs)} >= {
        (SignalLevel.WARN, metric, Scope.ACTOR_TOOL),
        (SignalLevel.TRIP, metric, Scope.ACTOR_TOOL),
    }
    trip = next(each for each in told if each.level is SignalLevel.TRIP)
    assert {each.tool for each in signals(outputs) if each.level is SignalLevel.TRIP} == {"tool-1"}
    assert trip.evidence_log10 is not None
    assert trip.evidence_log10 >= 6.0
    assert trip.null_p0 is not None
    assert 0.03 < trip.null_p0 < 0.10
    assert trip.failures is not None
    assert trip.calls is not None
    assert trip.value == trip.failures / trip.calls
    # The tool is called in three of four traces; it takes some fifty of them.
    since = (trip.ts - T0) / 1e6 * 2 - CHANGE
    assert 0 < since < 400
    opened = commands(outputs)[0]
    assert (opened.breaker_id, opened.action, opened.null_p0) == (TOOL_ID, Action.DISABLE_TOOL, trip.null_p0)
    assert opened.evidence_log10 == trip.evidence_log10
    what = "took" if metric == "calls.latency" else "cost $"
    assert f"calls of tool-1 {what}" in (trip.reason or "")


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_found_where_nothing_changes(seed: int) -> None:
    assert fold(make_shard(rules=rules_of(SLOW, DEAR)), calls(1.0, 8_000, seed)) == []


def test_one_long_trace_says_nothing() -> None:
    """Its first call is one observation, whatever the others take."""
    shard = make_shard(rules=rules_of(SLOW))
    before = calls()[:CHANGE]
    stuck = [Call(1_000 + i * 0.5, tool="tool-1", trace="f" * 32, duration_ms=60_000) for i in range(500)]
    assert fold(shard, before + stuck) == []
    several = [replace(call, trace=f"{i:032x}", at=call.at + 300) for i, call in enumerate(stuck, 10**6)]
    assert commands(fold(shard, several, first_offset=10_000))[0].breaker_id == TOOL_ID


def test_calls_that_did_not_run_or_say_nothing_are_not_observed() -> None:
    shard = make_shard(rules=rules_of(SLOW, DEAR))
    before = [replace(call, cost=None) for call in calls()[:CHANGE]]
    fold(shard, before)
    assert shard.keys["references"] == 3, "no cost is known"
    slow = Call(0, tool="tool-1", duration_ms=60_000)
    odd = (
        {"outcome": Outcome.DENIED, "denied_by": DeniedBy.POLICY},
        {"outcome": Outcome.CANCELLED},
        {"probe": True, "gate": (TOOL_ID, 1)},
        {"duration_ms": None},
    )
    late = replace(slow, at=100.0)
    some = [replace(slow, at=1_000 + i, **odd[i % 4]) for i in range(400)] + [late] * 100  # type: ignore[arg-type]
    assert fold(shard, some, first_offset=10_000) == []
    failing = [replace(slow, at=1_500 + i, outcome=Outcome.TIMEOUT) for i in range(20)]
    assert commands(fold(shard, failing, first_offset=20_000)) != [], "a call that timed out took so long"


def half_open() -> tuple[Shard, BreakerCommand]:
    """Calls of a slow tool until it is tried again."""
    shard, made_calls = make_shard(rules=rules_of(SLOW)), calls(4.0)
    fold(shard, made_calls[:CHANGE])
    for i, call in enumerate(made_calls[CHANGE:], CHANGE):
        for command in commands(fold(shard, [call], first_offset=i)):
            if command.state is BreakerState.HALF_OPEN:
                return shard, command
    raise AssertionError("it never tripped")


def probes(command: BreakerCommand, duration_ms: int) -> list[Call]:
    gate = command.breaker_id, command.epoch
    at = (command.ts - T0) / 1e6 + 1
    return [Call(at + i / 10, tool="tool-1", duration_ms=duration_ms, probe=True, gate=gate) for i in range(10)]


def test_probes_that_are_as_quick_as_ever_let_the_tool_in() -> None:
    shard, command = half_open()
    (closed,) = commands(fold(shard, probes(command, 400), first_offset=10_000))
    assert (closed.state, closed.cause) == (BreakerState.CLOSED, Cause.PROBES_PASSED)
    again = [replace(call, at=call.at + 700) for call in calls()[CHANGE : CHANGE + 600]]
    assert fold(shard, again, first_offset=20_000) == [], "the reference is kept, the evidence is not"
    slow = [replace(call, at=call.at + 1_000, duration_ms=9_000) for call in calls(seed=1)[CHANGE : CHANGE + 200]]
    assert commands(fold(shard, slow, first_offset=30_000))[0].state is BreakerState.OPEN


def test_probes_that_succeed_slowly_do_not() -> None:
    shard, command = half_open()
    reopened = commands(fold(shard, probes(command, 4_000), first_offset=10_000))[0]
    assert (reopened.state, reopened.cause) == (BreakerState.OPEN, Cause.PROBES_FAILED)


def test_a_change_of_levels_keeps_the_reference_and_one_of_the_quantile_does_not() -> None:
    shard = make_shard(rules=rules_of(SLOW))
    fold(shard, calls()[:CHANGE])
    for line, kept in (
        (SLOW.replace("reference: 300", "reference: 300, trip: 1e5"), True),
        (SLOW.replace("reference: 300", "reference: 300, quantile: 90%"), False),
    ):
        shard.begin()
        shard.change_rules(rules_of(line), line.encode())
        shard.fold_tool_calls(_one_more_of_each())
        references = shard._state.references
        assert (references["seen"][references.live] == 300).all() == kept
        assert (references["threshold"][references.live] > 0).all() == kept
        assert not kept or not shard._state.histograms.size
        shard.rollback()
        assert (references["seen"][references.live] == 300).all()


def test_what_no_rule_asks_for_any_more_is_dropped() -> None:
    """It would not be kept up; an abort brings it back."""
    shard = make_shard(rules=rules_of(SLOW, DEAR, NOISY))
    fold(shard, [*calls()[:100], Call(60, Outcome.DENIED, trace="f" * 32, denied_by=DeniedBy.POLICY)])
    before, references = shard.keys, shard._state.tools["refs"].sum()
    assert (before["references"], before["histograms"], before["violating"], references) == (6, 96, 1, 6)
    for lines, kept in (((SLOW,), (3, 48, 0, 3)), ((), (0, 0, 0, 0))):
        rules = rules_of(*lines) if lines else RuleSet("none", ())
        shard.begin()
        shard.change_rules(rules, b"")
        now = shard.keys
        assert (now["references"], now["histograms"], now["violating"], shard._state.tools["refs"].sum()) == kept
        assert (now["observed"] > 0, now["denied"] > 0) == (bool(lines), False)
        shard.rollback()
        assert shard.keys == before
        assert shard._state.tools["refs"].sum() == references


def _one_more_of_each() -> ToolCalls:
    return prepared_calls([Call(1_001, tool=f"tool-{i}", trace=f"{9 + i:032x}") for i in range(3)], 0, 5_000)


def test_state_comes_back() -> None:
    """A shard that is made of the blocks of another finds the same."""
    live, restored = make_shard(rules=rules_of(SLOW, DEAR, NOISY)), make_shard(rules=rules_of(SLOW, DEAR, NOISY))
    made_calls = calls(2.0)
    for a in range(0, CHANGE + 60, 20):
        fold_into(live, made_calls[a : a + 20], a, restored)
    restored.finish_restore()
    left = made_calls[CHANGE + 60 :]
    found = fold(restored, left, first_offset=CHANGE + 60)
    assert found == fold(live, left, first_offset=CHANGE + 60)
    assert {each.rule for each in signals(found)} == {"slow", "dear"}
    assert restored.keys == live.keys


def fold_into(shard: Shard, some: list[Call], offset: int, other: Shard) -> None:
    shard.begin()
    shard.fold_tool_calls(prepared_calls(some, 0, offset))
    assert shard.take_outputs() == []
    other.apply(shard.encode_changes(1 << 20).block)
    shard.commit()


def test_a_rule_in_shadow_says_it_quietly_and_holds_nothing() -> None:
    outputs = fold(make_shard(rules=rules_of(SLOW, mode="shadow")), calls(2.0))
    assert commands(outputs) == []
    assert {each.level for each in signals(outputs)} == {SignalLevel.INFO}
    assert all("(the rule is in shadow" in (each.reason or "") for each in signals(outputs))


def test_an_actor_that_is_denied_in_many_traces_waits_for_a_person() -> None:
    """Decisions and the refused calls that report them are one violation of each trace."""
    shard = make_shard(rules=rules_of(NOISY))
    fine = [Call(i, trace=f"{i:032x}") for i in range(200)]
    assert fold(shard, fine) == []
    outputs: list[Output] = []
    for i in range(30):
        trace = f"{1_000 + i // 3:032x}"
        shard.begin()
        denial = made("policy-decisions", 300 + i, decision=Decision.DENY, trace_id=trace, event_id=f"d{i}")
        shadow = made("policy-decisions", 300 + i, decision=Decision.DENY, mode=Mode.SHADOW, event_id=f"s{i}")
        shard.fold(prepared("policy-decisions", [denial, shadow], 2 * i))
        outputs += shard.take_outputs()
        shard.encode_changes(100)
        shard.commit()
        refused = Call(300.5 + i, Outcome.DENIED, trace=trace, denied_by=DeniedBy.POLICY)
        outputs += fold(shard, [refused], first_offset=1_000 + i)
    (opened,) = commands(outputs)
    assert (opened.breaker_id, opened.action) == ("ACTOR:default/a", Action.READ_ONLY)
    assert [hold.recovery for hold in opened.holds] == [Recovery.PERSON]
    # It goes on, and nobody is warned of what is held already.
    warned, trip = signals(outputs)
    assert (warned.level, trip.level) == (SignalLevel.WARN, SignalLevel.TRIP)
    assert (trip.failures, trip.null_p0, (trip.event_id or "")[0]) == (6, 0.05, "d")
    assert "denied by policy in 6 of" in (trip.reason or "")


def test_the_columns_that_rules_need_are_asked_for_and_nothing_is_left_unfollowed() -> None:
    assert needs_of(rules_of(SLOW, DEAR)) == frozenset()
    assert needs_of(rules_of(NOISY)) == {"denied_by"}
    assert unfollowed(rules_of(SLOW, DEAR, NOISY)) == []
