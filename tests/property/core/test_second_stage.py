"""The second stage: what a journal names decides everything, however it is cut, aborted or restored."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.records import (
    Action,
    BreakerCommand,
    BreakerState,
    Cause,
    DeniedBy,
    Mode,
    Outcome,
    Override,
    OverrideKind,
    PaneKind,
    Recovery,
    Scope,
    Severity,
)
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
    UngatedTest,
    Variant,
)
from fuseboard_streams.core.settings import SECOND, CoreSettings
from fuseboard_streams.core.shard import Output, Shard
from tests.support.calls import SEEDS, T0, Call, prepared
from tests.support.fleet import Entry, Fleet, fold, rules
from tests.support.random_calls import cuts_of, random_calls
from tests.support.worlds import World, outage, sick

SENSITIVE = FailureParams(trip=1e4, warn=1e3, period=20, floor=0.01)
RULES = rules(SENSITIVE)
DENIED = Rule(
    "denied", "actions.violating", Scope.ACTOR, Match(),
    Variant(
        DistinctTest(3, 100, 86_400 * SECOND),
        Response(
            "denied", (Rung(Action.READ_ONLY, Severity.TICKET),), recovery=RecoveryPlan(Recovery.PERSON),
            rules_version="test",
        ),
    ),
)  # fmt: skip
DENIALS = rules(SENSITIVE, more=(DENIED,))
SHARDS = 3


def both(seed: int) -> World:
    """A tool goes down and comes back; later some actors fail whatever they call."""
    first, second = outage(seed, 12, 25, 45, every=0.8), sick(seed, 24, 6, 30, 45)

    def calls(a: float, b: float) -> Iterator[Call]:
        yield from first(a, b)
        yield from second(a, b)

    return calls


@cache
def run(seed: int) -> Fleet:
    """A fleet that has been through everything."""
    fleet = Fleet(SHARDS, both(seed), seed=seed, ruleset=RULES)
    fleet.run(70)
    fleet.order(
        Override(
            override_id="o", ts=0, scope=Scope.TENANT, tenant="default", kind=OverrideKind.ACKNOWLEDGE, person="kim",
            reason="seen",
        )
    )  # fmt: skip
    fleet.run(100)
    return fleet


@cache
def changing(seed: int) -> Fleet:
    """A fleet whose rules change while it is in trouble: other levels, none of the second stage, all again."""
    fleet = Fleet(SHARDS, both(seed), seed=seed, ruleset=RULES)
    fleet.run(27.5 + seed)
    for version, ruleset in (
        ("levels", rules(replace(SENSITIVE, trip=1e5), version="levels")),
        ("none", replace(rules(SENSITIVE, version="none"), rules=RULES.rules[::2], blast_radius=None)),
        ("again", rules(SENSITIVE, version="again")),
        ("other", rules(replace(SENSITIVE, floor=0.02), BlastRadius((1, 2), 3), version="other")),
        ("actors", replace(rules(SENSITIVE, version="actors"), rules=RULES.rules[:2])),
        ("back", rules(SENSITIVE, version="back")),
    ):
        assert ruleset.version == version
        fleet.change(ruleset)
        fleet.run(fleet.now + 6.5)
    fleet.run(100)
    return fleet


@cache
def disobeying(seed: int) -> Fleet:
    """A fleet whose agents go on calling a tool that is off, which somebody bypasses for a while, and trips again."""
    response = Response("gate-bypassed", (Rung(Action.HALT),), Mode.WARN, RecoveryPlan(Recovery.PERSON))
    gates = Rule("gate-bypassed", "calls.ungated", Scope.ACTOR, Match(), Variant(UngatedTest(5_000_000), response))
    ruleset = rules(SENSITIVE, more=(gates,))
    fleet = Fleet(SHARDS, outage(seed, 12, 25, 70, every=0.8), seed=seed, ruleset=ruleset, obeys=False)
    for until, kind, expires_s in (
        (45, OverrideKind.BYPASS, 55),
        (60, OverrideKind.RESET, None),
        (70, OverrideKind.TRIP, 80),
    ):
        fleet.run(until)
        fleet.order(
            Override(
                override_id=f"o-{until}", ts=0, scope=Scope.TOOL, tenant="default", tool="tool-0", kind=kind,
                action=Action.DISABLE_TOOL if kind is OverrideKind.TRIP else Action.NONE, person="kim", reason="seen",
                expires_at=None if expires_s is None else T0 + expires_s * 1_000_000,
            )
        )  # fmt: skip
    fleet.run(90)
    return fleet


def make(number: int, ruleset: RuleSet = RULES) -> Shard:
    return Shard(number, SHARDS, CoreSettings(), SEEDS, ruleset)


def cut(entries: list[Entry], rng: random.Random) -> list[Entry]:
    """The same in other transactions: cut anywhere, and joined where one's panes are none."""
    pieces: list[Entry] = []
    for entry in entries:
        panes = rng.randrange(len(entry.panes) + 1)
        calls = rng.randrange(len(entry.calls) + 1)
        pieces += [
            Entry(entry.panes[:panes], [], orders=entry.orders, rules=entry.rules),
            Entry(entry.panes[panes:], entry.calls[:calls], entry.offset),
            Entry([], entry.calls[calls:], entry.offset + calls, entry.advance),
        ]
    joined: list[Entry] = pieces[:1]
    for piece in pieces[1:]:
        last = joined[-1]
        follows = (
            not piece.panes
            and not piece.orders
            and piece.rules is None
            and last.advance is None
            and (last.calls or not last.panes)
        )
        if follows and rng.random() < 0.5:
            offset = last.offset if last.calls else piece.offset
            joined[-1] = replace(last, calls=last.calls + piece.calls, offset=offset, advance=piece.advance)
        else:
            joined.append(piece)
    return joined


def told(panes: list[PaneOutput]) -> list[PaneOutput]:
    return [pane for pane in panes if pane.record.kind is not PaneKind.MARKER]


def replay(
    number: int, entries: list[Entry], rng: random.Random, *, aborts: bool, restores: bool, ruleset: RuleSet = RULES
) -> tuple[list[Output], list[PaneOutput], Shard]:
    shard, outputs, panes, current = make(number, ruleset), [], [], ruleset
    blocks: list[bytes] = []
    for entry in entries:
        current = entry.rules or current
        entry = replace(entry, rules=current)
        # Whoever restores has read the newest rules already, and puts them in force with the next entry.
        if restores and rng.random() < 0.02:
            shard = make(number, current)
            for block in blocks:
                shard.apply(block)
            shard.finish_restore()
        for last in (False,) * (aborts and rng.random() < 0.1) + (True,):
            shard.begin()
            fold(shard, entry)
            found, sent = shard.take_outputs(), shard.take_panes()
            delta = shard.encode_changes(256)
            if last:
                shard.commit()
            else:
                shard.rollback()
        outputs += found
        panes += sent
        blocks.append(delta.block)
    return outputs, told(panes), shard


def test_the_fleet_goes_through_everything() -> None:
    """Otherwise the tests here would prove little."""
    kinds, states = set(), set()
    for seed in (1, 2):
        fleet = run(seed)
        kinds |= {pane.kind for pane in fleet.sent}
        states |= {each.record.state for each in fleet.commands(Scope.TOOL)}  # type: ignore[union-attr]
        assert not any(each.counters.panes_missing or each.counters.panes_repeated for each in fleet.shards)
    assert kinds == set(PaneKind) - {PaneKind.OTHER, PaneKind.MARKER}
    assert states == {BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED}


def test_rules_that_change_leave_nothing_behind() -> None:
    """A tool that is off because of a rule that is gone is let in, all hear of it, and the guard's count holds."""
    freed = 0
    for seed in (1, 2):
        fleet = changing(seed)
        assert not any(each.counters.panes_missing or each.counters.panes_repeated for each in fleet.shards)
        assert {each.rules_in_force for each in fleet.shards} == {"back"}
        freed += sum(
            isinstance(each.record, BreakerCommand) and each.record.cause is Cause.RULE_REMOVED
            for each in fleet.commands(Scope.TOOL)
        )
        assert fleet.trips(Scope.ACTOR)
        for shard in fleet.shards:
            told = shard._second._blame.told
            off = {name for name in shard.open_breakers() if name.startswith("TOOL:")}
            assert {f"TOOL:{tenant}/{tool}" for (tenant, tool), each in told.items() if each.open} >= off
            assert not shard._second._requests.asked
            held = {
                name
                for name in shard.open_breakers()
                if (row := shard._breakers.get(name)) and row.scope is Scope.ACTOR and row.hold_of("actor-failing")
            }
            assert set(shard._second._requests.granted) <= held
            resting = shard._state.actors["actor"][shard._state.actors["frozen"] > 0].tolist()
            assert {f"ACTOR:default/{actor}" for actor in resting} == held
        granted = {name for shard in fleet.shards for name in shard._second._requests.granted}
        home = {
            f"ACTOR:default/{actor}"
            for shard in fleet.shards
            for each in shard._second._guard.tenants.values()
            for actor in each.held
        }
        assert home == granted
    assert freed


def test_who_does_not_obey_is_told_of_whatever_people_order() -> None:
    for seed in (1, 2):
        fleet = disobeying(seed)
        assert len(fleet.trips(Scope.TOOL)) >= 1
        assert any("as a whole" in (each.reason or "") for each in fleet.signals(Scope.ACTOR))
        states = [each.record.state for each in fleet.commands(Scope.TOOL)]  # type: ignore[union-attr]
        assert {BreakerState.FORCED_CLOSED, BreakerState.FORCED_OPEN} <= set(states)


@pytest.mark.parametrize(
    ("aborts", "restores"), [(False, False), (True, False), (False, True)], ids=["cuts", "aborts", "restores"]
)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_journal_decides_everything(aborts: bool, restores: bool, seed: int) -> None:
    """Whatever a shard decides and sends follows from what it was given, in its order."""
    rng, fleet = random.Random(seed), (run, changing, disobeying)[seed // SHARDS % 3](1 + seed % 2)
    number = seed % SHARDS
    entries = cut(fleet.journals[number], rng)
    outputs, panes, shard = replay(number, entries, rng, aborts=aborts, restores=restores, ruleset=fleet.ruleset)
    assert panes == fleet.panes[number]
    assert outputs == fleet.outputs[number]
    assert not shard.counters.panes_missing


def denied_too_often(seed: int) -> list[Call]:
    """Random calls of more actors, of which a few violate a policy."""
    rng = random.Random(seed)
    return [
        replace(call, outcome=Outcome.DENIED, denied_by=DeniedBy.POLICY, probe=False, gate=None, trace=f"denied-{i}")
        if call.actor in ("actor-1", "actor-3", "actor-5", "actor-7") and rng.random() < 0.3
        else call
        for i, call in enumerate(random_calls(seed, 400, actors=8, step=0.2))
    ]


def in_parts(calls: list[Call], cuts: list[int], ruleset: RuleSet) -> tuple[list[Output], list[PaneOutput]]:
    """What a lone shard decides and sends; every hundred calls it hears what it has sent."""
    shard = Shard(0, 1, CoreSettings(), SEEDS, ruleset)
    outputs: list[Output] = []
    panes: list[PaneOutput] = []
    heard, marker = 0, None
    for a, b in pairwise(sorted({0, *cuts, *range(100, len(calls), 100), len(calls)})):
        shard.begin()
        if a % 100 == 0:
            inbox = panes[heard:] if marker is None else [*panes[heard:], marker]
            heard = len(panes)
            shard.fold_panes([Received(a + i, T0 + a * SECOND, each.record) for i, each in enumerate(inbox)])
        shard.fold_tool_calls(prepared(calls[a:b], 0, a))
        outputs += shard.take_outputs()
        for pane in shard.take_panes():
            if pane.record.kind is PaneKind.MARKER:
                marker = pane
            else:
                panes.append(pane)
        shard.encode_changes(256)
        shard.commit()
    assert not shard.counters.panes_missing
    return outputs, panes


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), parts=st.integers(1, 60))
def test_how_calls_are_cut_shows_in_no_pane(seed: int, parts: int) -> None:
    """One large batch, in which runs of calls span many seconds, and many small ones."""
    rng, calls = random.Random(seed), random_calls(seed, 400, step=0.2)
    whole = in_parts(calls, [], RULES)
    assert whole == in_parts(calls, cuts_of(rng, len(calls), parts), RULES)
    assert any(pane.record.actors_failing for pane in whole[1])


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), parts=st.integers(1, 60))
def test_how_calls_are_cut_shows_in_no_answer_of_the_guard(seed: int, parts: int) -> None:
    """Denials end no run of calls, but trips are asked for on them."""
    rng, calls = random.Random(seed), denied_too_often(seed)
    outputs, panes = in_parts(calls, [], DENIALS)
    assert (outputs, panes) == in_parts(calls, cuts_of(rng, len(calls), parts), DENIALS)
    kinds = {pane.record.kind for pane in panes if pane.record.rule == "denied"}
    assert kinds == {PaneKind.TRIP_REQUEST, PaneKind.GRANTED, PaneKind.REFUSED}
    assert any(pane.record.actor is not None for pane in panes if pane.record.kind is PaneKind.SUMS)
