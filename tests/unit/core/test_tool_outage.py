"""Whose fault it is: a tool that fails for everybody, and one that a single actor makes look so. Four shards."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.records import BreakerCommand, BreakerState, Cause, Outcome, Scope
from tests.support.calls import T0, Call, home
from tests.support.fleet import Decided, Fleet, rules
from tests.support.worlds import World, ailing, hog, outage

STARTS, BEGINS, ENDS = 40, 62, 76
ACTORS = 200
SECOND = 1_000_000
AILING_S = 15.0
EVIDENCE = (
    "r", "p0", "successes", "pending_calls", "pending_failures", "parked_calls", "parked_failures", "learned_calls",
    "learned_failures",
)  # fmt: skip


def command(decided: Decided) -> BreakerCommand:
    assert isinstance(decided.record, BreakerCommand)
    return decided.record


def without_failures_of_the_tool(world: World) -> World:
    def calls(a: float, b: float) -> Iterator[Call]:
        for call in world(a, b):
            if a < BEGINS or call.tool != "tool-0" or call.outcome is Outcome.OK:
                yield call

    return calls


@cache
def run(seed: int) -> Fleet:
    """Nobody obeys, so that what is decided shows in nothing that comes after."""
    fleet = Fleet(4, outage(3, ACTORS, BEGINS, ENDS, busy=16, every=1.0), seed=seed, obeys=False, now=STARTS)
    fleet.run(ENDS)
    return fleet


def rows(fleet: Fleet) -> dict[str, dict[str, list[float]]]:
    """The evidence against every actor, after one more failure of another tool, when everything is settled."""
    last = [Call(ENDS + 1 + i / 1000, Outcome.ERROR, f"agent-{i}", "tool-1") for i in range(ACTORS)]
    by_shard: dict[int, list[Call]] = {}
    for call in last:
        by_shard.setdefault(home(call.actor, 4), []).append(call)
    fleet.calls = lambda a, b: [call for calls in by_shard.values() for call in calls if a < call.at <= b]
    fleet.run(ENDS + 4)
    found = {}
    for shard in fleet.shards:
        actors = shard._state.actors
        for row in np.flatnonzero(actors.live).tolist():
            found[str(actors["actor"][row])] = {name: actors[name][row].tolist() for name in EVIDENCE}
    return found


def test_one_trip_of_the_tool_supersedes_those_of_its_actors() -> None:
    fleet = run(1)
    trips = [command(each) for each in fleet.trips(Scope.TOOL)]
    assert [each.breaker_id for each in trips] == ["TOOL:default/tool-0"]
    assert "actors" in trips[0].reason
    assert not fleet.commands(Scope.ACTOR)
    early = {command(each).breaker_id for each in fleet.trips(Scope.ACTOR_TOOL)}
    assert len(early) >= 3
    ended = [command(each) for each in fleet.commands(Scope.ACTOR_TOOL, BreakerState.CLOSED)]
    assert {each.breaker_id for each in ended} == early
    assert {each.cause for each in ended} == {Cause.ATTRIBUTED}
    assert all(abs(each.ts - trips[0].ts) <= 2 * SECOND for each in ended)
    assert not any("ACTOR" in name for shard in fleet.shards for name in shard.open_breakers())


def test_its_failures_are_as_good_as_never_made() -> None:
    """Every actor's evidence and null are those of a run without the tool's failing calls, to the bit."""
    world = outage(3, ACTORS, BEGINS, ENDS, busy=16, every=1.0)
    broken = Fleet(4, world, seed=2, obeys=False, now=STARTS)
    healthy = Fleet(4, without_failures_of_the_tool(world), seed=5, obeys=False, now=STARTS)
    for fleet in (broken, healthy):
        fleet.run(ENDS)
    assert broken.trips(Scope.TOOL)
    assert not healthy.trips(Scope.TOOL)
    found, expected = rows(broken), rows(healthy)
    assert len(found) == ACTORS
    assert found == expected


def test_the_order_in_which_panes_come_changes_no_decision() -> None:
    def said(fleet: Fleet) -> list[tuple[object, ...]]:
        trips = [command(each) for each in fleet.trips(Scope.TOOL)]
        return [(each.breaker_id, each.evidence_log10, each.reason.split("since")[0]) for each in trips]

    assert said(run(1)) == said(run(2)) == said(run(3))
    assert not any(shard.counters.panes_late for shard in run(1).shards)


def test_a_tool_that_is_whole_again_is_let_in_and_counts_anew() -> None:
    fleet = Fleet(4, outage(4, 60, 30, 50, every=0.8), seed=1)
    fleet.run(110)
    states = [command(each).state for each in fleet.commands(Scope.TOOL)]
    assert states[0] is BreakerState.OPEN
    assert states[-1] is BreakerState.CLOSED
    closed = command(fleet.commands(Scope.TOOL)[-1])
    assert closed.cause is Cause.PROBES_PASSED
    assert len(fleet.trips(Scope.TOOL)) == 1
    counted = sum(pane.calls for pane in fleet.sent if pane.tool == "tool-0" and pane.ts > closed.ts + 2 * SECOND)
    assert counted > 100


@pytest.mark.parametrize("partitions", [1, 5])
def test_breadth_does_not_depend_on_how_actors_are_spread(partitions: int) -> None:
    """One call in ten fails for everybody: in most seconds something fails in one shard, and nothing in the others."""
    params = FailureParams(period=20)
    fleet = Fleet(partitions, ailing(1, 30, 60, 0.1), seed=1, obeys=False, now=0, ruleset=rules(params))
    fleet.run(170)
    (tripped, *_) = fleet.trips(Scope.TOOL)
    assert tripped.at - 60 == pytest.approx(AILING_S, abs=2)


def test_one_actor_does_not_take_the_tool_from_everybody() -> None:
    """It makes six of ten calls, all of them fail, and it does not obey."""
    fleet = Fleet(4, hog(1, 30, 20), seed=1, obeys=False)
    fleet.run(60)
    assert not fleet.commands(Scope.TOOL)
    assert [command(each).actor for each in fleet.trips(Scope.ACTOR_TOOL)] == ["hog"]
    failures = sum(pane.failures for pane in fleet.sent if pane.ts >= T0 + 20 * SECOND)
    assert failures > 0.6 * 3 * 40
