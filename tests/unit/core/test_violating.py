"""How often actors are denied something, against one event at a time, whatever the cuts."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest

from fuseboard_detectors.arithmetic import log10
from fuseboard_detectors.failure import FailureParams, FailureState, count_failure, restart
from fuseboard_schemas.records import Scope
from fuseboard_streams.core.firsts import firsts_table
from fuseboard_streams.core.layout import EPOCH_S
from fuseboard_streams.core.ruleset import FailureTest, Match
from fuseboard_streams.core.settings import SECOND, CoreSettings
from fuseboard_streams.core.violating import Actions, Violating, violating_table
from tests.unit.core.rules_support import book_of, opened, rule

ACTORS = 3
SETTINGS = CoreSettings(forget_after_us=5_000 * SECOND)
STATED = FailureParams(known_null=0.1, warn=100.0, trip=1e4)
LEARNED = FailureParams(warn=200.0, trip=1e4, period=40, floor=0.01)
TESTS = {"noisy": STATED, "often": LEARNED}
RULES = (
    rule("noisy", "actions.violating", Scope.ACTOR, FailureTest(STATED)),
    rule(
        "often", "actions.violating", Scope.ACTOR, FailureTest(LEARNED), (Match(actor="agent-1"), FailureTest(STATED))
    ),
    rule("failing", "calls.failed", Scope.ACTOR, FailureTest(LEARNED)),
)
T0_S = 1_767_225_600
Found = tuple[int, str, str, bool, float, int, int]
"""Seconds, rule, actor, only a warning, evidence, violations, actions."""


@dataclass(frozen=True)
class Event:
    """An action, or a decision that denied one; times in seconds."""

    actor: int
    denied: bool
    trace: int
    began: int
    at: int
    decision: bool


def events(seed: int, n: int = 3_000) -> list[Event]:
    """Actors that violate in stretches, in traces that come again; one long rest in the middle."""
    rng = random.Random(seed)
    made, at = [], T0_S
    for i in range(n):
        at += rng.randrange(3) + (5_001 if i == n // 2 else 0)
        actor = rng.randrange(ACTORS)
        rate = 0.4 if (i // 200 + actor) % 4 == 0 else 0.03
        denied = rng.random() < rate
        trace = 0 if rng.random() < 0.1 else rng.randrange(max(i // 4, 1), i + 3)
        made.append(Event(actor, denied, trace, at - rng.randrange(20), at, denied and rng.random() < 0.3))
    return made


def subject() -> tuple[Violating, Counter[int]]:
    references: Counter[int] = Counter()

    def refer(rows: np.ndarray, change: int) -> None:
        references.update(dict.fromkeys(rows.tolist(), change))

    table, firsts = opened(violating_table(SETTINGS)), opened(firsts_table("denied", SETTINGS))
    return Violating(table, firsts, book_of(*RULES), SETTINGS, names, refer), references


def names(row: int) -> tuple[str, str, str]:
    return "default", f"agent-{row}", ""


def fold(violating: Violating, part: list[Event]) -> list[Found]:
    at = np.array([event.at for event in part], dtype=np.int64)
    actions = Actions(
        np.arange(len(part)),
        np.array([event.actor for event in part], dtype=np.int64),
        np.array([event.denied for event in part], dtype=np.bool_),
        np.array([event.trace if event.denied else 0 for event in part], dtype=np.uint64),
        at * SECOND,
        np.array([event.began for event in part], dtype=np.int64) * SECOND,
        (at - EPOCH_S).astype(np.int32),
        at * SECOND,
    )
    return [
        (
            f.time_us // SECOND, f.view.rule.rule, f.target.actor or "", f.warning, f.facts.log10 or 0.0,
            f.facts.failures or 0, f.facts.calls or 0,
        )
        for f in violating.fold(actions)
    ]  # fmt: skip


def model(made: list[Event]) -> list[Found]:
    found: list[Found] = []
    state: dict[tuple[str, int], FailureState] = {}
    last: dict[tuple[str, int], int] = {}
    since: dict[tuple[str, int], int] = {}
    seen: set[tuple[str, int, int]] = set()
    for event in made:
        for name, own in TESTS.items():
            key = name, event.actor
            params = STATED if event.actor == 1 else own
            if key not in state or event.at - last[key] > 5_000:
                state[key], since[key] = FailureState.fresh(1, params), 0
            last[key] = event.at
            trace = (*key, event.trace)
            if event.denied and event.trace:
                if trace in seen:
                    continue
                seen.add(trace)
            if event.began <= since[key]:
                continue
            now = state[key]
            if not event.denied:
                now.successes += 1
                continue
            step = count_failure(now, np.array([event.at * SECOND]), params)
            if step.warned[0] or step.tripped[0]:
                evidence = round(float(log10(step.mean)[0]), 6)
                counts = int(now.run_failures[0]), int(now.run_calls[0])
                found.append((event.at, name, f"agent-{event.actor}", not step.tripped[0], evidence, *counts))
            if step.tripped[0]:
                restart(now)
                since[key] = event.at
    return found


@pytest.mark.parametrize("seed", range(4))
def test_what_is_found_is_what_a_plain_model_finds_whatever_the_cuts(seed: int) -> None:
    made = events(seed)
    expected = sorted(model(made))
    assert {(name, warning) for _, name, _, warning, *_ in expected} == {
        ("noisy", True), ("noisy", False), ("often", True), ("often", False),
    }  # fmt: skip
    rng = random.Random(seed)
    for chance in (0.0, 0.02, 1.0):
        violating, found = subject()[0], []
        part: list[Event] = []
        for i, event in enumerate(made):
            # Calls and decisions come in runs of their own, and none spans the rest in the middle.
            if part and (part[-1].decision != event.decision or rng.random() < chance or i == len(made) // 2):
                found += fold(violating, part)
                part = []
            part.append(event)
        found += fold(violating, part)
        assert sorted(found) == expected


def test_a_stuck_session_is_one_violation() -> None:
    violating, references = subject()
    stuck = [Event(0, denied=True, trace=7, began=T0_S + i, at=T0_S + i, decision=False) for i in range(500)]
    assert fold(violating, stuck) == []
    assert references == {0: 2}
    several = [Event(0, denied=True, trace=8 + i, began=T0_S + 500, at=T0_S + 501, decision=False) for i in range(8)]
    assert [warning for _, name, _, warning, *_ in fold(violating, several) if name == "noisy"] == [True, False]


def test_rules_about_failures_are_not_its_own() -> None:
    violating, _ = subject()
    fold(violating, [Event(2, denied=False, trace=0, began=T0_S, at=T0_S, decision=False)])
    assert violating._table.size == 2
