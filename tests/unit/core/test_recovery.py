"""What lets a target in again fits what shut it out: probes, quiet, midnight."""

from __future__ import annotations

from dataclasses import replace

from fuseboard_schemas.records import Action, BreakerCommand, BreakerState, Cause, Effect, Outcome, Recovery
from fuseboard_streams.core.hard_caps import DAY_US
from fuseboard_streams.core.settings import SECOND
from fuseboard_streams.core.shard import Output, Shard
from fuseboard_streams.rules.compile import compile_rules
from tests.support.calls import T0, Call, fold, make_shard

ACTOR = "ACTOR:default/a"


def ruled(*lines: str) -> Shard:
    text = "version: 1\ndefaults: {mode: enforce}\nbreakers:\n" + "\n".join(f"  {line}" for line in lines)
    # One shard alone has nobody to ask for leave.
    return make_shard(rules=replace(compile_rules(text.encode(), "test").rules, blast_radius=None))


def commands(outputs: list[Output]) -> list[BreakerCommand]:
    return [each.record for each in outputs if isinstance(each.record, BreakerCommand)]


def passed(shard: Shard, seconds: float) -> list[BreakerCommand]:
    """What time alone brings about."""
    shard.begin()
    shard.advance(shard.stream_time + round(seconds * SECOND))
    outputs = shard.take_outputs()
    shard.encode_changes(200)
    shard.commit()
    return commands(outputs)


def test_a_day_s_cap_opens_at_the_event_that_crosses_it_and_closes_at_midnight() -> None:
    shard = ruled("cap: {metric: spend.usd, scope: ACTOR, test: {kind: cap, usd: 1.00, per: day}, action: HALT}")
    (opened,) = commands(fold(shard, [Call(at, cost=300_000) for at in range(5)]))
    assert (opened.breaker_id, opened.action, opened.ts) == (ACTOR, Action.HALT, T0 + 3 * SECOND)
    assert [hold.recovery for hold in opened.holds] == [Recovery.WINDOW]
    assert "spent $1.20 since midnight UTC" in opened.reason
    midnight = (T0 // DAY_US + 1) * DAY_US
    assert passed(shard, (midnight - shard.stream_time) / SECOND - 1) == []
    (closed,) = passed(shard, 1)
    assert (closed.state, closed.ts) == (BreakerState.CLOSED, midnight)
    # The new day begins at nothing.
    assert commands(fold(shard, [Call((midnight - T0) / SECOND + 5, cost=900_000)], first_offset=9)) == []


def test_a_budget_that_burns_is_not_let_in_by_clean_calls_but_by_quiet() -> None:
    shard = ruled(
        "burning: {metric: spend.usd, scope: ACTOR, test: {kind: burn, budget: {usd: 1.00, per: 24h}, "
        "windows: [5%/5m/30s]}, action: HALT, recovery: {by: clear, quiet: 2m}}"
    )
    (opened,) = commands(fold(shard, [Call(at, cost=30_000) for at in range(4)]))
    assert (opened.state, opened.action) == (BreakerState.OPEN, Action.HALT)
    # Calls that go well, and cost nothing: what was spent still burns, and none of them is a probe.
    clean = [Call(5 + at / 10, effect=Effect.WRITE, probe=True, gate=(ACTOR, opened.epoch)) for at in range(200)]
    assert commands(fold(shard, clean, first_offset=10)) == []
    (closed,) = passed(shard, 600)
    assert (closed.state, closed.cause) == (BreakerState.CLOSED, Cause.CONDITION_CLEARED)
    # The windows empty within half a minute; then it must be quiet for two.
    assert 120 <= (closed.ts - opened.ts) / SECOND <= 200


def test_a_stuck_session_is_stopped_for_an_hour_and_nobody_else() -> None:
    shard = ruled(
        "loop: {metric: calls.repeated, scope: SESSION, test: {kind: runs, failures: 8, identical: 5}, action: HALT}"
    )
    calls = [Call(at, Outcome.ERROR, trace="7" * 32, arguments=f"{at:032x}") for at in range(12)]
    (stopped,) = commands(fold(shard, calls))
    assert stopped.breaker_id == f"SESSION:default/a/{'7' * 32}"
    assert (stopped.ts - T0) / SECOND == 7
    (ended,) = passed(shard, 3_700)
    assert (ended.state, (ended.ts - stopped.ts) // SECOND) == (BreakerState.CLOSED, 3_600)
