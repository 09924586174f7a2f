"""Rules that change, or are reset by a person, while shards run: what goes on, what begins anew, who is let go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.records import BreakerCommand, DeniedBy, Outcome, Override, OverrideKind, Scope, Signal
from fuseboard_streams.core.clearing import Clearing
from fuseboard_streams.core.inputs import Inputs, Received
from fuseboard_streams.core.settings import SECOND, CoreSettings
from fuseboard_streams.core.shard import Output, Shard
from fuseboard_streams.rules.compile import compile_rules
from fuseboard_streams.rules.differences import differences
from tests.support.calls import T0, Call, make_shard, prepared
from tests.support.events import give, made
from tests.support.events import prepared as events

DAY = 86_400.0
OTHER = "  other: {metric: events.silent, scope: ACTOR, test: {kind: silence}, action: HALT}\n"
CAP = (
    "  cap: {metric: spend.usd, scope: ACTOR, test: {kind: cap, usd: %s, per: day}, action: HALT, mode: %s, "
    "recovery: {by: window}}\n"
)
LOOP = "  loop: {metric: calls.repeated, scope: SESSION, test: {kind: runs%s}, action: HALT, mode: %s}\n"
DENIED = (
    "  denied: {metric: actions.violating, scope: ACTOR, test: {kind: distinct, traces: %d, of_last: %d%s}, "
    "action: REQUIRE_APPROVAL, mode: enforce}\n"
)
BURN = (
    "  burn: {metric: spend.usd, scope: ACTOR, test: {kind: burn, budget: {usd: 1.00, per: 24h}, "
    "windows: [5%/5m/30s]}, action: HALT, mode: enforce, recovery: {by: clear, quiet: 1m}}\n"
)
# One shard alone has nobody to ask for leave.
FREE = "blast_radius: {tenant_actors: 100%}\n"


def text_of(*rules: str, overrides: str = "") -> bytes:
    return f"version: 1\nbreakers:\n{''.join(rules) or '  {}'}{FREE}{overrides}".encode()


class World:
    """A shard, the offset of its next call, and the rules that hold."""

    def __init__(self, *rules: str, settings: CoreSettings | None = None, overrides: str = "") -> None:
        text = text_of(*rules, overrides=overrides)
        self.shard: Shard = make_shard(settings, rules=compile_rules(text, "x", FailureParams()).rules)
        self.offset = 0
        self.slice_bytes = 256
        self.blocks: list[bytes] = []
        self.change(*rules, overrides=overrides)

    def _end(self) -> list[Output]:
        outputs = self.shard.take_outputs()
        self.blocks.append(self.shard.encode_changes(self.slice_bytes).block)
        self.shard.commit()
        return outputs

    def change(self, *rules: str, overrides: str = "") -> list[tuple[str, str]]:
        text = text_of(*rules, overrides=overrides)
        self.shard.begin()
        self.shard.change_rules(compile_rules(text, "x", FailureParams()).rules, text)
        return commands(self._end())

    def calls(self, *calls: Call) -> list[tuple[str, str]]:
        self.shard.begin()
        self.shard.fold_tool_calls(prepared(list(calls), 0, self.offset))
        self.offset += len(calls)
        return commands(self._end())

    def advance(self, at: float) -> list[tuple[str, str]]:
        self.shard.begin()
        self.shard.advance(T0 + round(at * SECOND))
        return commands(self._end())

    def reset(self, **fields: Any) -> list[tuple[str, str]]:
        given: dict[str, Any] = {"scope": Scope.ACTOR, "actor": "a", "tool": None, "trace_id": None} | fields
        order = Override(
            override_id=f"o{self.offset}",
            ts=T0,
            tenant="default",
            kind=OverrideKind.RESET,
            person="p",
            reason="r",
            **given,
        )
        self.shard.begin()
        self.shard.fold(Inputs(overrides=[Received(self.offset, self.shard.stream_time, order)]))
        assert self.shard.take_rejected() == []
        return commands(self._end())


def commands(outputs: list[Output]) -> list[tuple[str, str]]:
    return [(o.record.rule, o.record.cause.value) for o in outputs if isinstance(o.record, BreakerCommand)]


def paid(at: float, usd: int = 1, **fields: Any) -> Call:
    return Call(at, actor="a", cost=usd * 1_000_000, **fields)


def denied(at: float, trace: int, actor: str = "a") -> Call:
    return Call(at, Outcome.DENIED, actor=actor, trace=f"{trace:032x}", denied_by=DeniedBy.POLICY)


def failing(at: float, **fields: Any) -> Call:
    return Call(at, Outcome.ERROR, actor="a", trace="1" * 32, **fields)


# --- levels that are lowered, and rules that are enforced late


def test_a_cap_that_is_lowered_trips_at_the_next_spending() -> None:
    world = World(CAP % ("20.00", "enforce"))
    assert world.calls(*(paid(i) for i in range(15))) == []
    assert world.change(CAP % ("5.00", "enforce")) == []
    assert world.calls(*(paid(20 + i) for i in range(30))) == [("cap", "TRIP")]


@pytest.mark.parametrize("mode", ["shadow", "warn"])
def test_a_cap_that_is_enforced_late_trips_at_the_next_spending(mode: str) -> None:
    world = World(CAP % ("5.00", mode))
    assert world.calls(*(paid(i) for i in range(15))) == []
    assert world.change(CAP % ("5.00", "enforce")) == []
    assert world.calls(*(paid(20 + i) for i in range(30))) == [("cap", "TRIP")]


def test_a_cap_that_a_person_resets_trips_again_at_the_next_spending() -> None:
    world = World(CAP % ("5.00", "enforce"))
    assert world.calls(*(paid(i) for i in range(7))) == [("cap", "TRIP")]
    assert world.reset() == [("manual", "OVERRIDE")]
    assert world.calls(*(paid(20 + i) for i in range(3))) == [("cap", "TRIP")]


def test_a_cap_in_shadow_records_one_trip_a_day() -> None:
    world = World(CAP % ("5.00", "shadow"))
    world.shard.begin()
    world.shard.fold_tool_calls(prepared([paid(i) for i in range(50)]))
    world.shard.fold_tool_calls(prepared([paid(DAY + i) for i in range(50)], 0, 50))
    found = [o.record.ts for o in world.shard.take_outputs() if isinstance(o.record, Signal)]
    assert found == [T0 + 5 * SECOND, T0 + round((DAY + 5) * SECOND)]
    world.shard.rollback()


def test_what_is_late_from_yesterday_does_not_use_up_today() -> None:
    world = World(CAP % ("5.00", "enforce"))
    world.calls(paid(DAY + 1, 1))
    assert world.calls(paid(DAY - 19, 6)) == []
    assert world.calls(paid(DAY + 2, 5)) == [("cap", "TRIP")]


def test_a_loop_limit_that_is_lowered_or_enforced_late_stops_the_session() -> None:
    for before, after in (((", failures: 20", "enforce"), ("", "enforce")), (("", "shadow"), ("", "enforce"))):
        world = World(LOOP % before)
        assert world.calls(*(failing(i) for i in range(12))) == []
        assert world.change(LOOP % after) == []
        assert world.calls(*(failing(20 + i) for i in range(5))) == [("loop", "TRIP")]


def test_a_session_in_shadow_is_one_trip_an_hour() -> None:
    world = World(LOOP % ("", "shadow"))
    world.shard.begin()
    for first in range(0, 4_000, 400):
        world.shard.fold_tool_calls(prepared([failing(first + i) for i in range(400)], 0, first))
    found = [o.record.ts for o in world.shard.take_outputs() if isinstance(o.record, Signal)]
    assert found == [T0 + 7 * SECOND, T0 + 3_607 * SECOND]
    world.shard.rollback()


def test_only_whom_an_override_lets_poll_may_repeat_its_calls() -> None:
    overrides = 'overrides: [{match: {actor: poller}, set: {loop: {test: {polling: ["*"]}}}}]\n'
    world = World(LOOP % ("", "enforce"), overrides=overrides)
    same = {"trace": "1" * 32, "arguments": "ab" * 16}
    assert world.calls(*(Call(i, actor="poller", **same) for i in range(20))) == []
    assert world.calls(*(Call(30 + i, actor="a", **same) for i in range(20))) == [("loop", "TRIP")]


# --- what starts cold


def test_a_rule_that_comes_back_does_not_go_on_with_what_was() -> None:
    world = World(DENIED % (2, 100, ""), LOOP % ("", "enforce"), CAP % ("5.00", "enforce"), BURN, OTHER)
    world.calls(denied(0, 1), *(failing(1 + i) for i in range(7)), replace(paid(9), cost=40_000))
    world.change(OTHER)
    state = world.shard._state
    assert (state.violators.size, state.sessions.size, state.capped.size, state.spends.size) == (0, 0, 0, 0)
    world.change(DENIED % (2, 100, ""), LOOP % ("", "enforce"), CAP % ("5.00", "enforce"), BURN, OTHER)
    assert world.calls(denied(20, 2), failing(21), replace(paid(22), cost=40_000)) == []
    assert world.advance(60) == []


def test_what_a_difference_calls_cold_begins_anew_and_levels_go_on() -> None:
    old = compile_rules(text_of(DENIED % (3, 100, "")), "x", FailureParams())
    for changed, cold in ((DENIED % (2, 100, ""), False), (DENIED % (3, 200, ""), True)):
        new = compile_rules(text_of(changed), "x", FailureParams())
        assert [each.cold for each in differences(old, new)] == [cold]
        world = World(DENIED % (3, 100, ""))
        assert world.calls(denied(0, 1), denied(1, 2)) == []
        world.change(changed)
        assert world.calls(denied(2, 3)) == ([] if cold else [("denied", "TRIP")])


def test_a_new_rule_does_not_trip_on_what_was_before_it() -> None:
    old = DENIED.replace("denied", "old", 1) % (8, 100, "")
    world = World(old)
    assert world.calls(*(denied(i, i + 1) for i in range(3))) == []
    world.change(old, DENIED % (4, 100, ""))
    assert world.calls(*(denied(10 + i, 10 + i) for i in range(3))) == []
    assert world.calls(denied(20, 20)) == [("denied", "TRIP")]


def test_a_new_cap_and_a_new_budget_count_from_when_they_came() -> None:
    caps = CAP.replace("cap:", "loose:", 1) % ("50.00", "enforce")
    burns = BURN.replace("burn:", "wide:", 1).replace("1.00", "900.00")
    world = World(caps, burns)
    assert world.calls(*(paid(i) for i in range(15))) == []
    world.change(caps, burns, CAP % ("5.00", "enforce"), BURN)
    assert world.calls(replace(paid(16), cost=10_000)) == []
    assert world.advance(40) == []
    assert world.calls(paid(60, 5), paid(61, 1)) == [("cap", "TRIP"), ("burn", "TRIP")]


def test_an_actor_that_an_override_takes_over_starts_cold_alone() -> None:
    world = World(DENIED % (2, 100, ""))
    world.calls(*(denied(i, 1, actor) for i, actor in enumerate(("a", "b"))))
    overrides = "overrides: [{match: {actor: b}, set: {denied: {test: {of_last: 50}}}}]\n"
    world.change(DENIED % (2, 100, ""), overrides=overrides)
    assert world.calls(denied(10, 2, "b")) == []
    assert world.calls(denied(11, 2, "a")) == [("denied", "TRIP")]


def test_since_when_a_budget_counts_is_restored_and_taken_back() -> None:
    wide = BURN.replace("burn:", "wide:", 1).replace("1.00", "900.00")
    live = World(wide)
    live.calls(*(paid(i) for i in range(15)))
    text = text_of(wide, BURN)
    rules = compile_rules(text, "x", FailureParams()).rules
    before = list(live.shard._state.objects.items("since"))
    live.shard.begin()
    live.shard.change_rules(rules, text)
    live.shard.rollback()
    assert list(live.shard._state.objects.items("since")) == before
    live.change(wide, BURN)
    restored = make_shard(rules=rules)
    for block in live.blocks:
        restored.apply(block)
    restored.finish_restore()
    for shard in (restored, live.shard):
        shard.begin()
        shard.fold_tool_calls(prepared([replace(paid(16), cost=10_000)], 0, 15))
        shard.advance(T0 + 40 * SECOND)
        assert commands(shard.take_outputs()) == []
        shard.rollback()


# --- what a person's reset forgets


def test_a_reset_begins_the_evidence_of_its_rule_anew() -> None:
    world = World(DENIED % (3, 100, ""), LOOP % ("", "enforce"))
    assert world.calls(*(denied(i, i + 1) for i in range(3))) == [("denied", "TRIP")]
    assert world.reset(rule="denied") == [("denied", "OVERRIDE")]
    assert world.calls(denied(10, 9), denied(11, 10)) == []
    assert world.calls(denied(12, 11)) == [("denied", "TRIP")]
    assert world.calls(*(failing(20 + i) for i in range(8))) == [("loop", "TRIP")]
    assert world.reset(scope=Scope.SESSION, trace_id="1" * 32) == [("manual", "OVERRIDE")]
    assert world.calls(*(failing(40 + i) for i in range(7))) == []
    assert world.calls(failing(50)) == [("loop", "TRIP")]


# --- holds whose rule asks something else


def test_a_hold_whose_rule_asks_something_else_is_let_go() -> None:
    world = World(BURN)
    found = world.calls(*(replace(paid(i), cost=50_000) for i in range(60)))
    assert found == [("burn", "TRIP")]
    found = world.change(CAP.replace("cap:", "burn:", 1) % ("100.00", "enforce"))
    assert found == []
    assert world.advance(200) == [("burn", "CONDITION_CLEARED")]
    assert world.shard.open_breakers() == ()


def test_a_hold_whose_limit_is_raised_is_asked_about_again() -> None:
    silent = (
        "  silent: {metric: events.silent, scope: ACTOR, test: {kind: silence, requests: %d, lasting: 1m}, "
        "action: HALT, mode: enforce, recovery: {by: clear, quiet: 1m}}\n"
    )
    world = World(silent % 2)
    records = [made("session-requests", i, actor="a", event_id=str(i)) for i in range(3)]
    give(world.shard, events("session-requests", records))
    assert world.advance(3_600) == [("silent", "TRIP")]
    assert world.shard._clearing.at is not None
    assert world.change(silent % 9) == []
    assert world.advance(3_800) == [("silent", "CONDITION_CLEARED")]


# --- how long old hits count


@pytest.mark.parametrize("slice_bytes", [1, 1 << 20])
def test_hits_count_for_as_long_as_their_rule_says_whatever_a_checkpoint_forgets(slice_bytes: int) -> None:
    for within, expected in (("7d", [("denied", "TRIP")]), ("5d", [])):
        world = World(
            DENIED % (2, 10_000, f", within: {within}"), settings=CoreSettings(forget_after_us=round(DAY * 1e6))
        )
        world.slice_bytes = slice_bytes
        world.calls(denied(0, 1))
        for i in range(1, 24):
            world.calls(Call(i * DAY / 4, actor="a"))
        assert world.calls(denied(6 * DAY, 2)) == expected


def test_more_violators_than_there_is_room_for_do_no_harm() -> None:
    both = DENIED % (2, 100, ""), DENIED.replace("denied", "again", 1) % (1, 50, "")
    world = World(*both, settings=CoreSettings(max_actors=10))
    for i in range(8):
        world.calls(denied(i, i + 1, f"a{i}"))
    assert world.shard.keys["violators"] == 10
    assert world.shard._engine.violations.untracked == 6


# --- how often is asked


def count_runs(clearing: Clearing) -> list[int]:
    asked: list[int] = []
    run = clearing.run
    clearing.run = lambda now: asked.append(now) or run(now)  # type: ignore[method-assign, func-returns-value]
    return asked


def test_a_gap_is_not_walked_through_while_nothing_can_change() -> None:
    """Three days pass in one step, with three hundred actors held."""
    rule = (
        "  silent: {metric: events.silent, scope: ACTOR, test: {kind: silence, requests: 2, lasting: 5m}, "
        "action: HALT, mode: %s, recovery: {by: clear, quiet: 5m}}\n"
    )
    for mode in ("warn", "enforce"):
        world = World(rule % mode)
        records = [made("session-requests", i / 100, actor=f"a{i % 300}", event_id=str(i)) for i in range(600)]
        give(world.shard, events("session-requests", records))
        world.advance(600)
        assert len(world.shard._clearing) == 300
        asked = count_runs(world.shard._clearing)
        assert world.calls(Call(3 * DAY, actor="busy")) == []
        assert len(asked) <= 1
        # One of them is heard: it is asked about again, and let go; nobody else is.
        assert world.calls(Call(3 * DAY + 1, actor="a7")) == []
        expected = [("silent", "CONDITION_CLEARED")] if mode == "enforce" else []
        assert world.calls(Call(3 * DAY + 400, actor="busy")) == expected
        assert len(asked) <= 3


def test_a_burning_budget_is_asked_about_only_while_its_windows_empty() -> None:
    world = World(BURN)
    assert world.calls(*(replace(paid(i), cost=50_000) for i in range(60))) == [("burn", "TRIP")]
    asked = count_runs(world.shard._clearing)
    assert world.calls(Call(2 * DAY, actor="busy")) == [("burn", "CONDITION_CLEARED")]
    assert len(asked) <= 15


def test_a_window_of_lost_events_that_comes_back_begins_anew() -> None:
    rule = (
        "  lost-%s: {metric: events.lost, scope: ACTOR, test: {kind: lost, share: 10%%, within: %s, min: 4}, "
        "action: HALT}\n"
    )
    long, short = rule % ("long", "1h"), rule % ("short", "10m")
    world = World(long, short)
    world.calls(*(Call(i, actor="a", client=1, seq=2 * i) for i in range(5)))
    assert world.shard.keys["losses"] == 2
    world.change(long)
    assert world.shard.keys["losses"] == 1
    world.change(long, short)
    world.calls(Call(6, actor="a", client=1, seq=9))
    table = world.shard._state.losses
    assert sorted(table["expected"][table.live].tolist()) == [1, 10]
