"""What people order: one test per kind, and how orders and holds go together."""

from __future__ import annotations

from typing import Any

import pytest

from fuseboard_schemas.records import Action, BreakerState, Cause, Override, OverrideKind
from fuseboard_streams.core.breaker import decode, encode
from fuseboard_streams.core.breakers import Breakers, Ordered
from tests.unit.breakers.scenes import NOON, SECOND, at, clients
from tests.unit.breakers.test_holds import ACTOR, BURST, CAP, COST, FAILING, FORBIDDEN, ID, PARAMS, Scene

CLOSED, OPEN, FORCED_OPEN, FORCED_CLOSED = (
    BreakerState.CLOSED, BreakerState.OPEN, BreakerState.FORCED_OPEN, BreakerState.FORCED_CLOSED,
)  # fmt: skip


def order(scene: Scene, kind: str, seconds: float = 10, ends_s: float | None = None, **fields: Any) -> Ordered:
    """Alice orders something so many seconds after noon."""
    made = Override(
        override_id=f"{kind} at {seconds}",
        ts=NOON,
        tenant=ACTOR.tenant,
        scope=ACTOR.scope,
        actor=ACTOR.actor,
        kind=OverrideKind(kind),
        expires_at=None if ends_s is None else NOON + round(ends_s * SECOND),
        **{"person": "alice", "reason": "incident 42", **fields},
    )
    answer = scene.machine.order(ACTOR, made, at(seconds, made.override_id, 3))
    scene.log += answer.changed
    return answer


def test_a_trip_by_hand_holds_until_its_expiry() -> None:
    scene = Scene()
    order(scene, "TRIP", ends_s=100.5, action=Action.READ_ONLY)
    command = scene.command
    assert (command.state, command.action, command.cause) == (FORCED_OPEN, Action.READ_ONLY, Cause.OVERRIDE)
    assert (command.person, command.expires_at) == ("alice", NOON + round(100.5 * SECOND))
    assert (command.rule, command.reason, command.retry_at, command.holds) == ("manual", "incident 42", None, ())
    assert (command.event_id, command.source_offset, command.since) == ("TRIP at 10", 3, NOON + 10 * SECOND)
    assert decode(encode(scene.now)) == scene.now
    assert scene.wait(100) == []
    assert scene.wait(101) == [(CLOSED, Cause.EXPIRED)]
    assert (scene.command.person, scene.command.reason) == ("alice", "the order of alice has ended")


def test_a_trip_without_an_end_waits_for_a_reset() -> None:
    scene = Scene()
    order(scene, "TRIP", action=Action.HALT)
    assert scene.wait(10**6) == []
    order(scene, "RESET", 10**6, person="bob")
    assert (scene.now.state, scene.now.cause, scene.command.person) == (CLOSED, Cause.OVERRIDE, "bob")


def test_a_trip_is_joined_with_the_holds_that_come_and_go_underneath() -> None:
    scene = Scene()
    scene.fire(COST, 0)
    order(scene, "TRIP", ends_s=200, action=Action.REQUIRE_APPROVAL)
    assert (scene.command.model, scene.command.writes) == ("FAST_ONLY", "APPROVAL")
    assert scene.fire(CAP, 20, until_s=300) is not None
    assert (scene.now.state, scene.command.writes, scene.command.person) == (FORCED_OPEN, "REFUSED", "alice")
    assert scene.wait(60) == [(FORCED_OPEN, Cause.CONDITION_CLEARED)]
    assert (scene.command.model, scene.command.expires_at) == ("ANY", NOON + 200 * SECOND)
    assert scene.wait(200) == [(OPEN, Cause.EXPIRED)]
    assert (scene.command.writes, scene.command.person) == ("REFUSED", "alice")
    assert scene.command.reason == "the order of alice has ended: 1 rule(s) hold it"


def test_a_trip_ends_the_probing_which_begins_anew_when_it_ends() -> None:
    scene = Scene()
    scene.fire(FAILING, 0)
    scene.wait(40)
    wave = scene.now
    order(scene, "TRIP", 41, ends_s=100, action=Action.READ_ONLY)
    assert (scene.now.state, scene.now.quota) == (FORCED_OPEN, 0)
    assert scene.machine.probe(ID, wave.epoch, True, at(42)) == ()
    assert scene.wait(100) == [(OPEN, Cause.EXPIRED), (BreakerState.HALF_OPEN, Cause.COOLDOWN_OVER)]


def test_a_hold_by_hand_keeps_what_is_enforced() -> None:
    scene = Scene()
    scene.fire(COST, 0)
    scene.fire(BURST, 1)
    scene.fire(BURST, 7)
    order(scene, "HOLD", 8, action=Action.REQUIRE_APPROVAL)
    assert scene.now.state is FORCED_OPEN
    before = scene.now.axes
    scene.wait(10**5)
    assert (scene.now.holds, scene.now.axes) == ((), before)
    assert scene.command.action is Action.READ_ONLY


def test_a_hold_never_ends_what_is_held_open_for_longer() -> None:
    scene = Scene()
    order(scene, "TRIP", 1, action=Action.HALT)
    refused = order(scene, "HOLD", 2, ends_s=60, person="bob").refused or ""
    assert "order of alice holds ACTOR:default/agent open without end" in refused
    assert (scene.wait(10**5), scene.now.state, scene.command.person) == ([], FORCED_OPEN, "alice")
    order(scene, "TRIP", 10**5, ends_s=10**5 + 100, action=Action.READ_ONLY)
    assert "Z already" in (order(scene, "HOLD", 10**5 + 1, ends_s=10**5 + 99).refused or "")
    assert order(scene, "HOLD", 10**5 + 2, ends_s=10**5 + 100).refused is None
    assert order(scene, "HOLD", 10**5 + 3, ends_s=10**5 + 500).refused is None
    assert scene.wait(10**5 + 499) == []
    assert scene.wait(10**5 + 500) == [(CLOSED, Cause.EXPIRED)]
    order(scene, "TRIP", 10**5 + 501, ends_s=10**6, action=Action.READ_ONLY)
    assert order(scene, "HOLD", 10**5 + 502).refused is None, "for ever is longer than anything"


def test_there_is_nothing_to_hold_on_a_closed_breaker() -> None:
    scene = Scene()
    assert "trip it instead" in (order(scene, "HOLD").refused or "")
    scene.fire(COST, 0)
    order(scene, "BYPASS", ends_s=500)
    assert "FORCED_CLOSED" in (order(scene, "HOLD", 20).refused or "")


def test_a_bypass_lets_everything_pass_and_holds_go_on_underneath() -> None:
    scene = Scene()
    scene.fire(BURST, 0)
    order(scene, "BYPASS", ends_s=50)
    command = scene.command
    assert (command.state, command.action, command.model) == (FORCED_CLOSED, Action.NONE, "ANY")
    assert [hold.rule for hold in command.holds] == ["burst"]
    scene.fire(FORBIDDEN, 20)
    assert (scene.command.state, scene.command.writes, scene.command.person) == (FORCED_CLOSED, "FREE", "alice")
    assert scene.wait(50) == [(OPEN, Cause.EXPIRED)]
    assert (scene.command.model, scene.command.writes) == ("FAST_ONLY", "APPROVAL")


def test_nothing_climbs_under_a_bypass_and_rungs_are_in_force_anew_after_it() -> None:
    scene = Scene()
    scene.fire(BURST, 0)
    scene.fire(COST, 0)
    scene.machine.burning(ACTOR, "cost", at(1))
    order(scene, "BYPASS", 10, ends_s=700)
    scene.machine.burning(ACTOR, "burst", at(11))
    scene.machine.acknowledge(ID, scene.now.epoch, at(12))
    assert scene.fire(BURST, 20).name == "NOTHING"
    assert scene.wait(700) == [(OPEN, Cause.EXPIRED)]
    assert scene.fire(BURST, 704).name == "NOTHING", "calls of before were not made under the rung"
    assert scene.fire(BURST, 706).name == "CLIMBED"
    assert scene.wait(1299) == []
    assert scene.wait(1300) == [(OPEN, Cause.TRIP)], "ten minutes in force"


def test_a_bypass_of_a_breaker_that_never_tripped() -> None:
    scene = Scene()
    order(scene, "BYPASS", ends_s=60)
    scene.fire(FAILING, 20)
    assert scene.now.state is FORCED_CLOSED
    assert scene.machine.open_ids() == (ID,)
    assert [state for state, _ in scene.wait(60)] == [OPEN, BreakerState.HALF_OPEN]


def test_a_reset_takes_everything_away() -> None:
    scene = Scene()
    for response in (FAILING, COST, FORBIDDEN):
        scene.fire(response, 0)
    order(scene, "TRIP", 5, action=Action.HALT)
    order(scene, "RESET", 6)
    assert (scene.now.state, scene.now.holds, scene.now.forced) == (CLOSED, (), None)
    assert order(scene, "RESET", 7) == Ordered(), "of a closed one: nothing to do, and no fault"


def test_a_reset_of_one_rule_leaves_the_others_and_the_order() -> None:
    scene = Scene()
    for response in (FAILING, COST, FORBIDDEN):
        scene.fire(response, 0)
    order(scene, "RESET", 6, rule="forbidden")
    assert ([hold.rule for hold in scene.now.holds], scene.now.state) == (["failing", "cost"], OPEN)
    order(scene, "TRIP", 7, action=Action.HALT)
    order(scene, "RESET", 8, rule="cost", person="bob")
    assert (scene.now.state, scene.command.action, scene.command.person) == (FORCED_OPEN, Action.HALT, "bob")
    assert "does not hold" in (order(scene, "RESET", 9, rule="cost").refused or "")


def test_a_new_order_replaces_the_one_before() -> None:
    scene = Scene()
    order(scene, "TRIP", 1, action=Action.HALT)
    order(scene, "BYPASS", 2, ends_s=50, person="bob")
    assert (scene.now.state, scene.command.person) == (FORCED_CLOSED, "bob")
    order(scene, "TRIP", 3, ends_s=60, action=Action.READ_ONLY)
    assert (scene.now.state, scene.command.action) == (FORCED_OPEN, Action.READ_ONLY)
    assert scene.wait(59) == []
    assert scene.wait(60) == [(CLOSED, Cause.EXPIRED)]


def test_an_acknowledgement_notes_who_knows_and_tells_nobody() -> None:
    """A new epoch would start another wave of probes."""
    scene = Scene()
    assert "closed" in (order(scene, "ACKNOWLEDGE").refused or "")
    scene.fire(FAILING, 0)
    epoch = scene.now.epoch
    assert order(scene, "ACKNOWLEDGE", 11) == Ordered()
    assert (scene.now.acknowledged_by, scene.now.acknowledged_at) == ("alice", NOON + 11 * SECOND)
    assert (scene.now.epoch, scene.now.state) == (epoch, OPEN)
    order(scene, "RESET", 12)
    scene.fire(FAILING, 1000)
    assert scene.now.acknowledged_by is None


def test_an_order_about_an_older_epoch_is_stale() -> None:
    scene = Scene()
    scene.fire(COST, 0)
    seen = scene.now.epoch
    scene.fire(FAILING, 1)
    assert f"epoch {seen} is stale" in (order(scene, "RESET", 2, epoch=seen).refused or "")
    assert order(scene, "RESET", 3, epoch=scene.now.epoch).refused is None
    assert scene.now.state is CLOSED


def test_epochs_grow_with_every_order() -> None:
    scene = Scene()
    for kind, fields in (("TRIP", {"action": Action.HALT}), ("HOLD", {}), ("RESET", {})):
        order(scene, kind, 10, **fields)
    epochs = [b.epoch for b in scene.log]
    assert epochs == sorted(set(epochs))
    assert len(epochs) == 3


def test_an_order_is_taken_back_by_an_abort() -> None:
    scene = Scene()
    scene.machine.begin()
    order(scene, "TRIP", action=Action.HALT)
    scene.machine.rollback()
    assert (scene.machine.get(ID), scene.machine.next_due()) == (None, None)


def test_the_reason_is_one_short_line() -> None:
    scene = Scene()
    order(scene, "TRIP", action=Action.HALT, reason="a\nb" + "x" * 4000)
    assert "\n" not in scene.command.reason
    assert len(scene.command.reason) == 500


@pytest.mark.parametrize("kind", ["APPROVE", "OTHER"])
def test_what_this_version_cannot_do_changes_nothing(kind: str) -> None:
    scene = Scene()
    assert "does not carry" in (order(scene, kind).refused or "")
    assert len(scene.machine) == 0


def test_restored_orders_end_alike() -> None:
    scene = Scene()
    scene.fire(COST, 0)
    order(scene, "BYPASS", ends_s=50)
    successor = Breakers(PARAMS)
    successor.put(decode(encode(scene.now)))
    until = NOON + 2000 * SECOND
    assert successor.tick(until, clients(1)) == scene.machine.tick(until, clients(1))
