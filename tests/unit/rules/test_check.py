"""What is refused about breakers, each with its line and place; what is warned of; all at once."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseboard_streams.rules.catalogue import (
    ACTIONS,
    BREAKER_METRICS,
    SCOPES,
    SIGNAL_METRIC,
    recoveries,
)
from fuseboard_streams.rules.check import check
from fuseboard_streams.rules.compile import compile_rules
from fuseboard_streams.rules.differences import differences
from fuseboard_streams.rules.document import RulesError, dotted
from fuseboard_streams.rules.explain import explain
from fuseboard_streams.rules.load import load
from tests.unit.rules.example import EXAMPLE, changed
from tests.unit.rules.files import TESTS, breaker, failing, problems, said

METRICS = {**BREAKER_METRICS, "signals.grounding": SIGNAL_METRIC}


# --- what fits together


@pytest.mark.parametrize("kind", TESTS)
@pytest.mark.parametrize("metric", METRICS)
def test_metrics_and_tests(metric: str, kind: str) -> None:
    found = said(breaker(metric, METRICS[metric].scopes[0], TESTS[kind]))
    if kind in METRICS[metric].tests:
        assert found == []
    else:
        expected = " or ".join(METRICS[metric].tests)
        assert (6, "breakers.x.test.kind", f"{kind} does not fit {metric}; expected {expected}.") in found


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("metric", METRICS)
def test_metrics_and_scopes(metric: str, scope: str) -> None:
    kind = next(iter(METRICS[metric].tests))
    found = said(breaker(metric, scope, TESTS[kind]))
    if scope in METRICS[metric].scopes:
        assert found == []
    else:
        ((line, path, text),) = found
        assert (line, path) == (5, "breakers.x.scope[0]")
        assert text.startswith(f"{metric} cannot be had per {scope}: ")


def test_the_budget_of_a_tenant_is_refused_with_what_to_do() -> None:
    ((_, _, text),) = said(breaker("spend.usd", "TENANT", TESTS["cap"]))
    assert text.endswith("is not summed in this version; give each ACTOR a part of the budget.")


@pytest.mark.parametrize("scope", SCOPES)
def test_actions_and_scopes(scope: str) -> None:
    for action in ("FAST_MODEL_ONLY", "REQUIRE_APPROVAL", "READ_ONLY", "DISABLE_TOOL", "HALT"):
        found = said(breaker("signals.a", scope, TESTS["signal"], f"action: {action}"))
        fits = action in ACTIONS[scope]
        assert fits == (found == [])
        if not fits:
            text = f"{action} does not fit scope {scope}; expected {' or '.join(ACTIONS[scope])}."
            assert found == [(7, "breakers.x.action", text)]


def test_the_matrix_of_actions() -> None:
    whole = {"FAST_MODEL_ONLY", "REQUIRE_APPROVAL", "READ_ONLY", "HALT"}
    tool = {"DISABLE_TOOL", "REQUIRE_APPROVAL"}
    assert {scope: set(actions) for scope, actions in ACTIONS.items()} == {
        "ACTOR": whole,
        "TENANT": whole,
        "SESSION": whole,
        "ACTOR_TOOL": tool,
        "TOOL": tool,
    }


@pytest.mark.parametrize("metric", METRICS)
def test_recoveries(metric: str) -> None:
    for kind in METRICS[metric].tests:
        for scope in METRICS[metric].scopes:
            fitting = recoveries(METRICS[metric], kind, scope)
            assert "person" in fitting
            for by in ("probe", "clear", "window", "person"):
                found = said(breaker(metric, scope, TESTS[kind], f"recovery: {{by: {by}}}"))
                assert (by in fitting) == (found == [])
                assert all(path == "breakers.x.recovery.by" for _, path, _ in found)


def test_who_can_be_probed_and_who_cannot() -> None:
    assert recoveries(METRICS["calls.failed"], "e-detector", "ACTOR") == ("probe", "person")
    assert recoveries(METRICS["actions.violating"], "e-detector", "ACTOR") == ("person",)
    assert recoveries(METRICS["spend.usd"], "burn", "ACTOR") == ("clear", "person")
    assert recoveries(METRICS["spend.usd"], "cap", "ACTOR") == ("window", "person")
    assert recoveries(METRICS["calls.repeated"], "runs", "SESSION") == ("window", "person")
    ((_, _, text),) = said(breaker("signals.a", "SESSION", TESTS["signal"], "recovery: {by: probe}"))
    assert text == (
        "probe cannot release what signal on signals.a holds per SESSION; a session ends by itself; expected window or "
        "person."
    )


# --- breakers


@pytest.mark.parametrize(
    ("metric", "hint"),
    [
        ("calls.fail", "did you mean calls.failed?"),
        ("calls.ok", "calls.ok is a metric of objectives, which never trip; those of breakers: calls.failed, "),
        ("weather", "there is no metric 'weather'; those there are: calls.failed, "),
        ("signals.", "those there are: "),
    ],
)
def test_an_unknown_metric(metric: str, hint: str) -> None:
    ((line, path, text),) = said(breaker(metric, "ACTOR", TESTS["e-detector"]))
    assert (line, path) == (4, "breakers.x.metric")
    assert hint in text


_OF_THE_TEST = [
    ("{kind: e-detector, trip: 1e101}", "test.trip", "no evidence ever reaches 1e101; expected at most 1e100, usual"),
    ("{kind: e-detector, trip: 5000}", "test.warn", "warn is above trip (1e4 > 5000); lower it, or raise trip."),
    ("{kind: e-detector, warn: 2e6}", "test.warn", "warn is above trip (2e6 > 1e6); lower it, or raise trip."),
    (
        "{kind: e-detector, warn: 100}",
        "test.warn",
        "warn 100 times the floor of the baseline (0.5%) is below 1: successes alone would alarm; expected warn from "
        "200 on, or a higher floor.",
    ),
    (
        "{kind: e-detector, baseline: {known: 0.001%}}",
        "test.warn",
        "warn 1e4 times the known rate of the baseline (0.001%) is below 1: successes alone would alarm; expected "
        "warn from 1e5 on, or a higher known rate.",
    ),
    (
        "{kind: e-detector, baseline: {floor: 0}}",
        "test.baseline.floor",
        "expected a share above 0% and below 100%, found",
    ),
    ("{kind: e-detector, baseline: {known: 100%}}", "test.baseline.known", "expected a share above 0% and below 100%"),
    (
        "{kind: e-detector, baseline: {quantile: 5%}}",
        "test.baseline.quantile",
        "expected a quantile from 50% to 99.99%",
    ),
]


@pytest.mark.parametrize(("test", "path", "says"), _OF_THE_TEST)
def test_levels_and_baselines(test: str, path: str, says: str) -> None:
    ((line, where, text),) = said(failing(test=test))
    assert (line, where) == (6, f"breakers.x.{path}")
    assert text.startswith(says)


def test_a_level_exactly_at_the_limit_is_taken() -> None:
    assert said(failing(test="{kind: e-detector, warn: 200, trip: 200}")) == []


@pytest.mark.parametrize(
    ("metric", "scope", "test", "path", "says"),
    [
        (
            "actions.violating",
            "ACTOR",
            "{kind: distinct, traces: 3, of_last: 2}",
            "test.traces",
            "3 traces never fit into the last 2 actions; expected at most 2.",
        ),
        (
            "actions.violating",
            "ACTOR",
            "{kind: distinct, traces: 3, within: 8d}",
            "test.within",
            "what is 7d old is forgotten; expected at most 7d.",
        ),
        (
            "events.silent",
            "ACTOR",
            "{kind: silence, lasting: 30d}",
            "test.lasting",
            "what is 7d old is forgotten; expe",
        ),
        (
            "calls.latency",
            "ACTOR_TOOL",
            "{kind: exceed, quantile: 1}",
            "test.quantile",
            "expected a quantile from 50% to",
        ),
        ("calls.latency", "ACTOR_TOOL", "{kind: exceed, trip: 9999}", "test.warn", "warn is above trip (1e4 > 9999)"),
        ("events.lost", "ACTOR", "{kind: lost, share: 0%}", "test.share", "expected a share above 0% and below 100%"),
        ("events.lost", "ACTOR", "{kind: lost, share: 1}", "test.share", "expected a share above 0% and below 100%"),
        (
            "spend.usd",
            "ACTOR",
            "{kind: burn, budget: {usd: 1}, windows: [5%/7m/1m]}",
            "test.windows[0]",
            "no window of 420 s is kept; possible are up to 30 s in steps of 5 s, ",
        ),
        (
            "spend.usd",
            "ACTOR",
            "{kind: burn, budget: {usd: 1}, windows: [5%/5m/30s, 5%/3h/15m]}",
            "test.windows[1]",
            "whoever spends the budget evenly spends 12.5% of it in the long window, and would trip at 5%; expected a "
            "larger share or a shorter window.",
        ),
        (
            "spend.usd",
            "ACTOR",
            "{kind: burn, budget: {usd: 1, per: 1h}, windows: [50%/3h/15m]}",
            "test.windows[0]",
            "the long window is longer than the budget's `per`; shorten it.",
        ),
    ],
)
def test_what_other_tests_cannot_be(metric: str, scope: str, test: str, path: str, says: str) -> None:
    ((line, where, text),) = said(breaker(metric, scope, test))
    assert (line, where) == (6, f"breakers.x.{path}")
    assert text.startswith(says)


def test_a_slow_trip_is_a_warning() -> None:
    (problem,) = problems(failing(test="{kind: e-detector, baseline: {known: 90%}}"))
    assert problem.warning
    assert str(problem) == (
        "f.yaml:6: breakers.x.test: warning: at the initial baseline of 90% a trip takes 121 failures in a row; if "
        "that is too many, lower trip or the baseline."
    )
    assert problems(failing(test="{kind: e-detector, baseline: {known: 50%}}")) == []


@pytest.mark.parametrize(
    ("more", "line", "path", "says"),
    [
        ("action: HALT\nladder: [{action: HALT}]", 8, "ladder", "there is an `action` too; remove one of the two."),
        (
            "ladder: [{action: HALT, after: 1m}]",
            7,
            "ladder[0].after",
            "the first step is taken at once; remove `after`.",
        ),
        (
            "ladder: [{action: HALT}, {action: READ_ONLY}]",
            7,
            "ladder[1]",
            "there is nothing above HALT; remove this step.",
        ),
        (
            "ladder:\n- {action: FAST_MODEL_ONLY}\n- {action: READ_ONLY}\nrecovery: {by: person}",
            9,
            "ladder[1].action",
            "READ_ONLY does not contain what FAST_MODEL_ONLY restricts, and a ladder only goes up; expected HALT.",
        ),
        (
            "ladder: [{action: READ_ONLY}, {action: REQUIRE_APPROVAL}]",
            7,
            "ladder[1].action",
            "REQUIRE_APPROVAL does not contain what READ_ONLY restricts, and a ladder only goes up; expected HALT.",
        ),
        (
            "ladder: [{action: REQUIRE_APPROVAL}, {action: REQUIRE_APPROVAL}]",
            7,
            "ladder[1].action",
            "REQUIRE_APPROVAL does not contain what REQUIRE_APPROVAL restricts, and a ladder only goes up; expected "
            "READ_ONLY or HALT.",
        ),
        (
            "ladder: [{action: DISABLE_TOOL}]",
            7,
            "ladder[0].action",
            "DISABLE_TOOL does not fit scope ACTOR; expected FAST_MODEL_ONLY or REQUIRE_APPROVAL or READ_ONLY or HALT.",
        ),
        (
            "recovery: {by: probe, cooldown: 10m}",
            7,
            "recovery.cooldown",
            "max_cooldown, where the doubling ends, is shorter than cooldown; raise it, or lower cooldown.",
        ),
        (
            "recovery: {by: probe, cooldown: 10ms}",
            7,
            "recovery.cooldown",
            "timers are due on whole seconds; expected a cooldown from 1s on.",
        ),
        ("runbook: docs/{rule}.md", 7, "runbook", "{rule} is not filled in; only {id} is, with the rule's name."),
        (
            "match: {tool: x}",
            7,
            "match.tool",
            "a target of scope ACTOR has no tool, so nothing fits 'x'; remove the pattern.",
        ),
        ("breadth: {}", 7, "breadth", "it is for an e-detector of scope TOOL; remove it, or add that scope."),
    ],
)
def test_what_follows_a_trip(more: str, line: int, path: str, says: str) -> None:
    assert said(failing(more)) == [(line, f"breakers.x.{path}", says)]


@pytest.mark.parametrize(
    "ladder",
    [
        "[{action: FAST_MODEL_ONLY}, {action: HALT, after: 10m}]",
        "[{action: REQUIRE_APPROVAL}, {action: READ_ONLY}, {action: HALT}]",
        "[{action: HALT}]",
    ],
)
def test_ladders_that_go_up(ladder: str) -> None:
    assert said(failing(f"ladder: {ladder}\nrecovery: {{by: person}}")) == []


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ("action: FAST_MODEL_ONLY", "action"),
        ("action: FAST_MODEL_ONLY\nrecovery: {by: probe}", "action"),
        ("ladder: [{action: FAST_MODEL_ONLY}, {action: HALT, after: 10m}]", "ladder[0].action"),
    ],
)
def test_what_refuses_no_call_cannot_be_probed(more: str, path: str) -> None:
    # It was half open for ever: no call was one that could have been a probe.
    ((line, where, text),) = said(failing(more))
    assert (line, where) == (7, f"breakers.x.{path}")
    assert text.startswith("FAST_MODEL_ONLY refuses no call, so there is none to probe with, and nothing would ever r")
    person = "" if "recovery" in more else "\nrecovery: {by: person}"
    assert said(failing((more + person).replace("by: probe", "by: person"))) == []
    critical = failing(more).replace("version: 1\n", "version: 1\ndefaults: {severity: critical}\n")
    assert bool(said(critical)) == ("probe" in more)


def test_an_override_makes_nothing_that_cannot_be_probed() -> None:
    text = failing() + "overrides:\n  - {match: {actor: a}, set: {x: {action: FAST_MODEL_ONLY}}}\n"
    ((_, where, _),) = said(text)
    assert where == "overrides[0].set.x.action"


def test_a_ladder_of_a_tool() -> None:
    assert said(failing("ladder: [{action: REQUIRE_APPROVAL}, {action: DISABLE_TOOL}]", scope="ACTOR_TOOL")) == []


def test_neither_action_nor_ladder() -> None:
    text = "version: 1\nbreakers:\n  x: {metric: calls.failed, scope: ACTOR_TOOL, test: {kind: e-detector}}\n"
    ((line, path, says),) = said(text)
    assert (line, path) == (3, "breakers.x")
    assert says.endswith("add an action of REQUIRE_APPROVAL, DISABLE_TOOL.")


def test_what_a_recovery_does_not_use_is_a_warning() -> None:
    (problem,) = problems(breaker("spend.usd", "ACTOR", TESTS["burn"], "recovery: {by: clear, probes: 3}"))
    assert problem.warning
    assert problem.text == "it means nothing for `by: clear`, only for `by: probe`; remove it."


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ("recovery: {by: probe, cooldown: 14s}", "recovery.cooldown"),
        ("recovery: {by: probe, cooldown: 2s, max_cooldown: 4s}", "recovery.cooldown"),
        ("ladder: [{action: READ_ONLY}, {action: HALT, after: 5s}]", "ladder[1].after"),
    ],
)
def test_a_wait_that_no_worker_keeps_is_a_warning(more: str, path: str) -> None:
    (problem,) = problems(failing(more))
    assert (problem.warning, problem.line, dotted(problem.path)) == (True, 7, f"breakers.x.{path}")
    assert problem.text.startswith("a worker waits at least 15 s after each change of a breaker, and so long here;")


def test_a_quiet_time_that_no_worker_keeps_is_a_warning_and_one_it_keeps_is_none() -> None:
    (problem,) = problems(breaker("spend.usd", "ACTOR", TESTS["burn"], "recovery: {by: clear, quiet: 14s}"))
    assert (problem.warning, dotted(problem.path)) == (True, "breakers.x.recovery.quiet")
    assert problems(breaker("spend.usd", "ACTOR", TESTS["burn"], "recovery: {by: clear, quiet: 15s}")) == []
    assert problems(failing("recovery: {by: probe, cooldown: 15s}")) == []


def test_a_tool_for_all_needs_breadth() -> None:
    text = breaker("calls.failed", "[ACTOR_TOOL, TOOL]", TESTS["e-detector"]).replace("    breadth: {}\n", "")
    ((line, path, says),) = said(text)
    assert (line, path) == (5, "breakers.x.scope[1]")
    assert says.endswith("add `breadth: {actors: 3, share: 20%, max_per_actor: 3}`.")
    assert said(breaker("signals.a", "TOOL", TESTS["signal"])) == []


def test_scopes_that_stand_twice_and_patterns_that_fit_one_of_two_scopes() -> None:
    assert said(failing(scope="[ACTOR, ACTOR]")) == [(5, "breakers.x.scope[1]", "ACTOR stands twice; remove one.")]
    ((_, path, text),) = said(failing("match: {actor: a}", scope="[ACTOR_TOOL, TOOL]"))
    assert path == "breakers.x.match.actor"
    assert text.endswith("remove the pattern or give that scope a rule of its own.")


@pytest.mark.parametrize("match", ["*b", "b*"])
def test_one_failure_statistic_for_a_scope(match: str) -> None:
    # Only the first was followed, without a word, although no actor fits both.
    rule = "{{metric: calls.failed, scope: {}, test: {{kind: e-detector}}, action: {}, match: {{actor: '{}'}}}}"
    head = f"version: 1\nbreakers:\n  one: {rule.format('ACTOR', 'HALT', 'a*')}\n  two: "
    ((line, path, text),) = said(head + rule.format("ACTOR", "HALT", match))
    assert (line, path) == (4, "breakers.two.scope")
    assert text == (
        "one tests the failed calls per ACTOR already, and one rule can, whatever their `match`; remove this one, let "
        "one match its targets too, and give them other values by an override: {match: ..., set: {one: ...}}."
    )
    assert said(head + rule.format("ACTOR_TOOL", "DISABLE_TOOL", match)) == []


# --- the whole file


def test_the_example_is_right_but_for_an_override_that_changes_nothing() -> None:
    assert [str(problem) for problem in problems(EXAMPLE)] == [
        "f.yaml:28: overrides[0].set.tool-success: warning: no target of tool-success (TOOL) fits this override's "
        "patterns: it changes nothing."
    ]
    assert problems(changed("per: TOOL, ", "per: ACTOR_TOOL, ")) == []


def test_everything_is_said_at_once_in_the_order_of_the_file() -> None:
    text = EXAMPLE
    for old, new in (
        ("sessions.traced", "sessions.trced"), ("DISABLE_TOOL", "HALT"), ("by: clear, quiet: 5m", "by: probe"),
        ("{id}", "{name}"),
    ):  # fmt: skip
        text = text.replace(old, new, 1)
    assert [(line, path) for line, path, _ in said(text)] == [
        (2, "defaults.runbook"),
        (5, "objectives.trace-coverage.metric"),
        (16, "breakers.tool-failing.action"),
        (16, "breakers.tool-failing.action"),
        (25, "breakers.cost-runaway.recovery.by"),
        (28, "overrides[0].set.tool-success"),
    ]


_WORDS = ["calls.failed", "spend.usd", "signals.x", "ACTOR", "TOOL", "SESSION", "TENANT", "HALT", "READ_ONLY", "probe"]
_WORDS += ["person", "enforce", "1e99", "1e-99", "0", "1", "1ms", "366d", "99.9999999%", "100%", "{}", "[]", "~", "'*'"]


_TO_FUZZ = changed(
    "overrides:\n",
    """overrides:
  - {match: {actor: a* }, set: {tool-failing: {mode: warn ,test: {warn: 2e4 ,baseline: {known: 2% }}}}}
  - {match: {tenant: t ,actor: '?b' }, set: {tool-failing: {recovery: {by: person }} ,cost-runaway: {action: HALT }}}
  - {match: {actor: '*c' }, set: {cost-runaway: {ladder: [{action: READ_ONLY }] ,severity: page }}}
""",
)


def test_what_is_changed_at_random_below_is_right_before() -> None:
    assert len(compile_rules(_TO_FUZZ.encode(), "f").warnings) == 1


@given(st.lists(st.tuples(st.integers(0, 200), st.sampled_from(_WORDS)), max_size=4))
def test_no_values_raise_anything_else_and_what_is_right_can_be_compiled(changes: list[tuple[int, str]]) -> None:
    pieces = re.split(r"([\s{}\[\],]+)", _TO_FUZZ)
    places = [i for i in range(0, len(pieces), 2) if pieces[i] and not pieces[i].endswith(":")]
    for number, word in changes:
        pieces[places[number % len(places)]] = word
    data = "".join(pieces).encode()
    with contextlib.suppress(RulesError):
        loaded = load(data, "f.yaml")
        wrong = [problem for problem in check(*loaded) if not problem.warning]
        if wrong:
            with pytest.raises(RulesError) as caught:
                compile_rules(data, "f.yaml")
            assert caught.value.problems == wrong
            return
        compiled = compile_rules(data, "f.yaml")
        assert differences(compiled, compiled) == []
        for actor in ("a", "ab", "bb"):
            for each in explain(compiled, "t", actor, "book_reservation"):
                assert {value.path for value in each.values} >= {"metric"}


def test_a_file_without_rules_and_one_with_the_guards_name() -> None:
    (line, path, text), *others = said("version: 1")
    assert (line, path, others) == (1, "", [])
    assert "would remove all" in text
    assert any(path == "breakers.blast-radius" for _, path, _ in said(failing().replace("  x:", "  blast-radius:")))


@pytest.mark.parametrize(
    ("text", "says", "not_said"),
    [
        ("version: true", "f.yaml:1: version: expected 1, found 'true'.", "\n"),
        (failing(test="{kind: burn, budget: {usd: 1}, windows: [5/5m/30s]}"), "windows[0]", "empty"),
        (failing(test="e-detector"), "test: expected a table, found 'e-detector'.", "dictionary"),
        (failing("mode: [warn]"), 'found ["warn"]', "('warn',)"),
        (failing("mode: null\nrunbook: 5"), "expected text, found 5.", "None"),
    ],
)
def test_what_is_wrong_with_forms_is_said_in_the_files_words(text: str, says: str, not_said: str) -> None:
    with pytest.raises(RulesError) as caught:
        problems(text)
    assert says in str(caught.value)
    assert not_said not in str(caught.value)
