"""Objectives per tool over several shards in virtual time, against a plain model of all calls, whatever happens."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuseboard_detectors.failure import FailureParams
from fuseboard_detectors.objectives import WINDOW_CELLS, ObjectiveParams, tails, window
from fuseboard_schemas.keys import home_partition
from fuseboard_schemas.records import DeniedBy, Outcome, PaneKind, Scope, Signal, SignalLevel
from fuseboard_streams.core.ruleset import ObjectiveTest, RuleSet
from fuseboard_streams.core.settings import SECOND
from fuseboard_streams.core.shard import Output
from fuseboard_streams.rules.compile import compile_rules
from tests.property.core.test_second_stage import cut, replay
from tests.support.calls import T0, Call, home
from tests.support.fleet import Fleet, rules
from tests.support.worlds import World, hog, outage

SHARDS = 3
UNTIL = 200.0
LATE_S, MINUTE = 300, 60
ONE_OF_EACH = [next(f"agent-{i}" for i in range(99) if home(f"agent-{i}", SHARDS) == shard) for shard in range(SHARDS)]
TEXT = """version: 1
objectives:
  success: {metric: calls.ok, per: TOOL, target: ">80%", window: 1m, min: 100}
  strict: {metric: calls.ok, per: TOOL, target: ">97%", window: 90s, min: 175, confidence: 80%}
overrides:
  - {match: {tool: tool-1}, set: {success: {window: 2m, target: ">99.5%"}}}
"""
WIDER = TEXT.replace("90s, min: 175", "3m, min: 60")
Said = tuple[str, str, str, int, int, int]
"""Objective, tool, state, second, calls and bad ones."""


@cache
def ruleset(text: str = TEXT, version: str = "test", *, breakers: bool = True) -> RuleSet:
    found = rules(FailureParams(trip=1e4, warn=1e3, period=20, floor=0.01), version=version)
    kept = found.rules if breakers else found.rules[::2]
    return replace(found, rules=kept, objectives=compile_rules(text.encode(), "test").rules.objectives)


def odd(world: World, seed: int, ends: float) -> World:
    """The same with calls that say nothing of their tools: refused, cancelled, told far too late or once more.

    Somebody calls in every shard all the time, so that none of them is behind the others for long; and then nobody.
    """

    def calls(a: float, b: float) -> Iterator[Call]:
        rng = random.Random(f"odd {seed} {a}")
        if a >= ends:
            return
        for actor in ONE_OF_EACH:
            yield Call(b - 0.001, actor=actor, tool="beat")
        for i, call in enumerate(world(a, b)):
            call = replace(call, seq=round(a * 1_000) + i)
            chance = rng.random()
            if chance < 0.03:
                yield replace(call, outcome=Outcome.DENIED, denied_by=DeniedBy.POLICY)
            elif chance < 0.06:
                yield replace(call, outcome=Outcome.CANCELLED)
            elif chance < 0.09 and call.at > LATE_S / 10:
                yield replace(call, at=call.at - 2 * LATE_S, outcome=Outcome.ERROR)
            else:
                yield call
                if chance < 0.12:
                    yield call

    return calls


def fleet_of(kind: str, ends: float = 1e9) -> Fleet:
    """Actors that obey; that go on whatever is off, one of them ten failures a second; without rules about tools."""
    if kind == "obeying":
        return Fleet(SHARDS, odd(outage(1, 12, 70, 100, every=0.8, noise=0.03), 1, ends), seed=1, ruleset=ruleset())
    if kind == "heedless":
        return Fleet(SHARDS, odd(hog(2, 8, 90), 2, ends), seed=2, ruleset=ruleset(), obeys=False)
    world = odd(outage(3, 12, 70, 100, every=0.8, noise=0.03), 3, ends)
    return Fleet(SHARDS, world, seed=3, ruleset=ruleset(breakers=False))


KINDS = ("obeying", "heedless", "measured")


@cache
def run(kind: str) -> Fleet:
    fleet = fleet_of(kind, UNTIL - 15)
    fleet.run(UNTIL + 130)
    return fleet


@cache
def changing() -> Fleet:
    """Rules that change: other levels, another window, no objective, the first again."""
    fleet = fleet_of("obeying")
    fleet.run(65.5)
    for text, version in (
        (TEXT.replace(">80%", ">90%"), "levels"),
        (WIDER, "window"),
        ("version: 1", "none"),
        (TEXT, "again"),
    ):
        fleet.change(ruleset(text, version))
        fleet.run(fleet.now + 33)
    fleet.run(UNTIL + 60)
    return fleet


def said(outputs: list[Output]) -> list[Said]:
    found = []
    for each in outputs:
        record = each.record
        if isinstance(record, Signal) and record.metric == "calls.ok":
            state = (record.reason or "").split(":")[0]
            assert record.level is (SignalLevel.WARN if state == "violated" else SignalLevel.INFO)
            assert (record.scope, record.actor) == (Scope.TOOL, None)
            counts = record.calls or 0, record.failures or 0
            found.append((record.rule or "", record.tool or "", state, record.ts // SECOND, *counts))
    return found


def results(fleet: Fleet) -> dict[str, list[tuple[int, int, int]]]:
    """By tool: second, results and bad ones, of all calls that any shard was given."""
    sums: dict[tuple[str, int], Counter[bool]] = defaultdict(Counter)
    for journal in fleet.journals:
        stream = newest = 0
        seen = set()
        for entry in journal:
            for call in entry.calls:
                ts = T0 + round(call.at * SECOND)
                stream, newest = max(stream, ts), max(newest, ts)
                again = call.seq is not None and (call.actor, call.client, call.seq) in seen
                seen.add((call.actor, call.client, call.seq))
                late = ts < newest - LATE_S * SECOND
                if again or late or call.probe or call.outcome in (Outcome.DENIED, Outcome.CANCELLED):
                    continue
                sums[call.tool, stream // SECOND][call.outcome is not Outcome.OK] += 1
            stream = max(stream, entry.advance or 0)
    found: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for (tool, second), counts in sorted(sums.items()):
        found[tool].append((second, counts.total(), counts[True]))
    return found


def within(rows: list[tuple[int, int, int]], now: int, window_us: int) -> tuple[int, int]:
    """Results and bad ones of the window that ends at a second."""
    width = window_us // WINDOW_CELLS
    mine = [
        (total, bad)
        for second, total, bad in rows
        if second < now and now * SECOND // width - second * SECOND // width < WINDOW_CELLS
    ]
    return sum(total for total, _ in mine), sum(bad for _, bad in mine)


def own_test(objective: str, tool: str, text: str = TEXT) -> ObjectiveTest:
    rule = next(each for each in ruleset(text).objectives if each.rule == objective)
    changed = [variant.test for (match,), variant in rule.changed if match.tool == tool]
    found = (changed or [rule.base.test])[0]
    assert isinstance(found, ObjectiveTest)
    return found


def reached(fleet: Fleet, tool: str) -> int:
    """The second before which the owner of a tool knows everything."""
    owner = fleet.shards[home_partition(Scope.TOOL, "default", None, tool, SHARDS)]
    return owner._second._watermark.second


def model(fleet: Fleet) -> list[Said]:
    found: list[Said] = []
    for tool, rows in results(fleet).items():
        for objective in ("success", "strict"):
            test, last = own_test(objective, tool), "unknown"
            share = test.shares[0][0] / test.shares[0][1]
            for now in range(T0 // SECOND, reached(fleet, tool) + 1, MINUTE):
                total, bad = within(rows, now, test.window_us)
                state = "unknown"
                if total >= test.minimum:
                    few, many = tails(np.array([bad]), np.array([total]), share, test.error)
                    state = "violated" if many[0] else "met" if few[0] else last
                if state != last:
                    found.append((objective, tool, state, now, total, bad))
                last = state
    return sorted(found)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_said_is_what_a_plain_model_says(kind: str) -> None:
    fleet = run(kind)
    assert not any(each.counters.panes_late or each.counters.panes_missing for each in fleet.shards)
    assert sorted(said([each for outputs in fleet.outputs for each in outputs])) == model(fleet)


def test_the_fleets_go_through_everything() -> None:
    """Otherwise the tests here would prove little."""
    states = {(each[0], each[2]) for kind in KINDS for each in model(run(kind))}
    assert states == {(rule, state) for rule in ("success", "strict") for state in ("met", "violated", "unknown")}
    assert run("obeying").trips(Scope.TOOL)
    assert run("obeying").made["probes"]
    sums = [each for each in run("heedless").sent if each.kind is PaneKind.SUMS and each.tool]
    assert any(each.results_bad > each.failures + 3 for each in sums), "nobody's failures were capped"
    assert any(each.results and not each.calls for each in run("measured").sent)


@pytest.mark.parametrize(
    ("aborts", "restores"), [(False, False), (True, False), (False, True)], ids=["cuts", "aborts", "restores"]
)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_journal_decides_everything(aborts: bool, restores: bool, seed: int) -> None:
    fleet = changing() if seed % 2 else run(KINDS[seed % 3])
    rng, number = random.Random(seed), seed // 6 % SHARDS
    outputs, panes, _ = replay(
        number, cut(fleet.journals[number], rng), rng, aborts=aborts, restores=restores, ruleset=fleet.ruleset
    )
    assert outputs == fleet.outputs[number]
    assert panes == fleet.panes[number]


def test_rules_that_change_begin_anew_where_they_must() -> None:
    """Counts go on over new levels; another window, or an objective that comes back, begins at nothing."""
    fleet = changing()
    found = said([each for outputs in fleet.outputs for each in outputs])
    rows, texts = results(fleet), {"levels": TEXT, "window": WIDER}
    begun = {"levels": 0, "window": 98.5, "again": 164.5}
    checked = Counter[str]()
    for objective, tool, _, second, total, bad in found:
        at = second - T0 // SECOND
        version = "levels" if at <= 98 else "window" if at <= 131 else "again"
        test = own_test(objective, tool, texts.get(version, TEXT))
        if version == "window" and objective != "strict":
            version = "levels"
        # Each shard hears of it at its own turn, within two seconds and the grace.
        low, high = (
            within(
                [row for row in rows[tool] if row[0] >= T0 // SECOND + begun[version] + slack], second, test.window_us
            )
            for slack in (5, -5)
        )
        if begun[version] == 0:
            low = high
        assert low[0] <= total <= high[0]
        assert low[1] <= bad <= high[1]
        checked[version] += 1
    assert set(checked) == set(begun)
    assert not [each for each in found if 131 + 5 < each[3] - T0 // SECOND <= 164]


@cache
def sleeping() -> Fleet:
    """One shard stands still now and then, for longer than the others wait for it."""
    fleet = fleet_of("measured")
    fleet.asleep = lambda number, now: number == 0 and now % 20 < 8 and now < 120
    fleet.run(150)
    return fleet


def test_what_comes_late_counts_once_in_its_own_second() -> None:
    """What was said counts nothing twice, and in the end nothing is missing."""
    fleet = sleeping()
    assert sum(each.counters.panes_late for each in fleet.shards) > 50
    assert not any(each.counters.panes_missing or each.counters.panes_repeated for each in fleet.shards)
    rows, short = results(fleet), 0
    for objective, tool, _, second, total, bad in said([each for outputs in fleet.outputs for each in outputs]):
        whole = within(rows[tool], second, own_test(objective, tool).window_us)
        assert total <= whole[0]
        assert bad <= whole[1]
        short += total < whole[0]
    assert short, "everything was told in time"
    checked = 0
    for shard in fleet.shards:
        objectives = shard._second._objectives
        for (objective, _, tool), count in objectives._counts.items():
            window_us, now = own_test(objective, tool).window_us, reached(fleet, tool)
            params = ObjectiveParams((1, 2), window_us)
            (bad,), (total,) = window(objectives._rings_at([count], now * SECOND, params), params)
            assert (total, bad) == within([row for row in rows[tool] if row[0] < now], now, window_us)
            checked += 1
    assert checked == 2 * len(rows)


@pytest.mark.parametrize("number", range(SHARDS))
def test_what_comes_late_follows_from_the_journal(number: int) -> None:
    fleet, rng = sleeping(), random.Random(number)
    entries = cut(fleet.journals[number], rng)
    outputs, panes, _ = replay(number, entries, rng, aborts=True, restores=True, ruleset=fleet.ruleset)
    assert (outputs, panes) == (fleet.outputs[number], fleet.panes[number])
