"""Calls past an open breaker against the published commands, one call at a time, whatever the cuts."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache

import pytest

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.axes import Axes
from fuseboard_schemas.records import (
    Action,
    BreakerCommand,
    BreakerState,
    Effect,
    Mode,
    Outcome,
    Recovery,
    Scope,
    Signal,
    WriteAccess,
)
from fuseboard_streams.core.rulebook import built_in
from fuseboard_streams.core.ruleset import (
    Match,
    RecoveryPlan,
    Response,
    Rule,
    RuleSet,
    Rung,
    UngatedTest,
    Variant,
)
from fuseboard_streams.core.settings import SECOND, CoreSettings
from fuseboard_streams.core.shard import Shard
from tests.support.calls import T0, Call, fold, make_shard, prepared
from tests.support.random_calls import cuts_of, random_calls, with_probes

SETTINGS = CoreSettings(failure=FailureParams(trip=1e4, warn=1e2, period=20, floor=0.01))
AFTER = {"actor": 3 * SECOND, "tool": 8 * SECOND}
# Such a rule fires at every call that has a time of its own: what only watches waits for this long.
OFTEN = RecoveryPlan(Recovery.PERSON, max_cooldown_us=1)


def gate_rule(name: str, scope: Scope, action: Action, mode: Mode = Mode.WARN, plan: RecoveryPlan = OFTEN) -> Rule:
    response = Response(name, (Rung(action),), mode, plan)
    return Rule(name, "calls.ungated", scope, Match(), Variant(UngatedTest(AFTER[name]), response))


WATCHED = (gate_rule("actor", Scope.ACTOR, Action.HALT), gate_rule("tool", Scope.ACTOR_TOOL, Action.DISABLE_TOOL))
RULES = RuleSet("test", (*built_in(SETTINGS).rules, *WATCHED))
Found = tuple[int, str, str]
"""The call's place, the rule and the target."""


def shard() -> Shard:
    return make_shard(SETTINGS, rules=RULES)


@cache
def history(seed: int) -> list[Call]:
    """Calls that obey nobody; some that a person approved, or that a read-only actor may make."""
    made = with_probes(shard(), random_calls(seed, 900, tools=3 + seed % 3), seed)
    return [replace(call, outcome=Outcome.OK) if i % 50 == 0 else call for i, call in enumerate(made)]


def found_in(outputs: list[object]) -> list[Found]:
    signals = [each for each in outputs if isinstance(each, Signal) and each.metric == "calls.ungated"]
    return [(int((s.event_id or "e-1")[1:]), s.rule or "", f"{s.actor}/{s.tool or ''}") for s in signals]


class Model:
    """Enforcement as the commands ask for it."""

    def __init__(self) -> None:
        self.commands: dict[str, BreakerCommand] = {}
        self.quiet: dict[tuple[str, str], int] = {}
        self.stream = 0
        self.found: list[Found] = []

    def fold(self, i: int, call: Call, records: list[object]) -> None:
        self.stream = max(self.stream, self.ended(call))
        commands = [each for each in records if isinstance(each, BreakerCommand)]
        self.commands |= {each.breaker_id: each for each in commands if each.event_id is None}
        if not call.probe or call.gate is None:
            self.judge(i, call)
        self.commands |= {each.breaker_id: each for each in commands}

    @staticmethod
    def ended(call: Call) -> int:
        arrival = call.at if call.arrival is None else call.arrival
        return T0 + round((arrival if call.at > arrival + 5 else call.at) * SECOND)

    def judge(self, i: int, call: Call) -> None:
        if call.outcome not in (Outcome.OK, Outcome.ERROR, Outcome.TIMEOUT) or self.stream - self.ended(call) > 3e8:
            return
        own = [c for c in self.commands.values() if c.actor == call.actor and c.tool in (None, call.tool)]
        since = min((c.ts for c in own if self.refuses(c, call.effect)), default=None)
        began = self.ended(call) - (call.duration_ms or 0) * 1000
        for rule, after in AFTER.items():
            target = f"{call.actor}/{call.tool if rule == 'tool' else ''}"
            if since is None or began - since <= after or self.stream <= self.quiet.get((rule, target), 0):
                continue
            self.quiet[rule, target] = self.stream
            self.found.append((i, rule, target))

    @staticmethod
    def refuses(command: BreakerCommand, effect: Effect) -> bool:
        axes = Axes.of(command)
        refused = axes.stops or (axes.writes is WriteAccess.REFUSED and effect is not Effect.READ)
        return command.state in (BreakerState.OPEN, BreakerState.FORCED_OPEN) and refused


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_found_is_what_the_commands_forbid_whatever_the_cuts(seed: int) -> None:
    calls, subject, model = history(seed), shard(), Model()
    one_by_one = []
    for i, call in enumerate(calls):
        before = subject.counters.duplicates
        outputs = fold(subject, [call], first_offset=i)
        one_by_one += outputs
        if subject.counters.duplicates == before:
            model.fold(i, call, [each.record for each in outputs])
    expected = found_in([each.record for each in one_by_one])
    assert {rule for _, rule, _ in expected} == {"actor", "tool"}
    assert expected == model.found
    for parts in (0, 9):
        assert fold(shard(), calls, cuts_of(random.Random(seed), len(calls), parts)) == one_by_one


def test_an_abort_or_a_restore_in_between_changes_nothing() -> None:
    calls = history(1)
    expected = fold(shard(), calls)
    live, outputs, size = shard(), [], 60
    for offset in range(0, len(calls), size):
        part = calls[offset : offset + size]
        for last in (False, True):
            live.begin()
            live.fold_tool_calls(prepared(part, 0, offset))
            made = live.take_outputs()
            block = live.encode_changes(1 << 24).block
            if last:
                live.commit()
            else:
                live.rollback()
        outputs += made
        if offset % (4 * size) == 0:
            live = shard()
            live.apply(block)
            live.finish_restore()
    assert outputs == expected


def outage(effect: Effect = Effect.WRITE) -> list[Call]:
    """A tool fails until it is switched off; ten seconds later it is called as if nothing had happened."""
    failing = [Call(i * 0.1, Outcome.ERROR, trace=f"x{i}", tool="down") for i in range(20)]
    return [*failing, *(Call(13 + i, trace=f"y{i}", tool="down", effect=effect) for i in range(4))]


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.WARN])
def test_an_agent_without_a_gate_is_told_of_once(mode: Mode) -> None:
    rule = gate_rule("actor", Scope.ACTOR, Action.HALT, mode, RecoveryPlan(Recovery.PERSON))
    subject = make_shard(SETTINGS, rules=RuleSet("test", (*built_in(SETTINGS).rules, rule)))
    records = [each.record for each in fold(subject, outage())]
    found = [each for each in records if isinstance(each, Signal) and each.rule == "actor"]
    assert [each.event_id for each in found] == ["e20"]
    assert found[0].reason is not None
    assert found[0].reason.startswith("client 1 executed down (WRITE) 12.")
    halted = [each for each in records if isinstance(each, BreakerCommand) and each.action is Action.HALT]
    assert len(halted) == (mode is Mode.ENFORCE)


def test_without_a_rule_nothing_is_kept() -> None:
    subject = make_shard(SETTINGS)
    fold(subject, outage())
    assert not subject._state.tools["gate"].any()
