"""Mistakes in a rules file: each is reported with its place and what was expected; nothing else comes out."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseboard_streams.rules.document import Problem, RulesError
from fuseboard_streams.rules.load import load
from tests.unit.rules.example import EXAMPLE, changed


def problems(text: str | bytes) -> list[Problem]:
    with pytest.raises(RulesError) as caught:
        load(text.encode() if isinstance(text, str) else text, "f.yaml")
    return caught.value.problems


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "says"),
    [
        ("version: 1", "version: 2", 1, "version", "expected 1, found 2."),
        ("version: 1\n", "", 1, "version", "it is missing; add it."),
        ("shadow", "on", 2, "defaults.mode", "expected 'shadow', 'warn' or 'enforce', found 'on'."),
        ("per_day: 1", "per_day: 0", 3, "false_trips.per_day", "expected a number above 0, found 0."),
        ("per_day: 1", "per_day: few", 3, "false_trips.per_day", "expected a number, found 'few'."),
        ("objectives:", "objective:", 4, "objective", "there is no such field here; did you mean objectives?"),
        (
            'target: ">95%"',
            "target: 95",
            5,
            "objectives.trace-coverage.target",
            "expected a target such as >99.5% or <0.02, found 95.",
        ),
        (
            "window: 1h",
            "window: 60",
            5,
            "objectives.trace-coverage.window",
            "expected a duration with its unit, such as 30s, 5m, 1h or 7d, found 60.",
        ),
        ("min: 100", "min: 0", 5, "objectives.trace-coverage.min", "expected a number from 1 on, found 0."),
        ("min: 100", "min: 1.5", 5, "objectives.trace-coverage.min", "expected a whole number, found 1.5."),
        (
            "per: ACTOR",
            "per: AGENT",
            5,
            "objectives.trace-coverage.per",
            "expected 'ACTOR', 'ACTOR_TOOL', 'TOOL', 'TENANT' or 'SESSION', found 'AGENT'.",
        ),
        (
            '["key/*"]',
            '[""]',
            8,
            "objectives.eval-regression.suites[0]",
            "it is empty; expected at least one entry or character.",
        ),
        ('["key/*"]', '"key/*"', 8, "objectives.eval-regression.suites", "expected a list, found 'key/*'."),
        ("p50:", "p51:", 9, "objectives.task-cost.target.p51", "expected 'p50' or 'p95', found 'p51'."),
        (
            "tool-failing",
            "Tool",
            11,
            "breakers.Tool",
            "expected lower-case letters, digits and hyphens, beginning with a letter, found 'Tool'.",
        ),
        ("kind: e-detector, ", "", 14, "breakers.tool-failing.test", "`kind` is missing; it says which test this is."),
        (
            "flo",
            "flou",
            14,
            "breakers.tool-failing.test.baseline.flouor",
            "there is no such field here; did you mean floor?",
        ),
        (
            "0.5%, q",
            "105%, q",
            14,
            "breakers.tool-failing.test.baseline.floor",
            "expected a share from 0% to 100%, found '105%'.",
        ),
        (
            "trace: 3",
            "trace: 99",
            14,
            "breakers.tool-failing.test.max_failures_per_trace",
            "expected a number up to 31, found 99.",
        ),
        (
            "TOOL, TOOL",
            "TOOL, tool",
            13,
            "breakers.tool-failing.scope[1]",
            "expected 'ACTOR', 'ACTOR_TOOL', 'TOOL', 'TENANT' or 'SESSION', found 'tool'.",
        ),
        (
            "[ACTOR_TOOL, TOOL]",
            "[]",
            13,
            "breakers.tool-failing.scope",
            "it is empty; expected at least one entry or character.",
        ),
        (
            "usd: 5.00",
            "usd: 0",
            22,
            "breakers.cost-runaway.test.budget.usd",
            "expected dollars from 0.000001 to 1e9, found 0.",
        ),
        (
            "25%/3h/15m",
            "25%/3h",
            22,
            "breakers.cost-runaway.test.windows[2]",
            "expected share/long window/short window, such as 5%/5m/30s, found '25%/3h'.",
        ),
        (
            "{action: FAST_MODEL_ONLY}",
            "HALT",
            23,
            "breakers.cost-runaway.ladder[0]",
            "expected a table with action, after, severity, found 'HALT'.",
        ),
        (
            "after: 10m",
            "after: soon",
            23,
            "breakers.cost-runaway.ladder[1].after",
            "expected a duration with its unit, such as 30s, 5m, 1h or 7d, found 'soon'.",
        ),
        (
            "match: {actor",
            "match: {agent",
            28,
            "overrides[0].match.agent",
            "there is no such field here; those there are: tenant, actor, tool.",
        ),
        ('{target: ">60%"}', "3", 28, "overrides[0].set.tool-success", "expected a table, found 3."),
    ],
)
def test_a_mistake_is_reported_with_its_place(old: str, new: str, line: int, path: str, says: str) -> None:
    assert [str(problem) for problem in problems(changed(old, new))] == [f"f.yaml:{line}: {path}: {says}"]


def test_a_kind_of_test_that_there_is_not_is_answered_with_those_there_are() -> None:
    (problem,) = problems(changed("kind: e-detector", "kind: edetector"))
    assert str(problem).startswith("f.yaml:14: breakers.tool-failing.test: expected one of 'e-detector', 'distinct', ")
    assert str(problem).endswith("'signal' as `kind`, found 'edetector'.")


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_file() -> None:
    text = EXAMPLE
    for old, new in (("mode: shadow", "mode: off"), ("min: 100", "min: x"), ("by: probe,", "by: prob,"), ("1m", "1")):
        text = text.replace(old, new, 1)
    assert [(problem.line, problem.path) for problem in problems(text)] == [
        (2, ("defaults", "mode")),
        (5, ("objectives", "trace-coverage", "min")),
        (18, ("breakers", "tool-failing", "recovery", "by")),
        (26, ("blast_radius", "window")),
    ]


def test_a_long_value_is_not_repeated_in_full() -> None:
    (problem,) = problems(changed("per_day: 1", "per_day: " + "x" * 10_000))
    assert len(str(problem)) < 200


def test_a_file_of_ten_megabytes_is_refused_unread() -> None:
    started = time.process_time()
    (problem,) = problems(b"version: 1\n" + b"a: [1, 2, 3]\n" * 800_000)
    assert "at most 262144 are read" in str(problem)
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize(
    "bomb",
    [
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]",
        "version: 1\ndefaults: &d {mode: warn}\nbreakers: {<<: *d}",
        "a: &a [*a]",
    ],
)
def test_aliases_are_refused_before_anything_is_built(bomb: str) -> None:
    (problem,) = problems(bomb)
    assert "anchors (&) and aliases (*) are not read" in str(problem)


def test_a_million_entries_in_a_small_file_are_refused() -> None:
    (problem,) = problems("version: 1\nbreakers: [" + "," * 100_000 + "]")
    assert problem.line is not None


@given(st.text(max_size=300))
def test_no_text_raises_anything_else(text: str) -> None:
    with contextlib.suppress(RulesError):
        load(text.encode("utf-8", "surrogatepass"), "f.yaml")


_LINES = EXAMPLE.splitlines(keepends=True)
_PIECES = st.sampled_from(
    [
        *"[]{}:,~%*\t\n", "null", "-1", "1e309", "0", "true", "&a", "*a", "!!str ", "9" * 5_000, "9" * 5_000 + "s",
        '""', "  ", "\u2028", "ACTOR", "SESSION", "signals.x", "%/1s/1ms", ">=",
    ]
)  # fmt: skip


@given(st.data())
def test_no_mutation_of_the_example_raises_anything_else(data: st.DataObject) -> None:
    text = EXAMPLE
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 20)))
        text = text[:start] + data.draw(_PIECES) + text[end:]
    with contextlib.suppress(RulesError):
        load(text.encode(), "f.yaml")


@given(st.lists(st.sampled_from(_LINES), max_size=len(_LINES)))
def test_no_order_of_its_lines_raises_anything_else(lines: list[str]) -> None:
    with contextlib.suppress(RulesError):
        load("".join(lines).encode(), "f.yaml")
