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


def subject(text: str = TEXT) -> ToolObjectives:
    return ToolObjectives(Rulebook(CoreSettings(), compile_rules(text.encode(), "test").rules))


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
            objectives.fold("default", tool, second, calls, ok)
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
    saved = {key: first.saved(key) for key in first.changed}
    kept = json.loads(json.dumps([[list(key), each] for key, each in saved.items()]))
    second.restore({tuple(key): each for key, each in kept if each is not None})
    assert before + run(second, rows[350:], until) == whole


def test_nothing_is_left_of_a_tool_that_nobody_calls() -> None:
    objectives, rows = subject(), seconds(2)
    run(objectives, rows, rows[-1][1] + 1_800)
    assert objectives.next_tick is None
    assert {objectives.saved(key) for key in objectives.changed} == {None}


def test_other_rules_begin_anew() -> None:
    objectives = subject()
    objectives.fold("default", "refund", START, 100, 100)
    saved = {key: each for key in objectives.changed if (each := objectives.saved(key)) is not None}
    wider = subject(TEXT.replace("12m", "24m"))
    wider.restore(saved)
    wider.fold("default", "refund", START + 1, 30, 30)
    tick = wider.next_tick
    assert tick is not None
    assert [each.view.rule.rule for each in wider.advance(tick)] == ["strict"]


def test_only_objectives_per_tool_are_followed() -> None:
    assert subject().wanted
    assert not subject(TEXT.replace("per: TOOL", "per: ACTOR_TOOL")).wanted
