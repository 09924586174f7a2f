"""The parts of a rules file: what the example becomes, and what is taken where nothing is said."""

from __future__ import annotations

from fractions import Fraction

from fuseboard_streams.rules.load import load
from fuseboard_streams.rules.model import EDetector, RulesFile
from fuseboard_streams.rules.quantities import BurnWindow, Target
from tests.unit.rules.example import EXAMPLE

_MINUTE = 60_000_000


def file(text: str = EXAMPLE) -> RulesFile:
    return load(text.encode(), "f.yaml")[0]


def test_objectives_of_the_example() -> None:
    objectives = file().objectives
    assert list(objectives) == [
        "trace-coverage", "tool-success", "policy-violations", "eval-regression", "task-cost",
    ]  # fmt: skip
    coverage = objectives["trace-coverage"]
    assert (coverage.metric, coverage.per, coverage.min) == ("sessions.traced", "ACTOR", 100)
    assert coverage.target == Target(">", Fraction(95, 100), percent=True)
    assert (coverage.window, coverage.grace) == (60 * _MINUTE, 10 * _MINUTE)
    assert objectives["eval-regression"].target == Target(">=", Fraction(-1, 100), percent=True)
    assert objectives["eval-regression"].suites == ("key/*",)
    assert objectives["task-cost"].target == {
        "p50": Target("<", Fraction(2, 100), percent=False),
        "p95": Target("<", Fraction(1, 10), percent=False),
    }


def test_breakers_of_the_example() -> None:
    failing, runaway = file().breakers.values()
    assert failing.scope == ("ACTOR_TOOL", "TOOL")
    assert failing.test == EDetector(kind="e-detector", trip=1e6)
    assert failing.test.baseline.floor == Fraction(5, 1000)  # type: ignore[union-attr]
    assert failing.breadth is not None
    assert (failing.breadth.actors, failing.breadth.share) == (3, Fraction(1, 5))
    assert failing.recovery is not None
    assert (failing.recovery.cooldown, failing.recovery.max_cooldown) == (_MINUTE // 2, 5 * _MINUTE)
    assert runaway.scope == ("ACTOR",)
    assert runaway.test.kind == "burn"
    assert (runaway.test.budget.usd, runaway.test.budget.per) == (5_000_000, 24 * 60 * _MINUTE)
    assert runaway.test.windows[1] == BurnWindow(Fraction(1, 10), 30 * _MINUTE, 3 * _MINUTE)
    assert runaway.ladder is not None
    assert [(rung.action, rung.after, rung.severity) for rung in runaway.ladder] == [
        ("FAST_MODEL_ONLY", None, None),
        ("HALT", 10 * _MINUTE, "critical"),
    ]


def test_the_rest_of_the_example() -> None:
    found = file()
    assert (found.defaults.mode, found.defaults.severity, found.defaults.runbook) == (
        "shadow", "ticket", "docs/runbooks/{id}.md",
    )  # fmt: skip
    assert found.false_trips is not None
    assert found.false_trips.per_day == 1.0
    assert (found.blast_radius.tenant_actors, found.blast_radius.window) == (Fraction(1, 10), _MINUTE)
    (override,) = found.overrides
    assert (override.match.tenant, override.match.actor, override.match.tool) == ("*", "support_*", "book_reservation")
    assert override.set == {"tool-success": {"target": ">60%"}}


def test_what_is_taken_where_nothing_is_said() -> None:
    least = file("version: 1")
    assert least == RulesFile(version=1)
    assert (least.objectives, least.breakers, least.overrides, least.false_trips) == ({}, {}, (), None)
    assert (least.defaults.mode, least.blast_radius.tenant_actors) == ("shadow", Fraction(1, 10))
    rule = file("version: 1\nbreakers: {a: {metric: calls.failed, scope: ACTOR, test: {kind: e-detector}}}").breakers[
        "a"
    ]
    assert isinstance(rule.test, EDetector)
    assert (rule.test.trip, rule.test.warn, rule.test.baseline.known) == (None, 1e4, None)
    assert (rule.action, rule.ladder, rule.mode, rule.recovery, rule.runbook) == (None, None, None, None, None)


def test_numbers_are_those_that_are_written() -> None:
    text = "version: 1\nbreakers: {a: {metric: spend.usd, scope: ACTOR, test: {kind: cap, usd: 0.10, per: day}}}"
    test = file(text).breakers["a"].test
    assert test.kind == "cap"
    assert test.usd == 100_000
    assert file(text.replace("0.10", "0.000001")).breakers["a"].test.usd == 1  # type: ignore[union-attr]
