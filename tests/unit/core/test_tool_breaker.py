"""What every shard makes of a tool's own breaker: who passes it is told of, and who bypasses it lifts nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.records import (
    Action,
    BreakerCommand,
    BreakerState,
    Cause,
    Effect,
    Mode,
    Outcome,
    Override,
    OverrideKind,
    Pane,
    PaneKind,
    Recovery,
    Scope,
    Signal,
)
from fuseboard_streams.core.inputs import Received
from fuseboard_streams.core.ruleset import Match, RecoveryPlan, Response, Rule, Rung, UngatedTest, Variant
from fuseboard_streams.core.settings import SECOND, CoreSettings
from fuseboard_streams.core.shard import Shard
from tests.support.calls import SEEDS, T0, Call, prepared
from tests.support.fleet import Fleet, rules
from tests.support.worlds import World

PARAMS = FailureParams(period=20)
ACTORS = 12
DOWN, UP = 40, 50
AFTER_S = 5
TOOL = "TOOL:default/shared"


def gates(scope: Scope = Scope.ACTOR) -> Rule:
    response = Response("gate-bypassed", (Rung(Action.HALT),), Mode.WARN, RecoveryPlan(Recovery.PERSON))
    return Rule("gate-bypassed", "calls.ungated", scope, Match(), Variant(UngatedTest(AFTER_S * SECOND), response))


RULES = rules(PARAMS, more=(gates(),))


def shared(broken: float = 1e9) -> World:
    """Everybody calls one tool, which is down for a while; from some time on it fails for one of them."""

    def calls(a: float, b: float) -> Iterator[Call]:
        rng = random.Random(f"{a}")
        for i in range(ACTORS):
            for _ in range(2):
                if rng.random() < (b - a) / 2:
                    bad = DOWN <= a < UP or (i == 0 and a >= broken)
                    outcome = Outcome.ERROR if bad else Outcome.OK
                    yield Call(round(rng.uniform(a, b), 3), outcome, f"agent-{i}", "shared", effect=Effect.WRITE)

    return calls


def order(kind: OverrideKind, until: float | None = None) -> Override:
    action = Action.DISABLE_TOOL if kind is OverrideKind.TRIP else Action.NONE
    expires_at = None if until is None else T0 + round(until * SECOND)
    return Override(
        override_id=f"o-{kind}", ts=0, scope=Scope.TOOL, tenant="default", tool="shared", kind=kind, action=action,
        person="kim", reason="because", expires_at=expires_at,
    )  # fmt: skip


def alarms(fleet: Fleet) -> list[Signal]:
    return [
        each.record for each in fleet.decided if isinstance(each.record, Signal) and each.record.rule == "gate-bypassed"
    ]


def executed(fleet: Fleet, after: float) -> set[str]:
    return {
        call.actor
        for journal in fleet.journals
        for entry in journal
        for call in entry.calls
        if call.at > after and call.outcome in (Outcome.OK, Outcome.ERROR) and not call.probe
    }


# --- calls past it


@pytest.mark.parametrize("partitions", [1, 3])
def test_everybody_who_goes_on_is_told_of_once(partitions: int) -> None:
    fleet = Fleet(partitions, shared(), seed=1, ruleset=RULES, obeys=False)
    fleet.run(DOWN + 30)
    (opened, *_) = fleet.trips(Scope.TOOL)
    found = alarms(fleet)
    whole = [each for each in found if "the breaker of the tool as a whole had opened" in (each.reason or "")]
    assert sorted(each.actor or "" for each in found) == sorted(executed(fleet, opened.at + AFTER_S + 2))
    assert len(whole) >= ACTORS / 2
    for each in whole:
        assert each.value is not None
        assert each.value > AFTER_S
        assert each.ts > T0 + (opened.at + AFTER_S) * SECOND


def test_what_a_person_has_tripped_is_passed_no_less() -> None:
    fleet = Fleet(3, shared(), seed=1, ruleset=RULES, obeys=False)
    fleet.run(20)
    fleet.order(order(OverrideKind.TRIP))
    fleet.run(24)
    assert not alarms(fleet)
    fleet.run(36)
    assert len(alarms(fleet)) == ACTORS
    counted = sum(pane.calls for pane in fleet.sent if pane.tool == "shared" and pane.ts > T0 + 30 * SECOND)
    assert counted, "who shuts a tool by hand says nothing about its failures"


def test_who_obeys_is_not_told_of() -> None:
    fleet = Fleet(3, shared(), seed=1, ruleset=RULES)
    fleet.run(DOWN + 20)
    fleet.order(order(OverrideKind.RESET))
    fleet.run(DOWN + 40)
    states = [each.record.state for each in fleet.commands(Scope.TOOL) if isinstance(each.record, BreakerCommand)]
    assert {BreakerState.OPEN, BreakerState.CLOSED} <= set(states)
    assert fleet.made["admitted"]
    assert not alarms(fleet)


def state(epoch: int, arrival: float, *, refuses: bool) -> Received[Pane]:
    pane = Pane(
        tenant="default", tool="shared", kind=PaneKind.TOOL_STATE, ts=T0, source_shard=0, from_offset=0, next_offset=0,
        rules_version="v", sequence=epoch, breaker_epoch=epoch, refuses=refuses,
    )  # fmt: skip
    return Received(epoch, T0 + round(arrival * SECOND), pane)


def marker(arrival: float) -> Received[Pane]:
    pane = Pane(tenant="", kind=PaneKind.MARKER, ts=T0, source_shard=0, from_offset=0, next_offset=0, rules_version="v")
    return Received(9, T0 + round(arrival * SECOND), pane)


@pytest.mark.parametrize("restored", [False, True])
@pytest.mark.parametrize(("let_in", "expected"), [(False, 1), (True, 0)])
def test_a_call_waits_until_all_that_came_before_it_is_known(let_in: bool, expected: int, restored: bool) -> None:
    """Enforcers may hear before this shard that a tool is let in, and be here first with a call."""
    shard = Shard(0, 1, CoreSettings(), SEEDS, RULES)
    records: list[object] = []

    def transact(panes: list[Received[Pane]], *calls: Call, offset: int = 0) -> bytes:
        shard.begin()
        shard.fold_panes(panes)
        if calls:
            shard.fold_tool_calls(prepared(calls, 0, offset))
        records.extend(each.record for each in shard.take_outputs())
        delta = shard.encode_changes(1 << 20)
        shard.commit()
        return delta.block

    transact([], Call(1, tool="shared"))
    transact([state(1, 1.1, refuses=True)], Call(2, Outcome.DENIED, tool="shared"), offset=1)
    block = transact([marker(20.2)], Call(20.5, tool="shared"), offset=2)
    if restored:
        shard = Shard(0, 1, CoreSettings(), SEEDS, RULES)
        shard.apply(block)
        shard.finish_restore()
    transact([marker(20.4)])
    assert not records
    transact(([state(2, 20.45, refuses=False)] if let_in else []) + [marker(20.6)])
    assert len([each for each in records if isinstance(each, Signal)]) == expected
    transact([marker(20.7)])
    assert len(records) == expected


def test_who_cannot_have_heard_of_it_is_not_told_of() -> None:
    """A shard that is behind hears of it long before it comes to the calls of that time."""
    shard = Shard(0, 1, CoreSettings(), SEEDS, RULES)
    shard.begin()
    shard.fold_tool_calls(prepared([Call(1, tool="shared", arrival=100)], 0))
    shard.fold_panes([state(1, 100, refuses=True)])
    late = [Call(50, tool="shared", arrival=101), Call(104, tool="shared"), Call(106, tool="shared")]
    for offset, call in enumerate(late, 1):
        shard.fold_tool_calls(prepared([call], 0, offset))
        shard.fold_panes([marker(110)])
        assert bool(shard.take_outputs()) == (call.at > 105)


# --- a person's bypass


def bypassed() -> Fleet:
    """Somebody who knows that the tool is whole again lets all calls through until 120 s; for one agent it is not."""

    class Lenient(Fleet):
        def _gated(self, call: Call) -> Call:
            # Enforcers let all calls through under FORCED_CLOSED.
            command = self.gates.get(TOOL)
            if command is not None and command.state is BreakerState.FORCED_CLOSED:
                self.gates.pop(TOOL)
            return super()._gated(call)

    fleet = Lenient(3, shared(60), seed=1, ruleset=RULES)
    fleet.run(UP + 4)
    fleet.order(order(OverrideKind.BYPASS, 120))
    fleet.run(118)
    return fleet


def told(fleet: Fleet) -> list[tuple[bool, bool]]:
    return [(pane.open, pane.refuses) for pane in fleet.sent if pane.kind is PaneKind.TOOL_STATE][:: fleet.partitions]


def test_a_bypass_of_the_tool_leaves_each_actor_its_own_breaker() -> None:
    fleet = bypassed()
    states = [each.record.state for each in fleet.commands(Scope.TOOL) if isinstance(each.record, BreakerCommand)]
    assert states == [BreakerState.OPEN, BreakerState.FORCED_CLOSED]
    trips = [each for each in fleet.trips(Scope.ACTOR_TOOL) if each.at > 60]
    assert [each.record.actor for each in trips] == ["agent-0"]
    assert trips[0].at < 80
    # The statistic of the tool rests all the while.
    owned = [shard._second._owner.tools.get(("default", "shared")) for shard in fleet.shards]
    assert [each.frozen_by for each in owned if each is not None] == ["tool-failing"]
    assert told(fleet) == [(True, True), (False, False)]


def test_when_it_ends_the_tool_holds_again_and_what_was_found_meanwhile_stays() -> None:
    fleet = bypassed()
    fleet.run(135)
    (ended,) = [each for each in fleet.commands(Scope.TOOL) if each.at > 118][:1]
    assert isinstance(ended.record, BreakerCommand)
    assert (ended.record.state, ended.record.cause) == (BreakerState.OPEN, Cause.EXPIRED)
    assert told(fleet)[:3] == [(True, True), (False, False), (True, True)]
    own = [each.record for each in fleet.commands(Scope.ACTOR_TOOL) if each.at > 60]
    assert not any(isinstance(each, BreakerCommand) and each.cause is Cause.ATTRIBUTED for each in own)
    opens = {name for shard in fleet.shards for name in shard.open_breakers()}
    assert {TOOL, "ACTOR_TOOL:default/agent-0/shared"} <= opens
    for shard in fleet.shards:
        assert shard._second._blame.told["default", "shared"].open
