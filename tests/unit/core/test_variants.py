"""Which variant a target has, and which changes of a rule let its state go on."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, get_args

import pytest

from fuseboard_detectors.burn import BurnPair
from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.records import Action, Mode, Scope, Severity
from fuseboard_streams.core import ruleset
from fuseboard_streams.core.ruleset import Match, Response, Rule, Rung, Variant
from fuseboard_streams.core.variants import LEVELS, matches, state_id

_PAIR = BurnPair((1, 20), 300_000_000, 30_000_000)
TESTS: tuple[ruleset.Test, ...] = (
    ruleset.FailureTest(FailureParams()),
    ruleset.DistinctTest(2, 100, 5),
    ruleset.BurnTest(5, (_PAIR,)),
    ruleset.CapTest(5, daily=True),
    ruleset.RunsTest(8, 5),
    ruleset.ExceedTest(0.95, 1000, FailureParams()),
    ruleset.FirstUseTest(200),
    ruleset.SilenceTest(5, 5),
    ruleset.LostTest((1, 100), 5, 100),
    ruleset.UngatedTest(5),
    ruleset.SignalTest("*", trip_only=True),
    ruleset.ObjectiveTest(((1, 20), (1, 2)), 3_600_000_000, 100, (5, 6)),
)


def rule(test: ruleset.Test, **changes: Any) -> Rule:
    base = Variant(test, Response("x", (Rung(Action.HALT),)))
    return replace(Rule("x", "calls.failed", Scope.ACTOR, Match(), base), **changes)


def test_every_kind_of_test_says_what_its_levels_are() -> None:
    assert set(LEVELS) == set(get_args(ruleset.Test)) == {type(test) for test in TESTS}
    for test in TESTS:
        known = {field.name for field in fields(test)} | {f"params.{field.name}" for field in fields(FailureParams)}
        assert LEVELS[type(test)] <= known


@pytest.mark.parametrize(
    ("test", "changes", "kept"),
    [
        (TESTS[0], {"params": FailureParams(trip=1e7)}, True),
        (TESTS[0], {"params": FailureParams(warn=1e5)}, True),
        (TESTS[0], {"params": FailureParams(floor=0.01)}, False),
        (TESTS[0], {"params": FailureParams(cap=2)}, False),
        (TESTS[0], {"params": FailureParams(known_null=0.01)}, False),
        (TESTS[1], {"traces": 3}, True),
        (TESTS[1], {"of_last": 50}, False),
        (TESTS[1], {"severities": frozenset({Severity.CRITICAL})}, False),
        (TESTS[2], {"budget_micro_usd": 7, "pairs": (_PAIR, _PAIR)}, True),
        (TESTS[3], {"micro_usd": 7}, True),
        (TESTS[3], {"daily": False}, False),
        (TESTS[4], {"failures": 9, "identical": 9}, True),
        (TESTS[4], {"polling": ("wait",)}, False),
        (TESTS[5], {"params": FailureParams(trip=1e7)}, True),
        (TESTS[5], {"quantile": 0.9}, False),
        (TESTS[6], {"after": 1}, True),
        (TESTS[7], {"requests": 1, "lasting_us": 1}, True),
        (TESTS[8], {"share": (1, 50), "minimum": 1}, True),
        (TESTS[8], {"within_us": 1}, False),
        (TESTS[9], {"after_us": 1}, True),
        (TESTS[10], {"trip_only": False}, True),
        (TESTS[10], {"source": "a"}, False),
        (TESTS[11], {"shares": ((1, 10), (1, 2)), "minimum": 5, "error": 0.1}, True),
        (TESTS[11], {"window_us": 7_200_000_000}, False),
        (TESTS[11], {"least": (5, 7)}, False),
    ],
)
def test_levels_may_change_and_the_rest_starts_cold(test: ruleset.Test, changes: dict[str, Any], kept: bool) -> None:
    changed = replace(test, **changes)
    assert changed != test
    assert (state_id(rule(test), test) == state_id(rule(test), changed)) is kept


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": "y"},
        {"metric": "calls.ok"},
        {"scope": Scope.TOOL},
        {"match": Match(tenant="t")},
        {"match": Match(tool="t")},
    ],
)
def test_another_rule_starts_cold(changes: dict[str, Any]) -> None:
    assert state_id(rule(TESTS[0], **changes), TESTS[0]) != state_id(rule(TESTS[0]), TESTS[0])


def test_what_follows_may_change() -> None:
    other = Variant(TESTS[0], Response("x", (Rung(Action.READ_ONLY, Severity.PAGE),), Mode.WARN, runbook="r"))
    assert state_id(rule(TESTS[0], base=other), TESTS[0]) == state_id(rule(TESTS[0]), TESTS[0])


def test_the_name_is_the_same_everywhere() -> None:
    test = replace(TESTS[1], severities=frozenset(Severity))
    assert state_id(rule(test), test) == "ffba26c1beb93377"


@pytest.mark.parametrize(
    ("match", "target", "fits"),
    [
        (Match(), ("t", None, None), True),
        (Match(actor="*"), ("t", None, "x"), True),
        (Match(actor="?*"), ("t", None, "x"), False),
        (Match(tool="x"), ("t", "a", None), False),
        (Match("t", "a?", "x*"), ("t", "ab", "xyz"), True),
        (Match("t", "a?", "x*"), ("T", "ab", "xyz"), False),
    ],
)
def test_matching(match: Match, target: tuple[str, str | None, str | None], fits: bool) -> None:
    assert matches(match, *target) is fits
