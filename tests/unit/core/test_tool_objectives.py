"""Success of tools over all actors, second by second, against plain lists; and what comes back from saved state."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from fuseboard_detectors.objectives import WINDOW_CELLS, tails
from fuseboard_schemas.records import Scope, SignalLevel
from fuseboard_streams.core.rulebook import Rulebook
from fuseboard_streams.core.settings import SECOND, CoreSettings
from fuseboard_streams.core.tool_objectives import ToolObjectives
from fuseboard_streams.rules.compile import compile_rules

TEXT = """version: 1
objectives:
  success: {metric: calls.ok, per: TOOL, target: ">80%", window: 12m, min: 40}
  strict: {metric: calls.ok, per: TOOL, target: ">95%", window: 4m, min: 60, confidence: 80%}
  actors: {metric: calls.ok, per: ACTOR, target: ">95%", window: 4m, min: 60}
overrides:
  - {match: {tool: pay}, set: {success: {window: 6m, target: ">70%"}}}
"""
START, MINUTE = 1_767_225_600, 60
Row = tuple[str, int, int, int]
"""Tool, second, calls and good ones."""
Said = tuple[str, str, str, int, int, int]


def book(text: str = TEXT) -> Rulebook:
    return Rulebook(CoreSettings(), compile_rules(text.encode(), "test").rules)


def subject(text: str = TEXT) -> ToolObjectives:
    return ToolObjectives(book(text))


def move(one: ToolObjectives, other: ToolObjectives) -> None:
    """Take everything over, as a state log would."""
    keys = [(key, each) for key in one.changed if (each := one.saved(key)) is not None]
    rings = [(key, each) for key in one.rolled if (each := one.saved_rings(key)) is not None]
    seconds = [(second, each) for second in one.touched if (each := one.saved_second(second)) is not None]
    kept, ringed, waiting = json.loads(json.dumps([keys, rings, seconds]))
    other.restore([(tuple(key), each) for key, each in kept], {tuple(key): each for key, each in ringed}, dict(waiting))


def seconds(seed: int) -> list[Row]:
    rng, second, rows = random.Random(seed), START, []
    for i in range(600):
        second += rng.choice((0, 1, 1, 4)) if rng.random() < 0.995 else 1_500
        calls = rng.randrange(7)
        bad = sum(rng.random() < (0.5 if i // 100 % 2 else 0.01) for _ in range(calls))
        rows.append((rng.choice(("pay", "refund")), second, calls, calls - bad))
    return rows


def run(objectives: ToolObjectives, rows: list[Row], until: int) -> list[Said]:
    found: list[Said] = []
    for tool, second, calls, ok in [*rows, ("", until, 0, 0)]:
        while (tick := objectives.next_tick) is not None and tick <= second * SECOND:
            for each in objectives.advance(tick):
                assert (each.target.scope, each.target.actor, each.time_us) == (Scope.TOOL, None, tick)
                state = each.facts.reason.split(":")[0]
                assert each.level is (SignalLevel.WARN if state == "violated" else SignalLevel.INFO)
                counts = each.facts.calls or 0, each.facts.failures or 0
                found.append((each.view.rule.rule, each.target.tool or "", state, tick // SECOND, *counts))
        if tool:
            objectives.fold("default", tool, second, calls, calls - ok)
    return found


def model(rows: list[Row], until: int) -> list[Said]:
    """Every minute: asking where nothing was counted since, or no cell is over, can find nothing new."""
    found: list[Said] = []
    settings = {
        ("success", "pay"): (360, 40, 0.3, 0.05), ("success", "refund"): (720, 40, 0.2, 0.05),
        ("strict", "pay"): (240, 60, 0.05, 0.2), ("strict", "refund"): (240, 60, 0.05, 0.2),
    }  # fmt: skip
    said = dict.fromkeys(settings, "unknown")
    for now in range(START, until + 1, MINUTE):
        for key, (window, least, share, error) in settings.items():
            width = window // WINDOW_CELLS
            mine = [
                row
                for row in rows
                if row[0] == key[1] and row[1] < now and now // width - row[1] // width < WINDOW_CELLS
            ]
            total, good = sum(row[2] for row in mine), sum(row[3] for row in mine)
            state = "unknown"
            if total >= least:
                few, many = tails(np.array([total - good]), np.array([total]), share, error)
                state = "violated" if many[0] else "met" if few[0] else said[key]
            if state != said[key]:
                said[key] = state
                found.append((*key, state, now, total, total - good))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_what_is_said_is_what_a_plain_model_says(seed: int) -> None:
    rows = seconds(seed)
    until = rows[-1][1] + 1_800
    found = run(subject(), rows, until)
    assert sorted(found) == sorted(model(rows, until))
    assert {each[2] for each in found} == {"met", "violated", "unknown"}


def test_what_was_saved_goes_on() -> None:
    rows = seconds(1)
    whole, until = run(subject(), rows, rows[-1][1] + 1_800), rows[-1][1] + 1_800
    first, second = subject(), subject()
    before = run(first, rows[:350], rows[349][1])
    move(first, second)
    assert before + run(second, rows[350:], until) == whole


def test_nothing_is_left_of_a_tool_that_nobody_calls() -> None:
    objectives, rows = subject(), seconds(2)
    run(objectives, rows, rows[-1][1] + 1_800)
    assert objectives.next_tick is None
    assert {objectives.saved(key) for key in objectives.changed} == {None}
    assert {objectives.saved_rings(key) for key in objectives.rolled} == {None}


def test_other_rules_begin_anew() -> None:
    objectives = subject()
    objectives.fold("default", "refund", START, 100, 0)
    wider = subject(TEXT.replace("12m", "24m"))
    move(objectives, wider)
    wider.rules_changed()
    assert {key[0] for key in wider.changed} == {"success"}
    assert {wider.saved(key) for key in wider.changed} == {None}
    wider.fold("default", "refund", START + 1, 30, 0)
    assert [each.view.rule.rule for each in wider.advance((START + MINUTE) * SECOND)] == ["strict"]


def test_levels_change_under_way_and_what_is_gone_leaves_nothing() -> None:
    objectives = subject()
    objectives.fold("default", "refund", START, 100, 10)
    objectives.take("default", "refund", START + 1, 100, 10)
    objectives.adopt(book(TEXT.replace(">80%", ">85%")))
    objectives.rules_changed()
    objectives.step(START + 1)
    said = objectives.advance((START + MINUTE) * SECOND)
    assert [(each.view.rule.rule, each.facts.calls) for each in said] == [("success", 200), ("strict", 200)]
    assert "expected less than 15%" in said[0].facts.reason
    objectives.take("default", "refund", START + 70, 1, 0)
    objectives.adopt(book("version: 1"))
    objectives.rules_changed()
    assert {objectives.saved(key) for key in objectives.changed} == {None}
    assert objectives.seconds(START + 100) == []
    assert objectives.saved_second(START + 70) is None
    assert objectives.advance((START + 1_000) * SECOND) == []


def test_a_second_waits_and_what_comes_late_counts_in_its_own() -> None:
    """Told by three shards, one of them after a minute: nothing is said before all is there, and nothing twice."""
    objectives = subject()
    for bad in (1, 2):
        objectives.take("default", "refund", START + 59, 50, bad)
    assert objectives.advance((START + MINUTE) * SECOND) == []
    assert objectives.seconds(START + MINUTE) == [START + 59]
    objectives.step(START + 59)
    objectives.step(START + 59)
    first = objectives.advance((START + MINUTE) * SECOND)
    assert {(each.facts.calls, each.facts.failures) for each in first} == {(100, 3)}
    objectives.fold("default", "refund", START + 10, 60, 57, START + MINUTE)
    assert objectives.next_tick == (START + 2 * MINUTE) * SECOND
    then = objectives.advance((START + 2 * MINUTE) * SECOND)
    assert {(each.view.rule.rule, each.facts.calls, each.facts.failures) for each in then} == {
        ("success", 160, 60), ("strict", 160, 60)
    }  # fmt: skip
    # The window of four minutes leaves the late ones behind before the others.
    strict = [each for each in objectives.advance((START + 5 * MINUTE) * SECOND) if each.view.rule.rule == "strict"]
    assert [(each.time_us // SECOND - START, each.facts.calls) for each in strict] == [(300, 0)]


def test_what_is_too_late_for_the_window_counts_in_none() -> None:
    objectives = subject()
    objectives.fold("default", "refund", START + 3_600, 100, 0)
    objectives.fold("default", "refund", START, 100, 100, START + 3_600)
    said = objectives.advance((START + 3_660) * SECOND)
    assert {(each.facts.calls, each.facts.failures) for each in said} == {(100, 0)}


def test_only_objectives_per_tool_are_followed() -> None:
    assert subject().wanted
    assert not subject(TEXT.replace("per: TOOL", "per: ACTOR_TOOL")).wanted
