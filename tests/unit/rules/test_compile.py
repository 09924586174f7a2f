"""From a file to what the core runs on: tests, responses, overrides, versions; and the file that is packaged."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from fuseboard_detectors.burn import BurnPair
from fuseboard_detectors.failure import FailureParams, initial_null
from fuseboard_schemas.records import Action, Mode, Recovery, Scope, Severity
from fuseboard_streams.core.breaker_params import BreakerParams
from fuseboard_streams.core.rulebook import needs_of, unfollowed
from fuseboard_streams.core.ruleset import (
    BlastRadius,
    Breadth,
    BurnTest,
    CapTest,
    DistinctTest,
    ExceedTest,
    FailureTest,
    FirstUseTest,
    LostTest,
    Match,
    ObjectiveTest,
    RecoveryPlan,
    Rule,
    RuleSet,
    Rung,
    RunsTest,
    SignalTest,
    SilenceTest,
    UngatedTest,
)
from fuseboard_streams.core.settings import CoreSettings
from fuseboard_streams.core.variants import variant_number, variant_of
from fuseboard_streams.rules.catalogue import BREAKER_METRICS, OBJECTIVE_METRICS
from fuseboard_streams.rules.compile import PACKAGED, compile_rules, version_of
from fuseboard_streams.rules.document import RulesError
from tests.unit.rules.example import EXAMPLE
from tests.unit.rules.files import breaker, failing

_SECOND, _MINUTE = 1_000_000, 60_000_000


def compiled(text: str) -> RuleSet:
    return compile_rules(text.encode(), "f.yaml").rules


def only(text: str) -> Rule:
    (rule,) = compiled(text).rules
    return rule


# --- the packaged file


def packaged() -> dict[tuple[str, Scope], Rule]:
    made = compile_rules(PACKAGED.read_bytes(), PACKAGED.name)
    assert made.warnings == ()
    return {(rule.rule, rule.scope): rule for rule in made.rules.rules}


@pytest.mark.parametrize(
    ("rule", "scope", "action"),
    [
        ("tool-failing", Scope.ACTOR_TOOL, Action.DISABLE_TOOL),
        ("actor-failing", Scope.ACTOR, Action.READ_ONLY),
    ],
)
def test_failures_are_tested_as_the_settings_have_it(rule: str, scope: Scope, action: Action) -> None:
    found, settings = packaged()[rule, scope], CoreSettings()
    assert found.base.test == FailureTest(settings.failure)
    assert found.match.everything
    assert found.changed == ()
    response, params = found.base.response, BreakerParams()
    assert (response.mode, response.ladder) == (Mode.ENFORCE, (Rung(action, Severity.TICKET),))
    assert response.recovery == RecoveryPlan(
        by=Recovery.PROBE,
        cooldown_us=params.base_cooldown_us,
        max_cooldown_us=params.max_cooldown_us,
        probes=params.probes,
    )
    assert response.runbook == settings.runbook
    assert settings.rule == "tool-failing"


def test_other_settings_of_the_detector_are_taken_over() -> None:
    base = replace(FailureParams(), prior_alpha=2.0, effective=300)
    rules = compile_rules(PACKAGED.read_bytes(), "f", base).rules.rules
    assert rules[0].base.test == FailureTest(base)


def test_a_tool_of_all_actors_needs_three_of_them_and_a_fifth() -> None:
    rules = packaged()
    assert rules["tool-failing", Scope.TOOL].breadth == Breadth(3, (1, 5), 3)
    assert rules["tool-failing", Scope.ACTOR_TOOL].breadth is None


def test_the_packaged_file_has_every_metric_once_at_least() -> None:
    metrics = {rule.metric for rule in packaged().values()}
    assert set(BREAKER_METRICS) - metrics == {"calls.cost_usd"}
    assert any(metric.startswith("signals.") for metric in metrics)
    objectives = compile_rules(PACKAGED.read_bytes(), "f").file.objectives
    assert {each.metric for each in objectives.values()} == set(OBJECTIVE_METRICS)


def test_what_no_shard_follows_yet_is_named() -> None:
    assert unfollowed(compile_rules(PACKAGED.read_bytes(), "packaged").rules) == []


def test_which_packaged_rules_are_enforced() -> None:
    modes = {name: rule.base.response.mode for (name, _), rule in packaged().items()}
    assert {name for name, mode in modes.items() if mode is Mode.ENFORCE} == {
        "tool-failing",
        "actor-failing",
        "policy-critical",
        "policy-violating",
        "session-looping",
    }
    assert {name for name, mode in modes.items() if mode is Mode.WARN} == {
        "policy-suspect",
        "cost-runaway",
        "tool-first-use",
        "actor-silent",
        "events-lost",
        "gate-bypassed",
    }


def test_the_first_critical_denial_waits_for_a_person() -> None:
    response = packaged()["policy-critical", Scope.ACTOR].base.response
    assert response.recovery.by is Recovery.PERSON
    assert response.ladder == (Rung(Action.READ_ONLY, Severity.CRITICAL),)


@pytest.mark.parametrize(
    ("share", "guarded"), [("100%", False), ("1.0", False), ("99.999999%", True), ("10%", True), ("0%", True)]
)
def test_a_radius_of_everybody_is_no_guard(share: str, guarded: bool) -> None:
    radius = compiled(f"version: 1\nblast_radius: {{tenant_actors: {share}, at_least: 3, window: 5m}}\n").blast_radius
    assert (radius is not None) == guarded
    assert radius is None or (radius.at_least, radius.window_us) == (3, 5 * _MINUTE)


# --- tests and responses


@pytest.mark.parametrize(
    ("metric", "scope", "test", "expected"),
    [
        (
            "calls.failed",
            "ACTOR",
            "{kind: e-detector, baseline: {known: 2%, quantile: 95%}, max_failures_per_trace: 2, warn: 500, trip: 1e9}",
            FailureTest(replace(FailureParams(), known_null=0.02, quantile=0.95, cap=2, warn=500.0, trip=1e9)),
        ),
        (
            "actions.violating",
            "ACTOR",
            "{kind: distinct, traces: 2, of_last: 50, within: 1h, severities: [page, critical]}",
            DistinctTest(2, 50, 60 * _MINUTE, frozenset({Severity.PAGE, Severity.CRITICAL})),
        ),
        (
            "spend.usd",
            "ACTOR",
            "{kind: burn, budget: {usd: 0.50}, windows: [5%/5m/30s]}",
            BurnTest(500_000, (BurnPair((1, 20), 5 * _MINUTE, 30 * _SECOND),)),
        ),
        ("spend.usd", "ACTOR", "{kind: cap, usd: 2, per: event}", CapTest(2_000_000, daily=False)),
        ("spend.usd", "ACTOR", "{kind: cap, usd: 2, per: day}", CapTest(2_000_000, daily=True)),
        (
            "calls.repeated",
            "SESSION",
            "{kind: runs, failures: 9, identical: 4, polling: ['wait_*']}",
            RunsTest(9, 4, ("wait_*",)),
        ),
        ("tools.first_use", "ACTOR_TOOL", "{kind: first-use, after: 7}", FirstUseTest(7)),
        ("events.silent", "ACTOR", "{kind: silence, requests: 2, lasting: 1m}", SilenceTest(2, _MINUTE)),
        ("events.lost", "ACTOR", "{kind: lost, share: 2%, within: 5m, min: 9}", LostTest((1, 50), 5 * _MINUTE, 9)),
        ("calls.ungated", "ACTOR", "{kind: ungated, after: 3s}", UngatedTest(3 * _SECOND)),
        (
            "signals.a",
            "TENANT",
            "{kind: signal, source: 'judge-*', level: warn}",
            SignalTest("judge-*", trip_only=False),
        ),
    ],
)
def test_every_kind_of_test(metric: str, scope: str, test: str, expected: object) -> None:
    rule = only(breaker(metric, scope, test))
    assert rule.base.test == expected
    assert (rule.rule, rule.metric, rule.scope) == ("x", metric, Scope(scope))


def test_what_exceeds_a_quantile_has_the_null_of_a_full_reference() -> None:
    test = only(breaker("calls.latency", "ACTOR_TOOL", "{kind: exceed, quantile: 90%, reference: 500}")).base.test
    assert isinstance(test, ExceedTest)
    assert (test.quantile, test.reference, test.params.cap, test.params.trip) == (0.9, 500, 1, 1e6)
    # 50 of 500 reached it: the 99% quantile of Beta(50.5, 450.5).
    assert initial_null(test.params) == pytest.approx(0.1343, abs=0.0005)
    packaged = next(
        rule.base.test for rule in compile_rules(PACKAGED.read_bytes(), "p").rules.rules if rule.rule == "tool-slow"
    )
    assert isinstance(packaged, ExceedTest)
    assert initial_null(packaged.params) == pytest.approx(0.068, abs=0.0005)


def test_a_level_that_is_named_wins_over_false_trips_which_need_data_to_mean_anything() -> None:
    budget = "false_trips: {per_day: 3}\n"
    assert only(failing() + budget).base.test == only(failing()).base.test == FailureTest(FailureParams())
    named = only(failing(test="{kind: e-detector, trip: 1e7}") + budget).base.test
    assert isinstance(named, FailureTest)
    assert named.params.trip == 1e7


def test_defaults_of_the_file() -> None:
    defaults = "defaults: {mode: warn, severity: page, runbook: 'r/{id}/{id}.md'}\n"
    response = only(failing() + defaults).base.response
    assert (response.mode, response.runbook) == (Mode.WARN, "r/x/x.md")
    assert response.ladder == (Rung(Action.HALT, Severity.PAGE),)
    own = only(failing("mode: enforce\nseverity: info\nrunbook: mine") + defaults).base.response
    assert (own.mode, own.runbook, own.ladder[0].severity) == (Mode.ENFORCE, "mine", Severity.INFO)


@pytest.mark.parametrize(
    ("metric", "scope", "test", "more", "by"),
    [
        ("calls.failed", "ACTOR", "{kind: e-detector}", "", Recovery.PROBE),
        ("calls.failed", "ACTOR", "{kind: e-detector}", "severity: critical", Recovery.PERSON),
        ("actions.violating", "ACTOR", "{kind: e-detector}", "", Recovery.PERSON),
        ("spend.usd", "ACTOR", "{kind: burn, budget: {usd: 5}, windows: [5%/5m/30s]}", "", Recovery.CLEAR),
        ("spend.usd", "ACTOR", "{kind: cap, usd: 5, per: day}", "", Recovery.WINDOW),
        ("calls.repeated", "SESSION", "{kind: runs}", "", Recovery.WINDOW),
        ("signals.a", "SESSION", "{kind: signal}", "", Recovery.WINDOW),
        ("signals.a", "ACTOR", "{kind: signal}", "", Recovery.PERSON),
    ],
)
def test_what_releases_a_hold_where_nothing_is_said(
    metric: str, scope: str, test: str, more: str, by: Recovery
) -> None:
    assert only(breaker(metric, scope, test, more)).base.response.recovery == RecoveryPlan(by)


def test_the_example() -> None:
    made = compiled(EXAMPLE)
    assert [(rule.rule, rule.scope) for rule in made.rules] == [
        ("tool-failing", Scope.ACTOR_TOOL),
        ("tool-failing", Scope.TOOL),
        ("cost-runaway", Scope.ACTOR),
    ]
    assert made.rules[2].base.response.ladder == (
        Rung(Action.FAST_MODEL_ONLY, Severity.TICKET),
        Rung(Action.HALT, Severity.CRITICAL, 10 * _MINUTE),
    )
    assert made.rules[2].base.response.recovery == RecoveryPlan(Recovery.CLEAR, quiet_us=5 * _MINUTE)
    assert made.blast_radius == BlastRadius()
    assert {rule.base.response.rules_version for rule in made.rules} == {made.version}


def test_the_version_is_that_of_the_bytes() -> None:
    data = EXAMPLE.encode()
    assert compiled(EXAMPLE).version == version_of(data) == hashlib.sha256(data).hexdigest()[:16]
    assert version_of(b"\xef\xbb\xbf" + data) != version_of(data)


def test_a_file_that_is_wrong_names_everything_but_warnings() -> None:
    text = failing("action: DISABLE_TOOL", test="{kind: e-detector, baseline: {known: 90%}, max_failures_per_trace: 1}")
    with pytest.raises(RulesError) as caught:
        compiled(text + "overrides:\n  - {match: {actor: a}, set: {y: {mode: warn}}}\n")
    assert [problem.path for problem in caught.value.problems] == [
        ("breakers", "x", "action"),
        ("overrides", 0, "set", "y"),
    ]
    assert [each.warning for each in compile_rules(text.replace("DISABLE_TOOL", "HALT").encode(), "f").warnings] == [
        True
    ]


# --- overrides

_OVERRIDES = """overrides:
  - {match: {actor: "a*"}, set: {x: {test: {trip: 1e7}, mode: warn}}}
  - {match: {tenant: t2}, set: {x: {action: READ_ONLY}}}
  - {match: {actor: ab}, set: {x: {mode: enforce}}}
"""


def test_overrides_make_variants_and_those_that_meet_one_together() -> None:
    rule = only(failing() + _OVERRIDES)
    actors = [[match.actor for match in matches] for matches, _ in rule.changed]
    assert actors == [["a*"], ["*"], ["a*", "*"], ["a*", "ab"], ["a*", "*", "ab"]]

    def found(tenant: str, actor: str) -> tuple[float, Mode, Action]:
        variant = variant_of(rule, tenant, actor, None)
        assert variant is not None
        assert isinstance(variant.test, FailureTest)
        return variant.test.params.trip, variant.response.mode, variant.response.ladder[0].action

    assert found("t", "b") == (1e6, Mode.SHADOW, Action.HALT)
    assert found("t", "a") == (1e7, Mode.WARN, Action.HALT)
    assert found("t2", "b") == (1e6, Mode.SHADOW, Action.READ_ONLY)
    assert found("t2", "ac") == (1e7, Mode.WARN, Action.READ_ONLY)
    assert found("t", "ab") == (1e7, Mode.ENFORCE, Action.HALT)
    assert found("t2", "ab") == (1e7, Mode.ENFORCE, Action.READ_ONLY)
    assert [variant_number(rule, "t", actor, None) for actor in ("b", "a", "ab")] == [0, 1, 4]


def test_an_override_is_only_for_the_scopes_whose_targets_have_its_names() -> None:
    text = failing(scope="[ACTOR_TOOL, TOOL, ACTOR]", more="action: REQUIRE_APPROVAL")
    made = compiled(text + 'overrides:\n  - {match: {actor: "a*"}, set: {x: {mode: warn}}}\n')
    assert [len(rule.changed) for rule in made.rules] == [1, 0, 1]
    by_tool = compiled(text + "overrides:\n  - {match: {tool: t}, set: {x: {mode: warn}}}\n")
    assert [len(rule.changed) for rule in by_tool.rules] == [1, 1, 0]


def test_a_rule_that_is_not_for_a_target() -> None:
    rule = only(failing('match: {tenant: t, actor: "a*"}'))
    assert rule.match == Match("t", "a*", "*")
    assert variant_of(rule, "t", "b", None) is None
    assert variant_of(rule, "u", "a", None) is None
    assert variant_of(rule, "t", "ab", None) == rule.base


# --- objectives


def test_the_packaged_objectives_are_shares_of_bad_events() -> None:
    """Evaluations are not measured in the stream."""
    found = {rule.rule: rule for rule in compile_rules(PACKAGED.read_bytes(), "f").rules.objectives}
    hour = 60 * _MINUTE
    assert {name: (rule.scope, rule.base.test) for name, rule in found.items()} == {
        "trace-coverage": (Scope.ACTOR, ObjectiveTest(((1, 20),), hour, 100, grace_us=10 * _MINUTE)),
        "tool-success": (Scope.TOOL, ObjectiveTest(((1, 200),), 24 * hour, 1_000)),
        "policy-violations": (Scope.ACTOR, ObjectiveTest(((1, 1_000),), 24 * hour, 1_000)),
        "task-cost": (Scope.ACTOR, ObjectiveTest(((1, 2), (1, 20)), 24 * hour, 200, (20_000, 100_000))),
    }
    assert all(rule.base.response.ladder == () for rule in found.values())


@pytest.mark.parametrize(
    ("target", "least"), [("<0.02", 20_000), ("<=0.02", 20_001), ("<0.000001", 1), ("<=0.000001", 2)]
)
def test_a_task_counts_against_a_limit_that_it_must_stay_below_when_it_reaches_it(target: str, least: int) -> None:
    of = f'{{p95: "{target}"}}'
    text = f"version: 1\nobjectives: {{o: {{metric: tasks.cost_usd, per: ACTOR, target: {of}, window: 1h, min: 9}}}}\n"
    (rule,) = compile_rules(text.encode(), "f").rules.objectives
    assert rule.base.test == ObjectiveTest(((1, 20),), 60 * _MINUTE, 9, (least,))


def test_overrides_of_objectives_are_variants() -> None:
    text = """version: 1
objectives: {o: {metric: calls.ok, per: ACTOR_TOOL, target: ">99%", window: 1h, min: 9}}
overrides:
  - {match: {tool: pay}, set: {o: {target: ">50%"}}}
  - {match: {tool: pay, actor: a}, set: {o: {min: 5}}}
"""
    (rule,) = compile_rules(text.encode(), "f").rules.objectives
    for actor, tool, share, least in (("b", "x", (1, 100), 9), ("b", "pay", (1, 2), 9), ("a", "pay", (1, 2), 5)):
        variant = variant_of(rule, "default", actor, tool)
        assert variant is not None
        assert variant.test == ObjectiveTest((share,), 60 * _MINUTE, least)
    assert needs_of(RuleSet("v", (), objectives=(rule,))) == frozenset()


def test_objectives_say_which_columns_of_calls_they_need() -> None:
    rules = compile_rules(PACKAGED.read_bytes(), "f").rules
    assert needs_of(RuleSet("v", (), objectives=rules.objectives)) == {
        "session_id", "span_id", "denied_by", "args_hash",
    }  # fmt: skip
