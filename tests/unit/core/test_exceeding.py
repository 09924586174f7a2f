"""Values that exceed their reference, against one call at a time, whatever the cuts; and the way through a shard."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest

from fuseboard_detectors.arithmetic import log10
from fuseboard_detectors.exceed import ReferenceState, observe
from fuseboard_detectors.failure import FailureParams, FailureState, count_failure, restart
from fuseboard_schemas.records import Scope
from fuseboard_streams.core.exceeding import Exceeding, Measured, histograms_table, references_table
from fuseboard_streams.core.firsts import firsts_table
from fuseboard_streams.core.layout import EPOCH_S
from fuseboard_streams.core.ruleset import ExceedTest, Match
from fuseboard_streams.core.settings import SECOND, CoreSettings
from tests.unit.core.rules_support import book_of, opened, rule

ACTORS, TOOLS = 2, 2
FORGOTTEN_S = 40_000
SETTINGS = CoreSettings(forget_after_us=FORGOTTEN_S * SECOND)
TRIP = 1e4
PARAMS = FailureParams(warn=200.0, trip=TRIP)
SLOW = ExceedTest(0.9, 100, PARAMS)
SLOW_OF_AGENT_1 = ExceedTest(0.8, 150, PARAMS)
DEAR = ExceedTest(0.9, 120, PARAMS)
RULES = (
    rule("slow", "calls.latency", Scope.ACTOR_TOOL, SLOW, (Match(actor="agent-1"), SLOW_OF_AGENT_1)),
    rule("dear", "calls.cost_usd", Scope.ACTOR_TOOL, DEAR),
)
T0_S = 1_767_225_600


@dataclass(frozen=True)
class Made:
    """A call as the watcher is given it; times in seconds."""

    tool: int
    trace: int
    latency: int
    cost: int
    at: int


Found = tuple[int, str, str, str, bool, float, int, int]
"""Seconds, rule, actor, tool, only a warning, evidence, failures, calls."""


def calls(seed: int, n: int = 4_000) -> list[Made]:
    """Calls of traces that come again, with slow and dear stretches, values that are not known and one long rest."""
    rng = random.Random(seed)
    made, at, trace = [], T0_S, 1
    for i in range(n):
        at += rng.randrange(1, 4) + (FORGOTTEN_S + 1 if i == n // 2 else 0)
        trace += rng.random() < 0.8
        tool = rng.randrange(ACTORS * TOOLS)
        latency = int(rng.lognormvariate(12, 0.5)) * (2 if (i // 300) % 3 == 2 and tool != 3 else 1)
        cost = int(rng.lognormvariate(7, 0.5)) * (3 if (i // 250) % 4 == 3 else 1)
        made.append(
            Made(
                tool,
                0 if rng.random() < 0.1 else max(trace - rng.randrange(3), 1),
                -1000 if rng.random() < 0.1 else latency,
                -1 if rng.random() < 0.3 else cost,
                at,
            )
        )
    return made


@dataclass
class Subject:
    exceeding: Exceeding
    references: Counter[int] = field(default_factory=Counter)


def subject() -> Subject:
    references: Counter[int] = Counter()

    def refer(rows: np.ndarray, change: int) -> None:
        references.update(dict.fromkeys(rows.tolist(), change))

    tables = references_table(SETTINGS), histograms_table(SETTINGS), firsts_table("observed", SETTINGS)
    for table in tables:
        opened(table)
    book = book_of(*RULES)
    return Subject(Exceeding(*tables, book, SETTINGS, names, refer), references)


def names(row: int) -> tuple[str, str, str]:
    actor, tool = divmod(row, TOOLS)
    return "default", f"agent-{actor}", f"tool-{tool}"


def fold(exceeding: Exceeding, part: list[Made]) -> list[Found]:
    at = np.array([call.at for call in part], dtype=np.int64)
    latency = np.array([call.latency for call in part], dtype=np.int64)
    measured = Measured(
        np.arange(len(part)),
        np.array([call.tool for call in part], dtype=np.int64),
        np.array([call.trace for call in part], dtype=np.uint64),
        latency,
        np.array([call.cost for call in part], dtype=np.int64),
        at * SECOND,
        at * SECOND - np.maximum(latency, 0),
        (at - EPOCH_S).astype(np.int32),
        at * SECOND,
    )
    found = exceeding.fold(measured)
    assert all(part[f.position].at * SECOND == f.time_us and f.decided == f.position for f in found)
    return [
        (
            f.time_us // SECOND, f.view.rule.rule, f.target.actor or "", f.target.tool or "", f.warning,
            f.facts.log10 or 0.0, f.facts.failures or 0, f.facts.calls or 0,
        )
        for f in found
    ]  # fmt: skip


class Plain:
    """One rule on one tool, one call at a time."""

    def __init__(self, test: ExceedTest, exceeding: Exceeding, number: int) -> None:
        self.params = exceeding._params[number]
        self.detector = replace(test.params, known_null=test.params.floor)
        self.last: int | None = None
        self.begin()

    def begin(self) -> None:
        self.reference = ReferenceState.fresh(1)
        self.state = FailureState.fresh(1, self.detector)
        self.since = 0

    def rest(self, at: int) -> None:
        if self.last is not None and at - self.last > FORGOTTEN_S:
            self.begin()
        self.last = at

    def take(self, value: int, at: int, began: int) -> tuple[bool, float, int, int] | None:
        """An observation: whether it is only a warning, the evidence, failures and calls; None for nothing."""
        what = observe(self.reference, np.zeros(1, np.intp), np.array([value]), self.params)
        if what.frozen[0]:
            self.state.p0 = self.reference.p0.copy()
        if not what.judged[0] or began <= self.since:
            return None
        if not what.reached[0]:
            self.state.successes += 1
            return None
        step = count_failure(self.state, np.array([at * SECOND]), self.detector)
        if not (step.warned[0] or step.tripped[0]):
            return None
        evidence = round(float(log10(step.mean)[0]), 6)
        found = not step.tripped[0], evidence, int(self.state.run_failures[0]), int(self.state.run_calls[0])
        if step.tripped[0]:
            restart(self.state)
            self.since = at * SECOND
        return found


def model(made: list[Made]) -> list[Found]:
    numbered = {("slow", "agent-0"): (SLOW, 0), ("slow", "agent-1"): (SLOW_OF_AGENT_1, 1)}
    exceeding = subject().exceeding
    keys: dict[tuple[str, int], Plain] = {}
    seen: set[tuple[str, int, int]] = set()
    found: list[Found] = []
    for call in made:
        _, actor, tool = names(call.tool)
        for name, value in (("slow", call.latency), ("dear", call.cost)):
            if value < 0:
                continue
            test, number = numbered.get((name, actor), (DEAR, 2))
            plain = keys.setdefault((name, call.tool), Plain(test, exceeding, number))
            plain.rest(call.at)
            if call.trace and (name, call.tool, call.trace) in seen:
                continue
            seen.add((name, call.tool, call.trace))
            hit = plain.take(value, call.at, call.at * SECOND - max(call.latency, 0))
            if hit is not None:
                found.append((call.at, name, actor, tool, *hit))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_what_is_found_is_what_a_plain_model_finds_whatever_the_cuts(seed: int) -> None:
    made = calls(seed)
    expected = sorted(model(made))
    assert {(rule, warning) for _, rule, _, _, warning, *_ in expected} == {
        ("slow", True), ("slow", False), ("dear", True), ("dear", False),
    }  # fmt: skip
    rng = random.Random(seed)
    for pieces in (0, 25, 900):
        cuts = [0, *sorted(rng.sample(range(1, len(made)), pieces)), len(made)]
        # The watcher is told of rests between its runs only: a piece spans less time than anybody is forgotten in.
        cuts = sorted({*cuts, len(made) // 2})
        exceeding = subject().exceeding
        assert sorted(each for a, b in pairwise(cuts) for each in fold(exceeding, made[a:b])) == expected


def test_a_trace_is_observed_once() -> None:
    """Ten thousand slow calls of the traces that made the reference say nothing."""
    watched = subject()
    known = [Made(0, 1 + i, 50_000 + 100 * (i % 10), -1, T0_S + i) for i in range(150)]
    assert fold(watched.exceeding, known) == []
    again = [Made(0, 1 + i % 150, 900_000, -1, T0_S + 150 + i) for i in range(10_000)]
    assert fold(watched.exceeding, again) == []
    new = [Made(0, 1_000 + i, 900_000, -1, T0_S + 20_000 + i) for i in range(5)]
    assert [warning for *_, warning, _, _, _ in fold(watched.exceeding, new)] == [True, False]


def test_what_began_before_a_trip_belongs_to_it() -> None:
    watched = subject()
    fold(watched.exceeding, [Made(0, 1 + i, 50_000, -1, T0_S + i) for i in range(100)])
    slow = [Made(0, 1_000 + i, 10_000_000, -1, T0_S + 200) for i in range(50)]
    assert len([each for each in fold(watched.exceeding, slow) if not each[4]]) == 1
    late = [Made(0, 2_000 + i, 10_000_000, -1, T0_S + 209) for i in range(50)]
    assert fold(watched.exceeding, late) == []
    assert fold(watched.exceeding, [replace(each, trace=each.trace + 100, at=T0_S + 211) for each in late]) != []


def test_histograms_are_freed_with_the_last_observation_and_rows_with_their_rule() -> None:
    watched = subject()
    histograms = watched.exceeding._histograms
    for tool in range(4):
        fold(watched.exceeding, [Made(tool, 1 + i, 50_000, -1, T0_S + i) for i in range(99)])
    assert histograms.size == 4 * 16
    fold(watched.exceeding, [Made(0, 200, 50_000, 7, T0_S + 100)])
    assert histograms.size == 4 * 16, "one reference is made, another of cost is begun"
    assert watched.references == {0: 2, 1: 1, 2: 1, 3: 1}
    for table in (watched.exceeding._table, histograms, watched.exceeding._firsts._table):
        table.commit()
        table.begin()
    without = Exceeding(
        watched.exceeding._table, histograms, watched.exceeding._firsts._table, book_of(RULES[1]), SETTINGS, names,
        lambda rows, change: watched.references.update(dict.fromkeys(rows.tolist(), change)),
    )  # fmt: skip
    without.forget()
    assert (without._table.size, histograms.size) == (1, 16)
    assert +watched.references == {0: 1}
    assert without._firsts._table.size > 0
    nobody = Exceeding(
        without._table, histograms, without._firsts._table, book_of(), SETTINGS, names,
        lambda rows, change: watched.references.update(dict.fromkeys(rows.tolist(), change)),
    )  # fmt: skip
    nobody.forget()
    assert not nobody.wanted
    assert without._table.size == histograms.size == without._firsts._table.size == 0
    assert +watched.references == {}


def test_no_room_for_a_histogram_means_no_reference() -> None:
    watched = subject()
    watched.exceeding._histograms.limit = 16
    fold(watched.exceeding, [Made(i % 2, 1 + i, 50_000, -1, T0_S + i) for i in range(10)])
    assert watched.exceeding.unlearned == 5
    assert watched.exceeding._table["seen"][:2].tolist() == [5, 0]
