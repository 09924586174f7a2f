"""What a portrait of an actor says, against what its shard was given."""

from __future__ import annotations

import dataclasses

import pytest

from fuseboard_detectors.failure import FailureParams, initial_null
from fuseboard_schemas.records import Decision, DeniedBy, Outcome, Severity, Signal
from fuseboard_streams.core.events import DECISIONS, REQUESTS
from fuseboard_streams.core.portrait import portrait
from fuseboard_streams.core.portrayed import ActorPortrait, FailurePortrait
from fuseboard_streams.core.settings import SECOND, CoreSettings
from fuseboard_streams.core.shard import Shard
from fuseboard_streams.rules.compile import PACKAGED, compile_rules
from tests.support.calls import SEEDS, T0, Call, fold, make_shard
from tests.support.calls import prepared as prepared_calls
from tests.support.events import give, made, prepared

TEXT = PACKAGED.read_bytes()
RULES = compile_rules(TEXT, "packaged").rules
DAY_S = 86_400


def shard_with(*calls: Call) -> Shard:
    shard = make_shard(rules=RULES)
    shard.begin()
    shard.change_rules(RULES, TEXT)
    shard.encode_changes(256)
    shard.commit()
    fold(shard, list(calls))
    return shard


def seen(shard: Shard, actor: str = "a") -> ActorPortrait:
    found = portrait(shard, "default", actor)
    assert found is not None
    return found


def of_tool(shard: Shard, tool: str = "t", actor: str = "a") -> FailurePortrait:
    return next(each for each in seen(shard, actor).failures if each.tool == tool)


def history(calls: int, every: int) -> list[Call]:
    """Calls of which each ``every``-th fails."""
    return [Call(i, Outcome.ERROR if i % every == every - 1 else Outcome.OK, seq=i) for i in range(calls)]


def test_an_actor_that_nobody_knows() -> None:
    assert portrait(shard_with(Call(1)), "default", "b") is None
    assert portrait(shard_with(Call(1)), "other", "a") is None


def test_what_was_learned_and_from_how_much() -> None:
    """All calls are in it: learned, or waiting in one of the two blocks, but for those after the last failure."""
    found = of_tool(shard_with(*history(1_000, 20)))
    assert (found.rule, found.mode, found.suspect, found.resting) == ("tool-failing", "ENFORCE", False, False)
    assert found.learned_calls + found.waiting_calls == 1_000
    assert (found.learned_calls, found.learned_failures) == (800, 40)
    assert 0.05 < found.null_p0 < 0.09
    assert found.last_seen_us == T0 + 999 * SECOND
    assert (found.warn_log10, found.trip_log10) == (4.0, 6.0)


def test_successes_since_the_last_failure_are_part_of_what_is_known() -> None:
    """A tool that has never failed is not shown as if nothing were known of it."""
    found = of_tool(shard_with(*(Call(i) for i in range(1_000))))
    assert (found.learned_calls, found.learned_failures, found.run_failures) == (800, 0, 0)
    assert found.null_p0 < 0.02 < initial_null(FailureParams())
    assert found.run_since_us is None


@pytest.mark.parametrize(("calls", "every"), [(1, 5), (50, 10), (700, 50), (700, 3), (30, 4)])
def test_so_many_failures_in_a_row_do_trip_it(calls: int, every: int) -> None:
    before = history(calls, every)
    count = of_tool(shard_with(*before)).failures_to_trip
    assert count is not None
    more = [Call(calls + i, Outcome.ERROR, seq=calls + i) for i in range(count)]
    assert "ACTOR_TOOL:default/a/t" not in shard_with(*before, *more[:-1]).open_breakers()
    tripped = shard_with(*before, *more)
    assert "ACTOR_TOOL:default/a/t" in tripped.open_breakers()
    found = of_tool(tripped)
    assert (found.resting, found.failures_to_trip, found.evidence_log10) == (True, None, None)
    (hold,) = seen(tripped).holds[:1]
    assert (hold.breaker_id, hold.rule, hold.action, hold.recovery, hold.watching) == (
        "ACTOR_TOOL:default/a/t", "tool-failing", "DISABLE_TOOL", "PROBE", False
    )  # fmt: skip
    assert hold.since_us == T0 + (calls + count - 1) * SECOND
    assert hold.probe_at_us is not None
    assert hold.probe_at_us > hold.since_us


def test_the_actor_comes_first_and_its_tools_by_name() -> None:
    shard = shard_with(*(Call(i, tool=f"t{i % 3}", seq=i) for i in range(9)), Call(9, actor="b", tool="x"))
    assert [each.tool for each in seen(shard).failures] == [None, "t0", "t1", "t2"]
    assert seen(shard).failures[0].rule == "actor-failing"
    assert seen(shard).clients == 1
    assert seen(shard).calls_made == 9


def test_whoever_was_idle_for_too_long_begins_anew() -> None:
    shard = shard_with(*history(800, 10), Call(8 * DAY_S, actor="b"))
    found = of_tool(shard)
    assert (found.begins_anew, found.learned_calls, found.evidence_log10) == (True, 0, None)
    assert found.null_p0 == initial_null(FailureParams())


def test_whoever_has_another_rule_begins_anew() -> None:
    shard = shard_with(*history(800, 10))
    text = TEXT.replace(b"floor: 0.5%", b"floor: 1%")
    shard.begin()
    shard.change_rules(compile_rules(text, "f").rules, text)
    shard.encode_changes(256)
    shard.commit()
    assert of_tool(shard).begins_anew
    fold(shard, [Call(801)], first_offset=801)
    assert not of_tool(shard).begins_anew


def test_money() -> None:
    """What was spent today and within the windows, to the micro-dollar."""
    start = DAY_S - 400
    calls = [Call(start + i, cost=1_000 + i) for i in range(700)]
    found = seen(shard_with(*calls))
    # T0 is a midnight.
    today = sum(1_000 + i for i in range(400, 700))
    assert [(each.rule, each.daily, each.spent_usd_micros, each.limit_usd_micros) for each in found.caps] == [
        ("cost-day-cap", True, today, 20_000_000), ("cost-call-cap", False, None, 2_000_000)
    ]  # fmt: skip
    (budget,) = found.budgets
    window = budget.windows[0]
    assert (budget.budget_usd_micros, window.limit_long_usd_micros) == (5_000_000, 250_000)
    # Of the cells of 30 s and 5 s that end now the first is not a whole one.
    now = start + 699
    for length, width, spent in ((300, 30, window.spent_long_usd_micros), (30, 5, window.spent_short_usd_micros)):
        begin = now // width * width - length + width
        assert spent == sum(1_000 + i for i in range(700) if start + i >= begin)
    assert window.burning == (window.spent_long_usd_micros >= 250_000 and window.spent_short_usd_micros >= 25_000)
    # A day later nothing of it is left.
    later = shard_with(*calls, Call(3 * DAY_S, actor="b"))
    assert seen(later).caps[0].spent_usd_micros == 0
    assert seen(later).budgets[0].windows[0].spent_long_usd_micros == 0
    assert seen(later, "b").caps[0].spent_usd_micros == 0


def test_a_budget_that_is_new_does_not_count_what_was_spent_before() -> None:
    """As the rule itself does not: what is shown burns if, and only if, the rule would fire."""
    shard = shard_with(*(Call(i, actor=actor, cost=50_000) for i in range(60) for actor in "ab"))
    assert seen(shard).budgets[0].windows[0].burning
    text = TEXT.replace(b"cost-runaway:", b"cost-burning:")
    shard.begin()
    shard.change_rules(compile_rules(text, "f").rules, text)
    shard.encode_changes(256)
    shard.commit()
    outputs = fold(shard, [Call(61 + i * 0.5, cost=10) for i in range(100)], first_offset=120)
    (budget,) = seen(shard).budgets
    # The cells in which the rule came into force count for nothing: those of 30 s, and of 5 s, that hold 59 s.
    assert [(each.spent_long_usd_micros, each.spent_short_usd_micros) for each in budget.windows[:1]] == [(1_000, 520)]
    assert not any(each.burning for each in budget.windows)
    outputs += fold(shard, [Call(112 + i, cost=50_000) for i in range(9)], first_offset=220)
    assert seen(shard).budgets[0].windows[0].burning
    said = [
        each.record.ts for each in outputs if isinstance(each.record, Signal) and each.record.rule == "cost-burning"
    ]
    assert said == [T0 + 117 * SECOND]


def test_denials_by_distinct_traces() -> None:
    denied = {"outcome": Outcome.DENIED, "denied_by": DeniedBy.POLICY}
    shard = shard_with(Call(1, trace="x", **denied), Call(2, trace="x", **denied))  # type: ignore[arg-type]
    found = {each.rule: each for each in seen(shard).violations}
    assert (found["policy-suspect"].traces, found["policy-suspect"].limit) == (1, 2)
    assert (found["policy-critical"].traces, found["policy-critical"].severities) == (0, ("CRITICAL",))
    decision = made(DECISIONS, 3, decision=Decision.DENY, trace_id="y", severity=Severity.TICKET)
    give(shard, prepared(DECISIONS, [decision]))
    assert {each.rule: each.traces for each in seen(shard).violations}["policy-violating"] == 2
    fold(shard, [Call(4 + i) for i in range(120)], first_offset=10)
    assert {each.traces for each in seen(shard).violations} == {0}


def test_sessions_near_their_limit() -> None:
    calls = [Call(i, Outcome.ERROR, trace="x", tool=f"t{i}") for i in range(5)]
    calls += [Call(5 + i, trace="y", arguments="0123456789abcdef") for i in range(2)]
    (found,) = seen(shard_with(*calls)).sessions
    assert (found.followed, found.near, found.most_failures, found.limit_failures) == (2, 1, 5, 8)
    assert (found.most_identical, found.limit_identical) == (2, 5)


def test_requests_that_nothing_answers() -> None:
    shard = shard_with(Call(1))
    give(shard, prepared(REQUESTS, [made(REQUESTS, 10 + i, session_id=f"s{i}") for i in range(3)]))
    (found,) = seen(shard).silences
    assert (found.requests, found.limit_requests, found.since_us) == (3, 5, T0 + 10 * SECOND)
    fold(shard, [Call(20)], first_offset=1)
    assert (seen(shard).silences[0].requests, seen(shard).silences[0].since_us) == (0, None)


def test_events_that_are_missing() -> None:
    (found,) = seen(shard_with(*(Call(i, seq=2 * i) for i in range(50)))).losses
    assert (found.missing, found.expected, found.limit_share) == (49, 99, 0.01)


def test_rules_that_only_watch_show_what_they_would_hold() -> None:
    shard = shard_with(*(Call(i, cost=100_000) for i in range(60)))
    (hold,) = seen(shard).holds
    assert (hold.rule, hold.watching, hold.breaker_id) == ("cost-runaway", True, "ACTOR:default/a")


def test_an_actor_whose_row_is_gone_still_has_its_holds() -> None:
    shard = shard_with(*history(10, 100), *(Call(10 + i, Outcome.ERROR) for i in range(20)))
    found = seen(shard)
    gone = ActorPortrait("default", "a", found.stream_time_us, found.rules_version, None, 0, None, holds=found.holds)
    assert found.holds
    find = shard.parts.identities.find_actor
    shard.parts.identities.find_actor = lambda tenant, actor: None  # type: ignore[method-assign]
    assert portrait(shard, "default", "a") == gone
    shard.parts.identities.find_actor = find  # type: ignore[method-assign]


def test_a_restored_shard_says_the_same_under_the_rules_of_the_state() -> None:
    shard = make_shard(rules=RULES)
    blocks = []
    text = TEXT.replace(b"usd: 20.00", b"usd: 30.00")
    rules = compile_rules(text, "f").rules
    calls = [*history(300, 7), *(Call(300 + i, Outcome.ERROR, cost=70_000, seq=300 + i) for i in range(12))]
    for number, part in enumerate((calls[:100], calls[100:], [])):
        shard.begin()
        if number == 0:
            shard.change_rules(rules, text)
        if part:
            shard.fold_tool_calls(prepared_calls(part, 0, number * 100))
        blocks.append(shard.encode_changes(1 << 20).block)
        shard.commit()
        shard.take_outputs()
    other = Shard(0, 1, CoreSettings(), dataclasses.replace(SEEDS, first=99), RULES)
    for block in blocks:
        other.apply(block)
    other.finish_restore()
    assert portrait(other, "default", "a") != portrait(shard, "default", "a")
    noted = other.parts.state.rules_text
    assert noted == text
    other.go_on_under(compile_rules(noted, "state").rules)
    assert portrait(other, "default", "a") == portrait(shard, "default", "a")


def test_nothing_is_changed_by_looking() -> None:
    shards = [
        shard_with(*history(300, 7), *(Call(300 + i, cost=9_000, trace="x") for i in range(20))) for _ in range(2)
    ]
    assert seen(shards[0]) == seen(shards[0])
    for each in shards:
        each.begin()
    assert shards[0].encode_changes(1 << 20) == shards[1].encode_changes(1 << 20)
