"""What `actors show` and `top` make of what was said about objectives."""

from __future__ import annotations

import re
from typing import Any

from fuseboard_schemas.records import Scope, Signal, SignalLevel
from fuseboard_streams.cli.actor_state import ActorState, RuleFor
from fuseboard_streams.cli.objective_state import state_of
from fuseboard_streams.cli.render.actors import actor_lines
from tests.cli.samples import MINUTE, NOW

VIOLATED = "34 of 1,200 calls failed within 24 h (2.83%); at least 2.05% with 95% confidence, expected less than 0.5%"


def said(state: str = "violated", **changes: Any) -> Signal:
    level = SignalLevel.WARN if state == "violated" else SignalLevel.INFO
    values: dict[str, Any] = {
        "signal_id": "s1", "ts": NOW - MINUTE, "source": "fuseboard/tool-success", "tenant": "default",
        "scope": Scope.ACTOR_TOOL, "actor": "support_agent_v4", "tool": "pay", "rule": "tool-success", "level": level,
        "metric": "calls.ok", "value": 0.971667, "calls": 1_200, "failures": 34, "reason": f"{state}: {VIOLATED}",
    }  # fmt: skip
    return Signal(**{**values, **changes})


def rule(name: str, metric: str, scope: str = "ACTOR", section: str = "objective") -> RuleFor:
    return RuleFor(section, name, scope, "", metric, "", (), 1)


def test_which_signals_are_about_objectives() -> None:
    assert [state_of(said(each)) for each in ("met", "violated", "unknown", "other")] == [
        "met", "violated", "unknown", None,
    ]  # fmt: skip
    assert state_of(said(source="judge")) is None
    assert state_of(said(metric="calls.failed")) is None
    assert state_of(said(reason=None)) is None
    # A breaker can be about the same metric.
    assert state_of(said(metric="actions.violating", reason="denied by policy in 2 distinct traces")) is None


def test_an_actor_has_the_states_of_its_objectives_and_says_which_are_unknown() -> None:
    state = ActorState("default", "support_agent_v4", 1, 15.0)
    met = said("met", rule="policy-violations", metric="actions.violating", tool=None, scope=Scope.ACTOR)
    state.signals = [met, said()]
    state.shared = [said("met", rule="everybodys", scope=Scope.TOOL, actor=None)]
    state.rules = [
        rule("tool-success", "calls.ok", "ACTOR_TOOL"), rule("policy-violations", "actions.violating"),
        rule("everybodys", "calls.ok", "TOOL"), rule("all-success", "calls.ok", "TOOL"),
        rule("evals", "evals.paired_delta"), rule("cost", "tasks.cost_usd"),
        rule("tool-failing", "calls.failed", section="breaker"),
    ]  # fmt: skip
    lines = actor_lines(state, NOW)
    assert "nothing was found about it within 24 h" in lines
    at = lines.index("objectives, as they were said last within 24 h")
    assert [re.split(" {2,}", line)[:3] for line in lines[at + 2 : at + 5]] == [
        ["tool-success", "pay", "violated"],
        ["everybodys", "pay, all actors", "met"],
        ["policy-violations", "met", "60 s ago"],
    ]
    assert lines[at + 2].endswith(VIOLATED)
    assert [line.split()[:2] for line in lines[at + 5 : at + 8]] == [
        ["all-success", "unknown"], ["evals", "unknown"], ["cost", "unknown"],
    ]  # fmt: skip
    assert "too few calls of all actors" in lines[at + 5]
    assert "not in the stream" in lines[at + 6]
    assert "tool-failing" not in "".join(lines[at : at + 8])


def test_an_actor_without_objectives_has_no_such_table() -> None:
    state = ActorState("default", "support_agent_v4", 1, 15.0)
    assert not any("objectives" in line for line in actor_lines(state, NOW))
