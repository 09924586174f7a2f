"""Which evidence counts for whom: priors by tool, and a tool that is to blame for its actor's failures."""

from __future__ import annotations

import random

import pytest
from scipy import stats

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.records import Outcome, Scope, Signal, SignalLevel
from fuseboard_streams.core.settings import CoreSettings, Prior
from fuseboard_streams.core.shard import Output
from fuseboard_streams.rules.compile import compile_rules
from tests.support.calls import Call, fold, make_shard


def signals(outputs: list[Output], scope: Scope, level: SignalLevel = SignalLevel.TRIP) -> list[Signal]:
    return [
        o.record for o in outputs if isinstance(o.record, Signal) and (o.record.scope, o.record.level) == (scope, level)
    ]


def test_a_prior_of_its_own_for_a_tool() -> None:
    """The last that matches; a tool that is known to fail often is not taken for broken."""
    priors = (Prior(5, 5, tool="flaky.*"), Prior(80, 20, tenant="default", tool="flaky.search"))
    calls = [
        Call(i, Outcome.ERROR if i % 5 else Outcome.OK, actor=f"a{i % 3}", tool=tool)
        for i in range(300)
        for tool in ("flaky.search", "steady")
    ]
    outputs = fold(make_shard(CoreSettings(priors=priors)), calls)
    found = signals(outputs, Scope.ACTOR_TOOL)
    assert {signal.tool for signal in found} == {"steady"}
    assert found[0].null_p0 == pytest.approx(stats.beta.ppf(0.99, 0.72, 12.7), rel=1e-9)
    settings = CoreSettings(priors=priors)
    assert [settings.prior_for("default", name) for name in ("flaky.search", "flaky.x", "steady")] == [2, 1, 0]
    assert settings.prior_for("elsewhere", "flaky.search") == 1


def test_the_null_of_a_tool_begins_at_its_own_prior() -> None:
    priors = (Prior(30, 30, tool="flaky"),)
    calls = [Call(i, Outcome.ERROR, tool="flaky") for i in range(60)]
    found = signals(fold(make_shard(CoreSettings(priors=priors)), calls), Scope.ACTOR_TOOL)
    assert found[0].null_p0 == pytest.approx(stats.beta.ppf(0.99, 30, 30), rel=1e-9)


# Short blocks, so that an actor gets to know itself in a few hundred calls.
QUICK = FailureParams(period=20)


def outage(seed: int, priors: tuple[Prior, ...], broken: tuple[str, ...], rate: float, calls: int) -> list[Output]:
    """Healthy calls of an actor's five tools, then an outage of some of them."""
    rng = random.Random(seed)
    made: list[Call] = []
    for i in range(600 + calls):
        tool = f"t{rng.randrange(5)}"
        failed = rng.random() < (rate if i >= 600 and tool in broken else 0.005)
        made.append(Call(i, Outcome.ERROR if failed else Outcome.OK, tool=tool))
    return fold(make_shard(CoreSettings(failure=QUICK, priors=priors)), made)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("rate", "calls"), [(1.0, 60), (0.5, 400)])
def test_one_tools_outage_does_not_trip_its_actor(seed: int, rate: float, calls: int) -> None:
    """Not even where the tool's own null is so high that it is never found."""
    stubborn = (Prior(60, 20, tool="t0"),)
    outputs = outage(seed, stubborn, ("t0",), rate, calls)
    assert signals(outputs, Scope.ACTOR, SignalLevel.WARN), "there was evidence against the actor"
    assert not signals(outputs, Scope.ACTOR)


@pytest.mark.parametrize("seed", range(5))
def test_several_tools_at_once_trip_their_actor(seed: int) -> None:
    stubborn = (Prior(60, 20, tool="t*"),)
    outputs = outage(seed, stubborn, ("t0", "t1", "t2"), 0.5, 120)
    assert signals(outputs, Scope.ACTOR)


def test_a_tools_evidence_leaves_its_actors_when_it_warns() -> None:
    """One tool trips; of what it had added to the actor's evidence nothing stays."""
    outputs = outage(1, (), ("t0",), 1.0, 200)
    assert [signal.tool for signal in signals(outputs, Scope.ACTOR_TOOL)] == ["t0"]
    assert not signals(outputs, Scope.ACTOR)


def found_of_actor(
    rules: str, broken: tuple[str, ...], cuts: list[int] | None = None
) -> list[tuple[int, float | None]]:
    """When actor ``a`` trips, three of whose five tools may fail from the 600th call on, and with which evidence."""
    rng, made = random.Random(7), list[Call]()
    for i in range(1_000):
        tool = f"t{rng.randrange(5)}"
        failed = rng.random() < (0.5 if i >= 600 and tool in broken else 0.005)
        made.append(Call(i, Outcome.ERROR if failed else Outcome.OK, actor="a", tool=tool))
    shard = make_shard(rules=compile_rules(rules.encode(), "f").rules)
    return [(each.ts, each.evidence_log10) for each in signals(fold(shard, made, cuts), Scope.ACTOR)]


THREE = ("t0", "t1", "t2")
RULE = """
version: 1
blast_radius: {{tenant_actors: 100%}}
breakers:
  failing: {{metric: calls.failed, scope: ACTOR, test: {{kind: e-detector, {}}}, action: READ_ONLY, mode: enforce}}
{}
"""
TOOLS = """
  tools: {metric: calls.failed, scope: ACTOR_TOOL, action: DISABLE_TOOL,
    test: {kind: e-detector, baseline: {known: 50%}, warn: 1e99, trip: 1e99}, match: {tool: "PATTERN"}}
"""


@pytest.mark.parametrize("broken", [("t0",), THREE])
def test_levels_of_an_override_are_what_they_are_in_a_rule(broken: tuple[str, ...]) -> None:
    # What a tool explains of an actor's evidence was compared with the levels of the rule without its overrides.
    levels = "warn: 1e3, trip: 1e5"
    override = f"overrides: [{{match: {{actor: a}}, set: {{failing: {{test: {{{levels}}}}}}}}}]"
    found = found_of_actor(RULE.format("warn: 1e8, trip: 1e12", override), broken)
    assert found == found_of_actor(RULE.format(levels, ""), broken)
    assert bool(found) == (broken == THREE)


def test_an_actors_evidence_needs_no_rule_about_its_tools() -> None:
    # Calls of tools without a rule of their own never came to their actor's: it was not followed, without a word.
    rules = RULE.format("warn: 1e3, trip: 1e5", "{}")
    of_all = found_of_actor(rules.replace("{}", TOOLS.replace("PATTERN", "*")), THREE)
    assert len(of_all) == 1
    assert found_of_actor(rules.replace("{}", ""), THREE) == of_all
    some = rules.replace("{}", TOOLS.replace("PATTERN", "t0"))
    assert found_of_actor(some, THREE) == of_all
    assert found_of_actor(some, THREE, list(range(1, 1_000))) == of_all
