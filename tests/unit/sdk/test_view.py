"""What the view makes of commands and heartbeats."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fuseboard.view import View
from fuseboard_schemas.records import Action, BreakerState, Scope
from tests.unit.sdk.support import ACTOR, TENANT, command

KEY = "ACTOR_TOOL:default/support_agent/refund"


@pytest.fixture
def view() -> View:
    made = View(10.0)
    made.register(TENANT, ACTOR, "refund")
    return made


def apply(view: View, *commands: object, catching_up: bool = False) -> None:
    for made in commands:
        view.apply(KEY, made, 0, catching_up=catching_up)  # type: ignore[arg-type]
    view.publish()


def test_a_snapshot_never_changes(view: View) -> None:
    before = view.snapshot
    apply(view, command(epoch=1))
    assert not before.breakers
    assert list(view.snapshot.breakers) == [KEY]


def test_older_and_repeated_epochs_are_ignored(view: View) -> None:
    apply(view, command(epoch=5), command(epoch=4, state=BreakerState.CLOSED), command(epoch=5, reason="again"))
    assert view.snapshot.breakers[KEY].command.reason != "again"
    assert [applied.command.epoch for applied in view.take_applied()] == [5]


def test_a_tombstone_removes_but_epochs_are_remembered(view: View) -> None:
    apply(view, command(epoch=5), None)
    assert not view.snapshot.breakers
    apply(view, command(epoch=5))
    assert not view.snapshot.breakers
    apply(view, command(epoch=6))
    assert list(view.snapshot.breakers) == [KEY]


def test_what_nobody_registered_is_ignored(view: View) -> None:
    other = command(actor="stranger")
    view.apply(other.breaker_id, other, 0, catching_up=False)
    view.publish()
    assert not view.snapshot.breakers
    assert view.take_applied() == []


def test_a_tool_is_known_before_anybody_uses_it_and_acknowledged_then(view: View) -> None:
    off = command(Scope.TOOL, tool="wire")
    view.apply(off.breaker_id, off, 2, catching_up=False)
    view.publish()
    assert off.breaker_id in view.snapshot.breakers
    assert view.take_applied() == [], "it is not this process's to acknowledge yet"
    view.register(TENANT, ACTOR, "wire")
    view.reached_end(2, frozenset({"TOOL:default/wire"}))
    assert [applied.command.breaker_id for applied in view.take_applied()] == [off.breaker_id]


def test_a_command_that_replaces_an_unacknowledged_one_is_acknowledged_alone(view: View) -> None:
    first, second = command(Scope.TOOL, tool="wire", epoch=1), command(Scope.TOOL, tool="wire", epoch=2)
    view.apply(first.breaker_id, first, 2, catching_up=False)
    view.register(TENANT, ACTOR, "wire")
    view.apply(second.breaker_id, second, 2, catching_up=False)
    view.reached_end(2, frozenset({"TOOL:default/wire"}))
    assert [applied.command.epoch for applied in view.take_applied()] == [2]


def test_another_tenants_tools_are_ignored(view: View) -> None:
    view.apply("TOOL:other/wire", command(Scope.TOOL, tool="wire"), 2, catching_up=False)
    view.publish()
    assert not view.snapshot.breakers


def test_a_tool_with_an_actors_name_is_not_that_actor(view: View) -> None:
    view.register(TENANT, ACTOR, "auditor")
    assert "ACTOR:default/auditor" not in view.interests
    assert not view.concerns("ACTOR:default/auditor")
    assert view.register(TENANT, "auditor", None)


def test_a_key_that_is_no_breaker_id_is_ignored(view: View) -> None:
    view.apply("nonsense", command(), 0, catching_up=False)
    view.publish()
    assert not view.snapshot.breakers


def test_every_epoch_is_acknowledged_once_when_live(view: View) -> None:
    apply(view, command(epoch=1), command(epoch=2, state=BreakerState.CLOSED))
    assert [applied.command.epoch for applied in view.take_applied()] == [1, 2]
    assert view.take_applied() == []


def test_only_the_last_epoch_is_acknowledged_after_a_catch_up(view: View) -> None:
    apply(view, command(epoch=1), command(epoch=2), catching_up=True)
    assert view.take_applied() == []
    view.reached_end(0, view.interests)
    assert [applied.command.epoch for applied in view.take_applied()] == [2]


def test_a_breaker_deleted_during_the_catch_up_is_not_acknowledged(view: View) -> None:
    apply(view, command(epoch=1), None, catching_up=True)
    view.reached_end(0, view.interests)
    assert view.take_applied() == []


def test_the_end_of_another_partition_acknowledges_nothing(view: View) -> None:
    apply(view, command(epoch=1), catching_up=True)
    view.reached_end(1, frozenset())
    assert view.take_applied() == []


def test_commands_are_enforced_during_the_catch_up_already(view: View) -> None:
    apply(view, command(epoch=1), catching_up=True)
    assert list(view.snapshot.breakers) == [KEY]


def test_covered_grows_with_the_partitions_read(view: View) -> None:
    assert view.snapshot.covered == frozenset()
    view.reached_end(0, frozenset({"ACTOR:default/support_agent"}))
    view.reached_end(1, frozenset({"TENANT:default"}))
    assert view.snapshot.covered == {"ACTOR:default/support_agent", "TENANT:default"}


def test_a_heartbeat_is_good_for_its_actors_only_and_for_a_while(view: View) -> None:
    mine, other = view.freshness(TENANT, ACTOR), view.freshness(TENANT, "other")
    view.heartbeat(frozenset({"default/support_agent"}), 0.5, 100.0)
    assert mine.until == 110.0
    assert other.until < 0
    view.heartbeat(frozenset({"default/support_agent"}), 10.0, 101.0)
    assert mine.until == 101.0, "a shard that lags too far gives no protection"


def test_freshness_keeps_its_identity(view: View) -> None:
    assert view.freshness(TENANT, ACTOR) is view.freshness(TENANT, ACTOR)


def test_sessions_are_listed_by_actor(view: View) -> None:
    halt = command(Scope.SESSION, Action.HALT)
    view.apply(halt.breaker_id, halt, 0, catching_up=False)
    view.publish()
    assert view.snapshot.actors_with_sessions == {"default/support_agent"}


def test_reading_a_partition_again_does_not_remove_a_breaker_for_an_old_tombstone(view: View) -> None:
    log = [command(epoch=1), command(epoch=2, state=BreakerState.CLOSED), None, command(epoch=3)]
    for _ in range(2):  # the second time because something has been registered
        for offset, made in enumerate(log):
            view.apply(KEY, made, 0, catching_up=True, offset=offset)
            view.publish()
    assert list(view.snapshot.breakers) == [KEY]
    view.apply(KEY, None, 0, catching_up=False, offset=len(log))
    view.publish()
    assert not view.snapshot.breakers


def sessions_over(view: View, count: int, *, first: int = 0) -> list[str]:
    """Sessions that were held, let go and forgotten, one after the other."""
    keys = []
    for number in range(first, first + count):
        halt = replace(
            command(Scope.SESSION, Action.HALT, epoch=1), breaker_id=f"SESSION:default/support_agent/{number}"
        )
        keys.append(halt.breaker_id)
        closed = replace(halt, state=BreakerState.CLOSED, epoch=2)
        for offset, made in enumerate((halt, closed, None)):
            view.apply(halt.breaker_id, made, 0, catching_up=False, offset=3 * number + offset)
    view.publish()
    view.take_applied()
    return keys


def test_sessions_that_are_over_take_no_memory(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are always new ones, and an agent may run for months."""
    monkeypatch.setattr("fuseboard.view._FORGOTTEN", 10)
    sessions_over(view, 100)
    kept = (view._breakers, view._epochs, view._offsets, view._unacknowledged, view._acknowledge)
    assert [len(each) for each in kept] == [0, 0, 0, 0, 0]
    assert len(view._forgotten) == 10


def test_what_a_session_was_told_before_it_was_forgotten_does_not_count_again(view: View) -> None:
    (key,) = sessions_over(view, 1)
    halt = replace(command(Scope.SESSION, Action.HALT, epoch=1), breaker_id=key)
    view.apply(key, halt, 0, catching_up=True, offset=0)
    view.publish()
    assert not view.snapshot.breakers
    view.apply(key, replace(halt, epoch=3), 0, catching_up=False, offset=9)
    view.publish()
    assert list(view.snapshot.breakers) == [key]
    view.apply(key, None, 0, catching_up=True, offset=2)
    view.publish()
    assert list(view.snapshot.breakers) == [key], "that was the end of the one before"


def test_what_holds_nothing_back_is_not_kept(view: View) -> None:
    apply(view, command(epoch=1), command(epoch=2, state=BreakerState.CLOSED))
    assert not view._breakers
    before = view.snapshot
    apply(view, command(epoch=3, state=BreakerState.CLOSED))
    assert view.snapshot is before, "nothing has changed for the gate"
    assert [applied.command.epoch for applied in view.take_applied()] == [1, 2, 3]
