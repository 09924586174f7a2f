"""How many actors automatic trips may hold, the incident that the others make, and what people do about it."""

from __future__ import annotations

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
    Scope,
    Severity,
    Signal,
)
from fuseboard_streams.core.guarding import Guard
from fuseboard_streams.core.ruleset import BlastRadius, RuleSet, Rung
from tests.support.fleet import Fleet, rules
from tests.support.worlds import sick

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
    fleet.order(order(OverrideKind.ACKNOWLEDGE))
    fleet.run(92)
    # One actor is still held, so that nobody else may be: what is asked now is an incident of its own.
    assert len(incidents(fleet)) == 2
    assert most_held(fleet) == 1


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
