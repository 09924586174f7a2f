"""Signals that others publish: let in once and in time, or refused with a reason."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from fuseboard_schemas.keys import home_partition
from fuseboard_schemas.records import Action, BreakerCommand, DeadLetterReason, Outcome, Scope, Signal, SignalLevel
from fuseboard_streams.core.inputs import Received
from fuseboard_streams.core.settings import SECOND, CoreSettings
from fuseboard_streams.core.shard import Shard, is_echo
from fuseboard_streams.rules.compile import compile_rules
from tests.support.calls import SEEDS, T0, Call, fold
from tests.support.events import Remembering, give, signals

LADDER = b"""
version: 1
breakers:
  tone: {metric: signals.tone, scope: ACTOR, test: {kind: signal}, mode: enforce, severity: critical,
         ladder: [{action: REQUIRE_APPROVAL}, {action: HALT}]}
"""
TARGET = {"tenant": "default", "scope": Scope.ACTOR, "actor": "a"}


def signal(at: float = 0, **fields: Any) -> Signal:
    given: dict[str, Any] = {
        "signal_id": f"s{at}", "ts": T0 + round(at * SECOND), "source": "judge", "level": SignalLevel.WARN,
        "metric": "tone", **TARGET, **fields,
    }  # fmt: skip
    return Signal(**given)


def watched(partitions: int = 1) -> tuple[Shard, Remembering]:
    """A shard that has seen a call of two actors, if they belong to it."""
    follower = Remembering()
    shard = Shard(0, partitions, CoreSettings(), SEEDS, follower=follower)
    fold(shard, [Call(-100, actor=actor) for actor in "ab"])
    shard.take_rejected()
    shard.counters.rejected = 0
    return shard, follower


def test_signals_are_told_once_and_in_order() -> None:
    """Numbers count per client, over all its targets."""
    shard, told = watched()
    several = [signal(at, client_id=5, seq=seq, actor=actor) for at, seq, actor in ((0, 1, "a"), (1, 4, "b"))]
    give(
        shard,
        signals(*several, several[0], signal(2), signal(2, client_id=6, seq=1, signal_id="other"), first_offset=3),
    )
    assert [(each.offset, each.ts - T0) for each in told.signals] == [
        (3, 0),
        (4, SECOND),
        (6, 2 * SECOND),
        (7, 2 * SECOND),
    ]
    assert [each.stream for each in told.signals] == [each.ts for each in told.signals]
    assert told.signals[0].record == several[0]
    assert (shard.counters.signals, shard.counters.duplicates, shard.counters.missing) == (5, 1, 0)
    assert shard.stream_time == T0 + 2 * SECOND


def test_a_signal_said_again_under_its_id_is_told_once() -> None:
    """A guest that lost its state says all of it again, perhaps as another client and without numbers."""
    shard, told = watched()
    give(shard, signals(signal(0), signal(1, client_id=3, seq=9), first_offset=3))
    give(shard, signals(signal(0), signal(1), signal(2), first_offset=5))
    assert [each.record.signal_id for each in told.signals] == ["s0", "s1", "s2"]
    assert shard.counters.duplicates == 2


@pytest.mark.parametrize(
    ("wrong", "reason", "detail"),
    [
        ({"scope": Scope.OTHER}, DeadLetterReason.INVALID_FIELD, "scope is OTHER: expected one of ACTOR"),
        ({"actor": None}, DeadLetterReason.INVALID_FIELD, "actor is null: a target of scope ACTOR needs it"),
        ({"scope": Scope.ACTOR_TOOL}, DeadLetterReason.INVALID_FIELD, "tool is null"),
        ({"scope": Scope.TOOL, "tool": ""}, DeadLetterReason.INVALID_FIELD, "tool is empty"),
        ({"scope": Scope.SESSION}, DeadLetterReason.INVALID_FIELD, "trace_id is null"),
        ({"tenant": "x\0"}, DeadLetterReason.INVALID_FIELD, "NUL"),
        ({"value": nan}, DeadLetterReason.INVALID_FIELD, "value is nan"),
        ({"evidence_log10": inf}, DeadLetterReason.INVALID_FIELD, "evidence_log10 is inf"),
        ({"null_p0": 1.5}, DeadLetterReason.INVALID_FIELD, "null_p0 is 1.5"),
        ({"failures": -1}, DeadLetterReason.INVALID_FIELD, "failures is -1"),
        ({"ts": 5}, DeadLetterReason.ANCIENT, "before 2000"),
        ({"reason": "é" * 2_049}, DeadLetterReason.INVALID_FIELD, "reason is longer than 4096 bytes"),
        *(
            ({name: "x" * 257}, DeadLetterReason.INVALID_FIELD, f"{name} is longer than 256 bytes")
            for name in ("signal_id", "source", "metric", "event_id", "rule", "rules_version", "tool", "trace_id")
        ),
        *(
            ({name: ""}, DeadLetterReason.INVALID_FIELD, f"{name} is empty")
            for name in ("signal_id", "source", "metric")
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_signal_is_refused_alone(wrong: dict[str, Any], reason: DeadLetterReason, detail: str) -> None:
    shard, told = watched()
    give(shard, signals(signal(0), signal(1, **wrong), signal(2), first_offset=8))
    (refusal,) = shard.take_rejected()
    assert (refusal.topic, refusal.offset, refusal.reason) == ("signals", 9, reason)
    assert detail in refusal.detail
    assert [each.offset for each in told.signals] == [8, 10]
    assert shard.counters.rejected == 1


@pytest.mark.parametrize(
    "target",
    [
        {"scope": Scope.ACTOR},
        {"scope": Scope.ACTOR_TOOL, "tool": "t"},
        {"scope": Scope.TOOL, "tool": "t"},
        {"scope": Scope.TENANT},
        {"scope": Scope.SESSION, "trace_id": "1" * 32},
    ],
    ids=lambda target: target["scope"].value,
)
def test_a_signal_belongs_in_the_home_of_its_target(target: dict[str, Any]) -> None:
    given = signal(0, **target)
    for partitions in (1, 7):
        shard, told = watched(partitions)
        home = home_partition(given.scope, given.tenant, given.actor, given.tool, partitions)
        give(shard, signals(given))
        assert len(told.signals) == (home == 0)
        assert [each.reason for each in shard.take_rejected()] == [DeadLetterReason.MISPLACED] * (home != 0)


def test_late_signals_are_told_as_late_and_future_ones_are_set_back() -> None:
    shard, told = watched()
    fold(shard, [Call(5_000)])
    give(shard, signals(signal(1_000), signal(700), signal(699)))
    assert [each.late for each in told.signals] == [False, False, True]
    give(shard, signals(signal(9_000), arrival_s=6_000))
    assert told.signals[-1].ts == shard.stream_time == T0 + 6_000 * SECOND
    assert (shard.counters.late, shard.counters.clamped) == (1, 1)


def test_what_shards_publish_themselves_is_passed_over() -> None:
    """It comes back to them, for everybody's signals are in one topic."""
    shard, told = watched()
    outputs = fold(shard, [Call(at, Outcome.ERROR) for at in range(12)])
    own = [each.record for each in outputs if isinstance(each.record, Signal)]
    assert own
    assert all(is_echo(Received(0, 0, each)) for each in own)
    assert not is_echo(Received(0, 0, signal()))
    before = shard.stream_time, shard.counters.events
    told.signals.clear()
    give(shard, signals(*own))
    assert told.signals == []
    assert (shard.stream_time, shard.counters.events) == before


def test_a_finding_of_before_a_step_of_the_ladder_does_not_climb_it() -> None:
    """However late it is read: it says nothing about how things are under that step."""
    rules = compile_rules(LADDER, "a.yaml").rules
    shard = Shard(0, 1, CoreSettings(), SEEDS, rules)
    fold(shard, [Call(-1)])
    found = {"level": SignalLevel.TRIP, "metric": "tone"}
    for several, action in (
        ([signal(0, **found)], Action.REQUIRE_APPROVAL),
        ([signal(60, metric="other"), signal(-200, **found), signal(4, **found)], None),
        ([signal(6, **found)], Action.HALT),
    ):
        shard.begin()
        shard.fold(signals(*several))
        commands = [each.record for each in shard.take_outputs() if isinstance(each.record, BreakerCommand)]
        shard.encode_changes(0)
        shard.commit()
        assert [each.action for each in commands] == ([] if action is None else [action])
