"""What is refused about objectives."""

from __future__ import annotations

import pytest

from fuseboard_streams.rules.catalogue import OBJECTIVE_METRICS, SCOPES
from tests.unit.rules.files import failing, said


def objective(more: str, metric: str = "calls.ok", per: str = "ACTOR") -> str:
    return f"version: 1\nobjectives:\n  o: {{metric: {metric}, per: {per}, {more}}}\n"


_WINDOW = "window: 24h, min: 9"


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        (
            objective(f'target: ">99%", {_WINDOW}', "calls.okay"),
            "metric",
            "no metric 'calls.okay'; did you mean calls.ok?",
        ),
        (
            objective(f'target: ">9%", {_WINDOW}', "calls.failed"),
            "metric",
            "calls.failed is a metric of breakers; those",
        ),
        (
            objective(f'target: ">9%", {_WINDOW}', per="TENANT"),
            "per",
            "calls.ok is not measured per TENANT; expected ACTOR",
        ),
        (
            objective(f'target: "<99%", {_WINDOW}'),
            "target",
            "more is better here; expected a target such as >99.5%, found <",
        ),
        (objective(f'target: ">99.5", {_WINDOW}'), "target", "below 100% with a percent sign, such as >99.5%."),
        (
            objective(f'target: ">100%", {_WINDOW}'),
            "target",
            "no number of observations can show >100%; expected a share",
        ),
        (
            objective(f'target: {{p50: ">9%"}}, {_WINDOW}'),
            "target",
            "calls.ok has no quantiles; expected one target, such",
        ),
        (
            objective(f'target: {{p50: "<0.0000001"}}, {_WINDOW}', "tasks.cost_usd"),
            "target.p50",
            "expected whole millionths of a dollar, found <1e-07.",
        ),
        (objective('target: ">9%", min: 9'), "", "`window` is missing: over how long it is measured; add it, such as"),
        (
            objective('target: ">9%", window: 1h'),
            "",
            "`min` is missing: how many observations it takes; add it, such as",
        ),
        (objective(f'target: ">9%", {_WINDOW}, grace: 1m'), "grace", "it is of sessions.traced alone; remove it."),
        (
            objective(f'target: ">9%", {_WINDOW}, suites: [a]'),
            "suites",
            "they are of evals.paired_delta alone; remove them.",
        ),
        (
            objective(f'target: ">9%", {_WINDOW}, confidence: 50%'),
            "confidence",
            "expected a confidence above 50% and below",
        ),
        (
            objective(f'target: "<0.1", {_WINDOW}', "tasks.cost_usd"),
            "target",
            "expected dollars for each quantile, such as",
        ),
        (
            objective(f'target: {{p50: "<1%"}}, {_WINDOW}', "tasks.cost_usd"),
            "target.p50",
            "it is in dollars; expected a targ",
        ),
        (
            objective(f'target: {{p50: ">1"}}, {_WINDOW}', "tasks.cost_usd"),
            "target.p50",
            "expected a limit above zero that",
        ),
        (
            objective(f'target: {{p50: "<2", p95: "<1"}}, {_WINDOW}', "tasks.cost_usd"),
            "target.p95",
            "95% of tasks cannot cost less than half of them may; raise it.",
        ),
        (objective('target: ">9%", window: 30s, min: 9'), "window", "expected a window from 1m to 31d, found 30s."),
        (objective('target: ">9%", window: 32d, min: 9'), "window", "expected a window from 1m to 31d, found 32d."),
        (
            objective('target: ">9%", window: 100s, min: 9'),
            "window",
            "100s does not divide into 24 cells of whole microseconds; take a multiple of 3s.",
        ),
        (
            objective('target: ">9%", window: 30m, min: 9', "sessions.traced"),
            "window",
            "a grace of 10m, as where none is given, is too long for a window of 30m: expected at most 7 of its 24 ce",
        ),
        (
            objective('target: ">9%", window: 2d, min: 9, grace: 2h', "sessions.traced"),
            "grace",
            "a grace of 2h is too long for a window of 2d: expected at most 7 of its 24 cells, and at most 1h; shorten",
        ),
        (objective('target: ">=-1%"', "evals.paired_delta"), "", "`suites` is missing: which suites count; add them"),
        (
            objective('target: ">=-1%", suites: [a], min: 9', "evals.paired_delta"),
            "min",
            "every complete run of an evaluation",
        ),
        (
            objective('target: ">=-200%", suites: [a]', "evals.paired_delta"),
            "target",
            "expected a share above -100% and below",
        ),
    ],
)
def test_objectives(text: str, path: str, says: str) -> None:
    ((line, where, found),) = said(text)
    assert (line, where) == (3, f"objectives.o.{path}".rstrip("."))
    assert says in found


@pytest.mark.parametrize("metric", OBJECTIVE_METRICS)
def test_every_metric_of_objectives_can_be_had(metric: str) -> None:
    measure = OBJECTIVE_METRICS[metric]
    more = {"share": f'target: "{">" if measure.upwards else "<"}50%"', "difference": 'target: ">=-1%", suites: ["*"]'}
    text = more.get(measure.form, 'target: {p95: "<1"}') + (f", {_WINDOW}" if measure.windowed else "")
    for per in SCOPES:
        assert (said(objective(text, metric, per)) == []) == (per in measure.scopes)


@pytest.mark.parametrize("window", ["1m", "5m", "7m", "15m", "1h", "99s", "31d"])
def test_usual_windows_divide(window: str) -> None:
    assert said(objective(f'target: ">9%", window: {window}, min: 9')) == []


def test_an_override_may_not_make_the_window_too_short_for_the_grace() -> None:
    text = objective('target: ">9%", window: 1h, min: 9', "sessions.traced")
    text += "overrides:\n  - {match: {actor: a}, set: {o: {window: 10m}}}\n"
    ((line, where, found),) = said(text)
    assert (line, where) == (5, "overrides[0].set.o.window")
    assert "is too long for a window of 10m" in found


def test_an_objective_and_a_breaker_of_one_name() -> None:
    text = failing() + "objectives:\n  x: {metric: calls.ok, per: ACTOR, target: '>9%', window: 1h, min: 9}\n"
    assert said(text) == [
        (3, "breakers.x", "an objective has this name too, and overrides could not tell; rename one.")
    ]
