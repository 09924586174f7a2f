"""What others' signals may be about, and how many breakers they may open."""

from __future__ import annotations

from typing import Any

import pytest

from fuseboard_schemas.records import DeadLetterReason, Override, OverrideKind, Scope, Signal, SignalLevel
from fuseboard_streams.core.inputs import Inputs, Received
from fuseboard_streams.core.settings import SECOND, CoreSettings
from fuseboard_streams.core.shard import Shard
from fuseboard_streams.rules.compile import compile_rules
from tests.support.calls import SEEDS, T0, Call, fold, prepared
from tests.support.events import give, signals

RULES = b"""
version: 1
breakers:
  tone: {metric: signals.tone, scope: [ACTOR, ACTOR_TOOL, SESSION, TOOL, TENANT], test: {kind: signal}, mode: enforce,
         severity: critical, action: REQUIRE_APPROVAL}
"""
DAY_S = 86_400


def judged(partitions: int = 1, **settings: Any) -> Shard:
    rules = compile_rules(RULES, "a.yaml").rules
    return Shard(0, partitions, CoreSettings(**settings), SEEDS, rules)


def signal(at: float = 0, signal_id: str = "s", **target: Any) -> Signal:
    target = {"scope": Scope.ACTOR, "actor": "a", "tenant": "default", **target}
    return Signal(
        signal_id=f"{signal_id}{at}", ts=T0 + round(at * SECOND), source="judge", level=SignalLevel.TRIP,
        metric="tone", **target,
    )  # fmt: skip


def refused(shard: Shard, *several: Signal) -> list[tuple[DeadLetterReason, str]]:
    give(shard, signals(*several))
    return [(each.reason, each.detail) for each in shard.take_rejected()]


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ({"actor": "ghost"}, "the actor default/ghost is unknown here"),
        ({"tenant": "other"}, "the actor other/a is unknown here"),
        ({"scope": Scope.ACTOR_TOOL, "tool": "ghost"}, "the tool ghost of actor default/a is unknown here"),
        ({"scope": Scope.ACTOR_TOOL, "actor": "b", "tool": "t"}, "the tool t of actor default/b is unknown here"),
        ({"scope": Scope.SESSION, "actor": "ghost", "trace_id": "1"}, "the actor default/ghost is unknown here"),
    ],
)
def test_a_signal_about_an_unknown_target_is_a_dead_letter_and_opens_nothing(target: dict[str, Any], name: str) -> None:
    shard = judged()
    fold(shard, [Call(0)])
    ((reason, detail),) = refused(shard, signal(**target))
    assert reason is DeadLetterReason.INVALID_FIELD
    assert detail.startswith(name)
    assert "once its first event has" in detail
    assert (shard.open_breakers(), shard.counters.rejected) == ((), 1)


@pytest.mark.parametrize(
    "target",
    [
        {},
        {"scope": Scope.ACTOR_TOOL, "tool": "t"},
        {"scope": Scope.SESSION, "trace_id": "1"},
        {"scope": Scope.TOOL, "actor": None, "tool": "anything"},
        {"scope": Scope.TENANT, "actor": None, "tenant": "anybody"},
    ],
)
def test_a_signal_about_a_known_target_is_heard(target: dict[str, Any]) -> None:
    shard = judged()
    fold(shard, [Call(0)])
    assert refused(shard, signal(**target)) == []
    assert len(shard.open_breakers()) == 1


def test_the_event_that_a_finding_is_about_may_come_with_it() -> None:
    """A judge may be quicker than the worker: what is read together is folded events first."""
    shard = judged()
    shard.begin()
    shard.fold(Inputs(calls=prepared([Call(0)]), signals=signals(signal(0.1)).signals))
    assert shard.take_rejected() == []
    assert len(shard.open_breakers()) == 1
    shard.rollback()
    assert refused(shard, signal(0.1)) != []


def test_one_that_came_too_early_is_heard_when_it_is_published_again() -> None:
    shard = judged()
    early = signal(0.1, client_id=5, seq=3)
    assert len(refused(shard, early)) == 1
    fold(shard, [Call(0)])
    assert refused(shard, early) == []
    assert len(shard.open_breakers()) == 1


@pytest.mark.parametrize("slices", [0, 100_000])
def test_who_has_been_silent_for_a_week_is_unknown_whatever_a_checkpoint_has_removed(slices: int) -> None:
    shard = judged()
    fold(shard, [Call(0), Call(6 * DAY_S, actor="b")])
    assert refused(shard, signal(7 * DAY_S - 1)) == []
    fold(shard, [Call(7 * DAY_S + 5, actor="b")])
    for _ in range(9):
        shard.begin()
        shard.encode_changes(slices)
        shard.commit()
    assert len(refused(shard, signal(7 * DAY_S + 6, "late"))) == 1


def test_so_many_tools_and_tenants_only_can_be_held_by_signals() -> None:
    shard = judged(max_shared_breakers=5)
    about = [signal(i, scope=Scope.TOOL, actor=None, tool=f"ghost-{i}") for i in range(5)]
    assert refused(shard, *about) == []
    one_more = signal(6, scope=Scope.TENANT, actor=None)
    ((reason, detail),) = refused(shard, one_more)
    assert (reason, "5 breakers of tools and tenants are open" in detail) == (DeadLetterReason.KEY_LIMIT, True)
    assert refused(shard, signal(7, "again", scope=Scope.TOOL, actor=None, tool="ghost-3")) == []
    reset = Override(
        override_id="o", ts=T0, tenant="default", scope=Scope.TOOL, tool="ghost-0", kind=OverrideKind.RESET,
        person="kim", reason="nobody has it",
    )  # fmt: skip
    give(shard, Inputs(overrides=[Received(0, T0, reset)]))
    assert refused(shard, one_more) == []
    assert len(shard.open_breakers()) == 5


def test_so_many_sessions_only_can_be_held_and_the_others_are_counted() -> None:
    """Of one tenant, and in a shard its part of them."""
    shard = judged(partitions=1, max_session_breakers=4)
    fold(shard, [Call(0), Call(0, tenant="other")])
    sessions = [signal(i, scope=Scope.SESSION, trace_id=f"{i}") for i in range(7)]
    assert refused(shard, *sessions) == []
    assert (len(shard.open_breakers()), shard.counters.sessions_refused) == (4, 3)
    assert shard.counters.trips == 4
    assert refused(shard, signal(8, scope=Scope.SESSION, trace_id="x", tenant="other")) == []
    assert (len(shard.open_breakers()), shard.counters.sessions_refused) == (5, 3)
    shard.begin()
    shard.fold(signals(signal(9, scope=Scope.SESSION, trace_id="9")))
    assert shard.counters.sessions_refused == 4
    shard.rollback()
    assert shard.counters.sessions_refused == 3


def test_a_shard_has_its_part_of_the_sessions() -> None:
    limits = [Shard(0, n, CoreSettings(), SEEDS)._breakers._most_sessions for n in (1, 12, 200_000)]
    assert limits == [100_000, 8_334, 1]


def test_sessions_that_are_over_are_forgotten_soon_and_make_room() -> None:
    shard = judged(max_session_breakers=2)
    fold(shard, [Call(0)])
    for hour in range(1, 4):
        give(shard, signals(*(signal(hour * 4_000 + i, scope=Scope.SESSION, trace_id=f"{hour} {i}") for i in range(2))))
    assert shard.counters.sessions_refused == 0
    shard.begin()
    shard.take_outputs()
    shard.advance(T0 + (3 * 4_000 + 3_600 + 310) * SECOND)
    said = shard.take_outputs()
    shard.encode_changes(0)
    shard.commit()
    assert len(shard._breakers) == 0
    assert [each.key for each in said if each.record is None] == [f"SESSION:default/a/3 {i}".encode() for i in range(2)]
    assert list(shard._state.objects.items("breaker")) == []


def test_what_would_hold_sessions_is_forgotten_though_nothing_else_goes_on() -> None:
    rules = compile_rules(RULES.replace(b"enforce", b"shadow"), "a.yaml").rules
    shard = Shard(0, 1, CoreSettings(), SEEDS, rules)
    fold(shard, [Call(0)])
    give(shard, signals(*(signal(1, f"s{i}", scope=Scope.SESSION, trace_id=f"{i}") for i in range(9))))
    assert len(shard._breakers.virtual) == 9
    fold(shard, [Call(3_700)])
    assert len(shard._breakers.virtual) == 0
    assert list(shard._state.objects.items("virtual")) == []
