"""How many actors automatic trips may hold, the incident that the others make, and what people do about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.records import (
    Action,
    BreakerCommand,
    BreakerState,
    Override,
    OverrideKind,
    Pane,
    PaneKind,
    Recovery,
    Scope,
    Severity,
    Signal,
    SignalLevel,
)
from fuseboard_streams.core.guarding import Guard
from fuseboard_streams.core.ruleset import (
    BlastRadius,
    Match,
    RecoveryPlan,
    Response,
    Rule,
    RuleSet,
    Rung,
    SignalTest,
    Variant,
)
from tests.support.calls import T0, Call
from tests.support.fleet import Fleet, rules
from tests.support.worlds import World, sick

SENSITIVE = FailureParams(trip=1e4, warn=1e3, period=20, floor=0.01)
STARTS, BEGINS = 50, 62


def fleet_of(actors: int, broken: int, seed: int = 1, ruleset: RuleSet | None = None) -> Fleet:
    world = sick(7, actors, broken, BEGINS, rate=0.5, tools=8)
    return Fleet(4, world, seed=seed, ruleset=ruleset or rules(SENSITIVE), obeys=False, now=STARTS)


@cache
def run(actors: int, broken: int, seed: int = 1) -> Fleet:
    fleet = fleet_of(actors, broken, seed)
    fleet.run(80)
    return fleet


def most_held(fleet: Fleet) -> int:
    held: set[str] = set()
    most = 0
    for each in fleet.commands(Scope.ACTOR):
        assert isinstance(each.record, BreakerCommand)
        (held.discard if each.record.state is BreakerState.CLOSED else held.add)(each.record.breaker_id)
        most = max(most, len(held))
    return most


def incidents(fleet: Fleet) -> dict[str, Signal]:
    """The last word about each."""
    return {each.signal_id: each for each in fleet.signals(Scope.TENANT)}


@pytest.mark.parametrize(("actors", "broken", "held"), [(200, 60, 20), (5, 5, 1)])
def test_no_more_actors_are_held_than_the_rules_allow(actors: int, broken: int, held: int) -> None:
    fleet = run(actors, broken)
    assert most_held(fleet) == held
    told = incidents(fleet)
    assert len(told) == 1
    (last,) = told.values()
    granted = {pane.actor for pane in fleet.sent if pane.kind is PaneKind.GRANTED}
    refused = {pane.actor for pane in fleet.sent if pane.kind is PaneKind.REFUSED}
    assert len(granted) == held
    assert last.value == len(refused) > 0
    assert min(refused) in last.reason


def test_a_single_actor_is_held() -> None:
    fleet = run(1, 1)
    assert most_held(fleet) == 1
    assert not incidents(fleet)


def test_the_order_in_which_requests_come_changes_no_decision() -> None:
    def answers(fleet: Fleet) -> set[tuple[str, str | None]]:
        return {
            (each.kind.value, each.actor) for each in fleet.sent if each.kind in (PaneKind.GRANTED, PaneKind.REFUSED)
        }

    assert answers(run(200, 60, 1)) == answers(run(200, 60, 2)) == answers(run(200, 60, 3))


def test_critical_trips_ask_nobody() -> None:
    base = rules(SENSITIVE)
    critical = tuple(
        replace(
            rule,
            base=replace(
                rule.base, response=replace(rule.base.response, ladder=(Rung(Action.READ_ONLY, Severity.CRITICAL),))
            ),
        )
        if rule.scope is Scope.ACTOR
        else rule
        for rule in base.rules
    )
    fleet = fleet_of(5, 5, ruleset=replace(base, rules=critical))
    fleet.run(80)
    assert most_held(fleet) == 5
    assert not any(pane.kind is PaneKind.TRIP_REQUEST for pane in fleet.sent)


def order(kind: OverrideKind) -> Override:
    return Override(
        override_id=f"o-{kind}", ts=0, scope=Scope.TENANT, tenant="default", kind=kind, person="kim", reason="seen"
    )


def test_an_acknowledged_incident_ends_and_the_next_one_is_another() -> None:
    fleet = fleet_of(5, 5)
    fleet.run(80)
    assert len(incidents(fleet)) == 1
    (told,) = incidents(fleet).values()
    assert "fuseboard breakers ack TENANT:default --reason" in (told.reason or "")
    assert (told.reason or "").endswith("fuseboard runbook blast-radius")
    fleet.order(order(OverrideKind.ACKNOWLEDGE))
    fleet.run(92)
    # One actor is still held, so that nobody else may be: what is asked now is an incident of its own.
    assert len(incidents(fleet)) == 2
    assert most_held(fleet) == 1


@pytest.mark.parametrize("kind", [OverrideKind.ACKNOWLEDGE, OverrideKind.RESET])
def test_the_end_of_an_incident_is_the_last_word_about_it(kind: OverrideKind) -> None:
    fleet = fleet_of(5, 5)
    fleet.run(80)
    (before,) = incidents(fleet).values()
    fleet.order(order(kind))
    (after,) = incidents(fleet).values()
    assert (before.level, after.level) == (SignalLevel.WARN, SignalLevel.INFO)
    assert after.signal_id == before.signal_id
    assert (after.source, after.event_id, after.value) == ("fuseboard/blast-radius", f"o-{kind}", 0)
    assert after.since == before.since == before.ts < after.ts
    assert (after.reason or "").startswith("kim has ended the incident in which 4 actors were not tripped")
    assert not fleet.commands(Scope.TENANT)


def request(actor: str, at: int, *, released: bool = False) -> Pane:
    kind = PaneKind.RELEASED if released else PaneKind.TRIP_REQUEST
    return Pane(
        tenant="t", kind=kind, ts=at * 1_000_000, source_shard=0, from_offset=0, next_offset=0, actor=actor,
        rule="r", actors=10, rules_version="v",
    )  # fmt: skip


def decided(guard: Guard, second: int, *panes: Pane) -> tuple[dict[str, bool], int]:
    for pane in panes:
        guard.heard(pane, second)
        guard.take(pane, second, released=pane.kind is PaneKind.RELEASED)
    answers, told = guard.step(second)
    return {each.actor: granted for each, granted in answers}, len(told)


def test_who_is_free_again_makes_room() -> None:
    guard = Guard(BlastRadius(window_us=60_000_000))
    assert decided(guard, 1, request("b", 1), request("a", 1)) == ({"a": True, "b": False}, 1)
    assert decided(guard, 200, request("c", 200)) == ({"c": False}, 1)
    assert guard.acknowledge("t")
    assert not guard.acknowledge("t")
    assert decided(guard, 300, request("b", 300), request("a", 300, released=True)) == ({"b": True}, 0)


def test_what_is_saved_is_everything() -> None:
    guard, again = Guard(BlastRadius()), Guard(BlastRadius())
    decided(guard, 1, request("b", 1), request("a", 1))
    guard.take(request("c", 9), 9, released=False)
    again.restore([("t", guard.saved("t"))], guard.saved_requests())
    assert (again.saved("t"), again.saved_requests()) == (guard.saved("t"), guard.saved_requests())
    assert again.step(9) == guard.step(9)


# --- rules other than the one about failures


def about(rule: str, severity: Severity = Severity.TICKET) -> Rule:
    response = Response(
        rule, (Rung(Action.READ_ONLY, severity),), recovery=RecoveryPlan(Recovery.PERSON), rules_version="test"
    )
    return Rule(rule, rule, Scope.ACTOR, Match(), Variant(SignalTest("*", trip_only=False), response))


def judged(fleet: Fleet, actor: str, *metrics: str) -> None:
    for metric in metrics:
        fleet.tell(
            Signal(
                signal_id=f"{actor} {metric} {fleet.now}",
                ts=T0 + round(fleet.now * 1e6), source="judge", tenant="default",
                scope=Scope.ACTOR, actor=actor, level=SignalLevel.WARN, metric=metric,
            )
        )  # fmt: skip


def with_first_calls(world: World, agents: int) -> World:
    """Each agent makes a call in the second second, so that its shard knows it."""

    def calls(a: float, b: float) -> Iterator[Call]:
        if a < 1 <= b:
            yield from (Call(b, actor=f"agent-{i}") for i in range(agents))
        yield from world(a, b)

    return calls


def judged_fleet(*rest: Rule) -> Fleet:
    fleet = Fleet(
        4,
        with_first_calls(sick(7, 5, 0, 1e9), 5),
        ruleset=rules(SENSITIVE, more=(about("tone"), about("facts"), *rest)),
        obeys=False,
    )
    fleet.run(10)
    return fleet


def holds(fleet: Fleet, actor: str) -> set[str]:
    found = [shard._breakers.get(f"ACTOR:default/{actor}") for shard in fleet.shards]
    return {held.rule for each in found if each is not None for held in each.holds}


def released(fleet: Fleet, actor: str, rule: str) -> None:
    """A person lets it in; the grants of the last minute are over, too."""
    fleet.order(
        Override(
            override_id=f"{actor} {rule}", ts=0, scope=Scope.ACTOR, tenant="default", actor=actor,
            kind=OverrideKind.RESET, rule=rule, person="kim", reason="looked at",
        )
    )  # fmt: skip
    fleet.run(fleet.now + 70)


def test_whatever_trips_by_itself_has_to_ask_and_an_actor_counts_once() -> None:
    fleet = judged_fleet()
    judged(fleet, "agent-0", "tone", "facts")
    fleet.run(11)
    judged(fleet, "agent-1", "tone")
    fleet.run(20)
    assert holds(fleet, "agent-0") == {"tone", "facts"}
    assert holds(fleet, "agent-1") == set()
    (incident,) = incidents(fleet).values()
    assert "agent-1" in incident.reason
    assert [each.reason for each in fleet.signals(Scope.ACTOR) if each.rule == "facts"] == ["judge found facts"]


def test_a_critical_one_trips_at_once_while_others_wait() -> None:
    fleet = judged_fleet(about("forbidden", Severity.CRITICAL))
    judged(fleet, "agent-0", "tone")
    judged(fleet, "agent-1", "tone")
    fleet.run(20)
    assert len(incidents(fleet)) == 1
    judged(fleet, "agent-2", "forbidden")
    assert holds(fleet, "agent-2") == {"forbidden"}


def test_who_is_free_of_all_its_rules_makes_room() -> None:
    fleet = judged_fleet()
    judged(fleet, "agent-0", "tone", "facts")
    fleet.run(20)
    released(fleet, "agent-0", "tone")
    judged(fleet, "agent-1", "tone")
    fleet.run(fleet.now + 9)
    assert holds(fleet, "agent-1") == set()
    fleet.order(order(OverrideKind.ACKNOWLEDGE))
    released(fleet, "agent-0", "facts")
    judged(fleet, "agent-1", "tone")
    fleet.run(fleet.now + 9)
    assert holds(fleet, "agent-1") == {"tone"}


def test_a_trip_that_is_not_wanted_any_more_takes_no_room() -> None:
    """While leave is asked for, the rule goes: what is granted is given back."""
    fleet = judged_fleet()
    judged(fleet, "agent-0", "tone")
    fleet.change(rules(SENSITIVE, more=(about("facts"),), version="without"))
    fleet.run(20)
    assert holds(fleet, "agent-0") == set()
    # The grant counts among those of the last minute.
    fleet.run(80)
    judged(fleet, "agent-1", "facts")
    fleet.run(85)
    assert holds(fleet, "agent-1") == {"facts"}


def test_without_a_guard_those_who_wait_are_tripped() -> None:
    fleet = judged_fleet()
    for actor in ("agent-0", "agent-1", "agent-2"):
        judged(fleet, actor, "tone")
    fleet.change(replace(rules(SENSITIVE, more=(about("tone"),), version="open"), blast_radius=None))
    fleet.run(20)
    assert [holds(fleet, f"agent-{i}") for i in range(3)] == [{"tone"}] * 3
