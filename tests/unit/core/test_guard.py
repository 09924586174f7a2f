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
    DeniedBy,
    Effect,
    Outcome,
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
from fuseboard_streams.core.inputs import Received
from fuseboard_streams.core.mail import PaneOutput
from fuseboard_streams.core.ruleset import (
    BlastRadius,
    DistinctTest,
    Match,
    RecoveryPlan,
    Response,
    Rule,
    RuleSet,
    Rung,
    SignalTest,
    Variant,
)
from tests.support.calls import T0, Call, make_shard, prepared
from tests.support.fleet import Fleet, rules
from tests.support.worlds import World, sick

SENSITIVE = FailureParams(trip=1e4, warn=1e3, period=20, floor=0.01)
STARTS, BEGINS = 30, 62


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


def pane_of(kind: PaneKind, at: int, actor: str | None = None) -> Pane:
    return Pane(
        tenant="t", kind=kind, ts=at * 1_000_000, source_shard=0, from_offset=0, next_offset=0, actor=actor,
        rule="r", rules_version="v",
    )  # fmt: skip


def request(actor: str, at: int, *, released: bool = False) -> Pane:
    return pane_of(PaneKind.RELEASED if released else PaneKind.TRIP_REQUEST, at, actor)


def standing(at: int, active: int, *, shard: int = 0, **actors: bool) -> list[Pane]:
    """What a shard says at a whole minute: who is held with leave, who asks for it, how many actors are active."""
    sums = replace(pane_of(PaneKind.SUMS, at), source_shard=shard)
    named = [replace(sums, actor=actor, open=held) for actor, held in actors.items()]
    return [*named, replace(sums, actors=active)]


def answers_to(guard: Guard, second: int, *panes: Pane) -> tuple[dict[str, bool], list[str]]:
    for pane in panes:
        if pane.kind is PaneKind.SUMS:
            guard.heard(pane, second)
        else:
            guard.take(pane, second, released=pane.kind is PaneKind.RELEASED)
    answers, told = guard.step(second)
    return {each.actor: granted for each, granted in answers}, [each.reason for each in told]


def decided(guard: Guard, second: int, *panes: Pane) -> tuple[dict[str, bool], int]:
    answers, reasons = answers_to(guard, second, *panes)
    return answers, len(reasons)


def held(guard: Guard) -> list[str]:
    tenant = guard.tenants["t"]
    assert len(tenant.held) == tenant.state.open[0]
    return sorted(tenant.held)


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
    decided(guard, 5, request("a", 5, released=True))
    guard.take(request("c", 9), 9, released=False)
    for pane in standing(9, 30, x=True):
        guard.heard(pane, 9)
    again.restore([("t", guard.saved("t"))], guard.saved_requests())
    assert (again.saved("t"), again.saved_requests()) == (guard.saved("t"), guard.saved_requests())
    assert again.step(9) == guard.step(9)


ENDS = ". No more are tripped automatically until somebody acknowledges this for the tenant t"


def test_the_words_say_which_limit_stopped_a_trip() -> None:
    guard = Guard(BlastRadius())
    assert answers_to(guard, 1, request("a", 1))[1] == []
    stopped = "1 actor was not tripped, since 1 actor is held already, and no more than 1 may be: b"
    assert answers_to(guard, 2, request("b", 2))[1] == [stopped + ENDS]
    stopped = (
        "2 actors were not tripped, b since 1 actor is held already, and no more than 1 may be, the other since this "
        "incident was under way: a, b"
    )
    assert answers_to(guard, 9, request("a", 9, released=True), request("a", 9))[1] == [stopped + ENDS]
    assert guard.acknowledge("t")
    stopped = "1 actor was not tripped, since 1 actor was tripped within 60 s, and no more than 1 may be: d"
    assert answers_to(guard, 10, request("d", 10))[1] == [stopped + ENDS]
    assert guard.acknowledge("t")
    answers_to(guard, 120, *standing(120, 25))
    answers_to(guard, 121, request("a", 121), request("b", 121))
    stopped = (
        "3 actors were not tripped, c since 2 actors are held already, and no more than 2 may be, the others since "
        "this incident was under way: c, d, e"
    )
    assert answers_to(guard, 122, *(request(actor, 122) for actor in "edc"))[1] == [stopped + ENDS]


def test_a_guard_that_allows_nobody_says_so() -> None:
    guard = Guard(BlastRadius(at_least=0))
    stopped = "1 actor was not tripped, since no actor may be tripped automatically: a"
    assert answers_to(guard, 1, request("a", 1)) == ({"a": False}, [stopped + ENDS])


def test_who_trips_again_within_the_window_widens_no_radius() -> None:
    guard = Guard(BlastRadius())
    for second in (1, 20, 50, 100):
        assert decided(guard, second, request("a", second)) == ({"a": True}, 0)
        assert decided(guard, second + 5, request("a", second + 5, released=True)) == ({}, 0)
    # The newest grant counts for a minute.
    assert decided(guard, 158, request("b", 158)) == ({"b": False}, 1)
    assert guard.acknowledge("t")
    assert decided(guard, 162, request("b", 162)) == ({"b": True}, 0)


def test_one_flapping_actor_leaves_its_tenant_guarded_and_tripped() -> None:
    """It is closed by probes and fails again within a minute of its trip, alone in its tenant."""

    def calls(a: float, b: float) -> Iterator[Call]:
        bad = 100 <= a < 106 or 136 <= a < 150 or 400 <= a < 420
        for i in range(2):
            outcome = Outcome.ERROR if bad and i else Outcome.OK
            yield Call(a + i * 0.2, outcome, "solo", f"tool-{round(a * 2) % 8}", effect=Effect.WRITE)

    fleet = Fleet(2, calls, ruleset=rules(SENSITIVE))
    fleet.run(430)
    assert not incidents(fleet)
    trips = [each.at for each in fleet.trips(Scope.ACTOR)]
    assert len(trips) == 3
    assert trips[1] - trips[0] < 60


# --- what a home believes is what the actors' shards know


def test_who_is_not_named_at_a_whole_minute_is_free() -> None:
    guard = Guard(BlastRadius((1, 1)))
    decided(guard, 60, *standing(60, 9), *standing(60, 9, shard=1))
    decided(guard, 90, request("a", 90), request("b", 90), replace(request("c", 90), source_shard=1))
    decided(guard, 125, request("d", 125))
    assert held(guard) == ["a", "b", "c", "d"]
    # One has a grant, one's is on its way; the last was asked for after the minute.
    decided(guard, 126, *standing(120, 9, a=True, b=False))
    assert held(guard) == ["a", "b", "c", "d"]
    decided(guard, 181, *standing(180, 9, d=True))
    assert held(guard) == ["c", "d"]


def test_who_is_named_counts() -> None:
    """The home had no guard for a while, and forgot; who only asks is not held."""
    guard = Guard(BlastRadius())
    decided(guard, 60, *standing(60, 9, a=True, b=False))
    assert held(guard) == ["a"]
    assert decided(guard, 61, request("b", 61)) == ({"b": False}, 1)


def test_a_shard_that_is_never_heard_again_holds_nobody() -> None:
    guard = Guard(BlastRadius())
    assert decided(guard, 1, request("a", 1)) == ({"a": True}, 0)
    assert decided(guard, 7_000, request("b", 7_000)) == ({"b": False}, 1)
    assert guard.acknowledge("t")
    assert decided(guard, 7_300, request("b", 7_300)) == ({"b": True}, 0)


@pytest.mark.parametrize("skips", [(), (0,), (1,), (2,), (3,), (0, 1, 2)], ids=str)
def test_rules_without_a_guard_that_some_shards_skip_leave_nobody_held(skips: tuple[int, ...]) -> None:
    fleet = judged_fleet()
    without = replace(rules(SENSITIVE, more=(about("tone"), about("facts")), version="open"), blast_radius=None)
    back = rules(SENSITIVE, more=(about("tone"), about("facts")), version="back")
    judged(fleet, "agent-0", "tone")
    fleet.run(20)
    assert homes_hold(fleet) == granted_in(fleet) == {"agent-0"}
    fleet.change(without)
    for number in skips:
        fleet._news.pop(number, None)
    fleet.run(30)
    fleet.change(back)
    fleet.run(130)
    assert homes_hold(fleet) == granted_in(fleet)
    fleet.run(131)
    judged(fleet, "agent-1", "tone")
    fleet.run(141)
    assert holds(fleet, "agent-1") == (set() if granted_in(fleet) == {"agent-0"} else {"tone"})


def homes_hold(fleet: Fleet) -> set[str]:
    return {actor for shard in fleet.shards for each in shard._second._guard.tenants.values() for actor in each.held}


def granted_in(fleet: Fleet) -> set[str]:
    names = {name for shard in fleet.shards for name in shard._second._requests.granted}
    return {name.removeprefix("ACTOR:default/") for name in names}


# --- how events are cut into batches

DENIED = Rule(
    "denied", "actions.violating", Scope.ACTOR, Match(),
    Variant(
        DistinctTest(3, 100, 86_400_000_000),
        Response(
            "denied", (Rung(Action.READ_ONLY, Severity.TICKET),), recovery=RecoveryPlan(Recovery.PERSON),
            rules_version="test",
        ),
    ),
)  # fmt: skip


@pytest.mark.parametrize("size", [1, 7, 100])
def test_neither_trips_nor_incidents_depend_on_batches(size: int) -> None:
    """Two of ten actors are denied too often; forty others call soon after, within what may be one run of calls."""
    calls = [Call(0.01 * i, actor=f"a{i}") for i in range(10)]
    for i in range(4):
        for j in range(2):
            denied = Call(
                1.1 + 0.1 * i + 0.05 * j, Outcome.DENIED, f"a{j}", trace=f"{j}-{i}", denied_by=DeniedBy.POLICY
            )
            calls.append(denied)
    calls += [Call(2 + 0.05 * i, actor=f"new{i}") for i in range(40)]
    calls.append(Call(30, actor="a5"))
    shard = make_shard(rules=rules(more=(DENIED,)))
    panes: list[PaneOutput] = []
    for a in range(0, len(calls), size):
        shard.begin()
        shard.fold_tool_calls(prepared(calls[a : a + size], 0, a))
        assert shard.take_outputs() == []
        panes += shard.take_panes()
        shard.encode_changes(256)
        shard.commit()
    asked = [each.record for each in panes if each.record.kind is PaneKind.TRIP_REQUEST]
    assert [(each.actor, (each.ts - T0) // 10_000, each.actors) for each in asked] == [("a0", 130, 0), ("a1", 135, 0)]
    # Their second is told before any later one, as if each call had come alone.
    order = [each.record.ts // 1_000_000 for each in panes if each.record.kind is not PaneKind.MARKER]
    assert order == sorted(order)
    shard.begin()
    shard.fold_panes([Received(i, T0, each.record) for i, each in enumerate(panes)])
    answers = [each.record for each in shard.take_panes() if each.record.kind is not PaneKind.MARKER]
    assert [(each.kind, each.actor) for each in answers] == [(PaneKind.GRANTED, "a0"), (PaneKind.REFUSED, "a1")]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_marker_does_not_overtake_what_it_speaks_of(size: int) -> None:
    calls = [Call(1.1), Call(4, Outcome.DENIED), Call(5, Outcome.DENIED), Call(20)]
    shard = make_shard(rules=rules())
    passed = 0
    for a in range(0, len(calls), size):
        shard.begin()
        shard.fold_tool_calls(prepared(calls[a : a + size], 0, a))
        for each in shard.take_panes():
            if each.record.kind is PaneKind.MARKER:
                passed = each.record.ts
            else:
                assert each.record.ts >= passed
        shard.encode_changes(256)
        shard.commit()
    assert passed == T0 + 20_000_000


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
