"""People's orders in a shard: each once, in its home, with words when refused; and what they do to statistics."""

from __future__ import annotations

from typing import Any

import pytest

from fuseboard_schemas.keys import home_partition
from fuseboard_schemas.records import (
    Action,
    BreakerCommand,
    BreakerState,
    Cause,
    DeadLetterReason,
    Outcome,
    Override,
    OverrideKind,
    Scope,
)
from fuseboard_streams.core import state
from fuseboard_streams.core.identity import Rejected
from fuseboard_streams.core.inputs import Received
from fuseboard_streams.core.settings import SECOND
from fuseboard_streams.core.shard import Shard
from tests.support.calls import T0, Call, make_shard
from tests.unit.core.test_life import ACTOR_ID, TOOL_ID, Line, ack

NOW = T0 + 10 * SECOND


def order(kind: str = "TRIP", number: int = 1, **fields: Any) -> Override:
    action = Action.DISABLE_TOOL if kind == "TRIP" else Action.NONE
    return Override(
        **{
            "override_id": f"o{number}", "ts": NOW, "tenant": "default", "scope": Scope.ACTOR_TOOL, "actor": "a",
            "tool": "t", "kind": OverrideKind(kind), "action": action, "person": "alice", "reason": "incident",
            **fields,
        }
    )  # fmt: skip


def give(shard: Shard, *orders: Override, arrival: int = NOW, first: int = 0) -> list[BreakerCommand]:
    """Fold orders in one transaction; the commands that answer them."""
    shard.begin()
    shard.fold_overrides([Received(first + i, arrival, each) for i, each in enumerate(orders)])
    outputs = shard.take_outputs()
    shard.encode_changes(256)
    shard.commit()
    return [o.record for o in outputs if isinstance(o.record, BreakerCommand)]


def test_an_order_is_answered_by_a_command() -> None:
    line = Line()
    line.call(Call(7.5))
    (command,) = give(line.shard, order(), first=42)
    assert (command.state, command.cause, command.person) == (BreakerState.FORCED_OPEN, Cause.OVERRIDE, "alice")
    assert (command.ts, command.event_id, command.source_offset) == (T0 + 7_500_000, "o1", 42)
    assert line.shard.open_breakers() == (TOOL_ID,)


def test_an_order_counts_once() -> None:
    shard = make_shard()
    assert len(give(shard, order(), order())) == 1
    assert give(shard, order(reason="again")) == []
    assert len(give(shard, order(number=2))) == 1
    assert (shard.take_rejected(), shard.counters.overrides) == ([], 4)


def test_a_repetition_of_a_refused_order_is_not_carried_out_later() -> None:
    shard = make_shard()
    give(shard, order("HOLD", 1))
    give(shard, order("TRIP", 2))
    assert give(shard, order("HOLD", 1)) == []
    assert len(shard.take_rejected()) == 1


def test_refused_orders_are_handed_out_with_words() -> None:
    shard = make_shard(number=0, partitions=4)
    elsewhere = next(a for a in "abcdefgh" if home_partition(Scope.ACTOR, "default", a, None, 4) != 0)
    here = next(a for a in "abcdefgh" if home_partition(Scope.ACTOR, "default", a, None, 4) == 0)
    orders = (
        order(number=1, actor=here, person=""),
        order(number=2, actor=elsewhere),
        order("RESET", 3, actor=here, epoch=5),
        order("BYPASS", 4, actor=here, expires_at=NOW),
    )
    assert give(shard, *orders, first=10) == []
    rejected = shard.take_rejected()
    assert [(r.offset, r.reason, r.topic) for r in rejected] == [
        (10, DeadLetterReason.INVALID_FIELD, "overrides"),
        (11, DeadLetterReason.MISPLACED, "overrides"),
        (12, DeadLetterReason.INVALID_FIELD, "overrides"),
        (13, DeadLetterReason.INVALID_FIELD, "overrides"),
    ]
    assert "stale" in rejected[2].detail
    assert shard.counters.rejected == 4
    assert (Rejected(1, DeadLetterReason.ANCIENT, "x").topic, shard.open_breakers()) == ("tool-calls", ())


def test_orders_do_not_move_stream_time() -> None:
    """Else one order to a shard that is behind would make all its calls late."""
    line = Line()
    line.call(Call(0))
    (command,) = give(line.shard, order("BYPASS", expires_at=T0 + 7200 * SECOND), arrival=T0 + 3600 * SECOND)
    assert (line.shard.stream_time, command.ts) == (T0, T0)
    line.wait(7199)
    assert line.commands(TOOL_ID) == []
    line.wait(7200)
    assert [c.cause for c in line.commands(TOOL_ID)] == [Cause.EXPIRED]


def test_a_shard_that_has_seen_no_call_goes_by_the_arrival() -> None:
    (command,) = give(make_shard(), order(ts=5), arrival=NOW)
    assert (command.ts, command.epoch) == (NOW, NOW // 1000)


def test_an_end_that_the_arrival_has_passed_is_refused_however_far_the_shard_is_behind() -> None:
    line = Line()
    line.call(Call(0))
    assert give(line.shard, order(expires_at=T0 + 60 * SECOND), arrival=T0 + 61 * SECOND) == []
    assert len(line.shard.take_rejected()) == 1


def test_the_oldest_ids_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "IDS_REMEMBERED", 3)
    shard = make_shard()
    for number in range(4):
        assert give(shard, order(number=number))
    assert [len(give(shard, order(number=number))) for number in (3, 2, 1, 0)] == [0, 0, 0, 1]
    assert [len(give(shard, order(number=number))) for number in (3, 0, 1)] == [0, 0, 1]


def test_an_abort_and_a_restore_remember_the_right_ids() -> None:
    shard = make_shard()
    shard.begin()
    shard.fold_overrides([Received(0, NOW, order(number=1))])
    shard.rollback()
    assert shard.take_outputs() == []
    shard.begin()
    shard.fold_overrides(
        [Received(0, NOW, order(number=1)), Received(1, NOW, order("BYPASS", 2, expires_at=NOW + 60 * SECOND))]
    )
    block = shard.encode_changes(10_000).block
    shard.commit()
    restored = make_shard()
    restored.apply(block)
    restored.finish_restore()
    assert restored.open_breakers() == (TOOL_ID,)
    assert give(restored, order(number=1), order("RESET", 2)) == []
    assert [c.state for c in give(restored, order("RESET", 3))] == [BreakerState.CLOSED]


# ------------------------------------------------------------- statistics


def counted(line: Line, at: float) -> int:
    """How many of ten calls enter the statistics."""
    before = line.shard.counters.counted
    for i in range(10):
        line.call(Call(at + i / 10))
    return line.shard.counters.counted - before


def test_a_reset_lets_the_statistic_go_on() -> None:
    line = Line()
    line.trip_tool()
    assert counted(line, 5) == 0
    (command,) = give(line.shard, order("RESET", tool="t"))
    assert (command.state, command.cause) == (BreakerState.CLOSED, Cause.OVERRIDE)
    assert counted(line, command.ts / SECOND - T0 / SECOND + 0.011) == 10
    line.trip_tool(10)
    assert len(line.commands(TOOL_ID)) == 2


def test_calls_that_began_before_a_reset_do_not_count() -> None:
    line = Line()
    line.trip_actor()
    (command,) = give(line.shard, order("RESET", scope=Scope.ACTOR, tool=None))
    assert (command.breaker_id, command.ts) == (ACTOR_ID, T0 + 7 * SECOND)
    line.shard.begin()
    table = line.shard._state.actors
    row = line.shard._identities.find_actor("default", "a")
    assert (table["frozen"][row], table["closed_at"][row]) == (0, T0 + 7 * SECOND)


def test_a_bypass_changes_nothing_about_the_statistic() -> None:
    """It is about what is enforced; the hold goes on underneath."""
    line = Line()
    line.trip_tool()
    give(line.shard, order("BYPASS", expires_at=T0 + 100 * SECOND))
    assert counted(line, 5) == 0
    line.wait(100)
    assert [c.cause for c in line.commands(TOOL_ID)[-2:]] == [Cause.EXPIRED, Cause.COOLDOWN_OVER]
    assert counted(line, 101) == 0


def test_a_trip_by_hand_leaves_the_statistic_alone() -> None:
    line = Line()
    line.call(Call(0))
    give(line.shard, order())
    assert counted(line, 1) == 10


def test_an_acknowledgement_of_a_command_starts_the_rung() -> None:
    """At the stream time at which it is folded."""
    line = Line()
    line.trip_tool()
    epoch = line.commands(TOOL_ID)[0].epoch
    line.shard.begin()
    line.shard.fold_acks([ack(TOOL_ID, epoch)])
    breaker = line.shard._breakers.get(TOOL_ID)
    assert breaker is not None
    assert breaker.holds[0].applied_at == line.shard.stream_time == T0 + 4 * SECOND
    line.shard.rollback()
    breaker = line.shard._breakers.get(TOOL_ID)
    assert breaker is not None
    assert breaker.holds[0].applied_at == breaker.decided_at + 5 * SECOND


def test_a_failing_tool_under_a_closed_breaker_still_trips() -> None:
    """An order that has ended leaves nothing behind."""
    line = Line()
    line.call(Call(0, Outcome.OK))
    give(line.shard, order(expires_at=T0 + 20 * SECOND))
    line.trip_tool(30)
    assert [c.cause for c in line.commands(TOOL_ID)] == [Cause.EXPIRED, Cause.TRIP]
