"""Small rules files, and what is said of them."""

from __future__ import annotations

from fuseboard_streams.rules.catalogue import ACTIONS
from fuseboard_streams.rules.check import check
from fuseboard_streams.rules.document import Problem, dotted
from fuseboard_streams.rules.load import load

TESTS = {
    "e-detector": "{kind: e-detector}",
    "distinct": "{kind: distinct, traces: 2}",
    "burn": "{kind: burn, budget: {usd: 5}, windows: [5%/5m/30s]}",
    "cap": "{kind: cap, usd: 5, per: day}",
    "exceed": "{kind: exceed}",
    "runs": "{kind: runs}",
    "first-use": "{kind: first-use}",
    "silence": "{kind: silence}",
    "lost": "{kind: lost}",
    "ungated": "{kind: ungated}",
    "signal": "{kind: signal}",
}
"""A test of every kind, as short as it can be written."""


def problems(text: str) -> list[Problem]:
    """What is wrong with a file."""
    return check(*load(text.encode(), "f.yaml"))


def breaker(metric: str, scope: str, test: str, more: str = "") -> str:
    """A file with one breaker ``x``: the metric on line 4, scope 5, test 6, more from 7 on."""
    scopes = scope.strip("[]").split(", ")
    lines = more.splitlines()
    if "action" not in more and "ladder" not in more:
        lines.append(f"action: {ACTIONS[scopes[0]][-1]}")
    if "TOOL" in scopes and "e-detector" in test and "breadth" not in more:
        lines.append("breadth: {}")
    head = f"version: 1\nbreakers:\n  x:\n    metric: {metric}\n    scope: {scope}\n    test: {test}\n"
    return head + "".join(f"    {line}\n" for line in lines)


def failing(more: str = "", test: str = "{kind: e-detector}", scope: str = "ACTOR") -> str:
    """The same about failed calls."""
    return breaker("calls.failed", scope, test, more)


def said(text: str) -> list[tuple[int | None, str, str]]:
    """The same as line, place and words."""
    return [(problem.line, dotted(problem.path), problem.text) for problem in problems(text)]
