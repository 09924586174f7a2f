"""What the gate admits and refuses."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from fuseboard import Action, DeniedBy, Effect, ModelAccess, Outcome, Scope, ToolBlocked
from fuseboard.gate import FREE
from fuseboard_schemas.records import BreakerState, Mode, StepKind
from tests.unit.sdk.support import NOW_US, World, command, decode, world

if TYPE_CHECKING:
    from collections.abc import Callable

READ, WRITE, IRREVERSIBLE = Effect.READ, Effect.WRITE, Effect.IRREVERSIBLE


@pytest.fixture
def there() -> World:
    return world()


def guarded(there: World, effect: Effect = WRITE, name: str = "refund", **settings: Any) -> Callable[[], str]:
    @there.fuse.tool(effect=effect, name=name, **settings)
    def tool() -> str:
        return "done"

    there.alive()
    return tool


def refusal(tool: Callable[[], object]) -> ToolBlocked:
    with pytest.raises(ToolBlocked) as caught:
        tool()
    return caught.value


def passes(tool: Callable[[], str]) -> bool:
    try:
        return tool() == "done"
    except ToolBlocked:
        return False


@pytest.mark.parametrize(
    ("action", "refused"),
    [
        (Action.FAST_MODEL_ONLY, set()),
        (Action.REQUIRE_APPROVAL, {WRITE, IRREVERSIBLE}),
        (Action.READ_ONLY, {WRITE, IRREVERSIBLE}),
        (Action.DISABLE_TOOL, {READ, WRITE, IRREVERSIBLE}),
        (Action.HALT, {READ, WRITE, IRREVERSIBLE}),
    ],
)
@pytest.mark.parametrize("state", [BreakerState.OPEN, BreakerState.FORCED_OPEN])
def test_each_action_refuses_its_effects(
    there: World, action: Action, refused: set[Effect], state: BreakerState
) -> None:
    tools = {effect: guarded(there, effect) for effect in Effect}
    there.command(command(Scope.ACTOR, action, state))
    assert {effect for effect, tool in tools.items() if not passes(tool)} == refused


@pytest.mark.parametrize("scope", [Scope.ACTOR, Scope.ACTOR_TOOL, Scope.TOOL, Scope.TENANT])
def test_each_scope_reaches_its_calls_and_no_others(there: World, scope: Scope) -> None:
    mine, other_tool = guarded(there), guarded(there, name="look")
    other_actor = there.fuse.as_actor("somebody").tool(effect=WRITE, name="refund")(lambda: "done")
    there.alive()
    there.command(command(scope, Action.HALT))
    assert [passes(mine), passes(other_tool), passes(other_actor)] == {
        Scope.ACTOR: [False, False, True],
        Scope.ACTOR_TOOL: [False, True, True],
        Scope.TOOL: [False, True, False],
        Scope.TENANT: [False, False, False],
    }[scope]


def test_a_session_breaker_stops_one_trace_only(there: World) -> None:
    tool = guarded(there)
    with there.fuse.trace() as looping:
        there.command(command(Scope.SESSION, Action.HALT, trace_id=looping.trace_id))
        assert refusal(tool).scope is Scope.SESSION
    with there.fuse.trace():
        assert passes(tool)


@pytest.mark.parametrize("mode", [Mode.SHADOW, Mode.WARN])
def test_only_enforced_breakers_refuse(there: World, mode: Mode) -> None:
    tool = guarded(there)
    there.command(command(mode=mode))
    assert passes(tool)


@pytest.mark.parametrize("state", [BreakerState.CLOSED, BreakerState.FORCED_CLOSED])
def test_a_closed_breaker_lets_pass(there: World, state: BreakerState) -> None:
    tool = guarded(there)
    there.command(command(epoch=1))
    assert not passes(tool)
    there.command(command(state=state, epoch=2))
    assert passes(tool)


def test_the_refusal_says_everything(there: World) -> None:
    tool = guarded(there)
    there.command(command(epoch=42, retry_at=NOW_US + 12_000_000))
    there.clock.sleep(2.0)
    blocked = refusal(tool)
    assert blocked.tool == "refund"
    assert blocked.action is Action.DISABLE_TOOL
    assert blocked.scope is Scope.ACTOR_TOOL
    assert blocked.reason == "12 of the last 20 calls failed"
    assert blocked.breaker_id == "ACTOR_TOOL:default/support_agent/refund"
    assert blocked.epoch == 42
    assert blocked.retry_after == pytest.approx(10.0)
    assert blocked.runbook == "docs/runbooks/tool-failing.md"
    assert "Retry after 10 s." in str(blocked)


def test_a_refused_call_is_published_as_denied(there: World) -> None:
    tool = guarded(there)
    there.command(command(epoch=42))
    refusal(tool)
    (call,) = there.calls()
    assert call.outcome is Outcome.DENIED
    assert call.denied_by is DeniedBy.BREAKER
    assert (call.gate_breaker, call.gate_epoch) == ("ACTOR_TOOL:default/support_agent/refund", 42)
    assert not call.probe


def test_the_hardest_of_several_breakers_is_named(there: World) -> None:
    tool = guarded(there)
    there.command(command(Scope.ACTOR, Action.READ_ONLY))
    there.command(command(Scope.TENANT, Action.HALT))
    assert refusal(tool).action is Action.HALT


def test_a_wave_admits_its_quota_and_the_next_wave_again(there: World) -> None:
    tool = guarded(there)
    there.command(command(state=BreakerState.HALF_OPEN, epoch=5, probe_quota=3))
    assert [passes(tool) for _ in range(6)] == [True] * 3 + [False] * 3
    assert refusal(tool).retry_after is not None
    there.command(command(state=BreakerState.HALF_OPEN, epoch=6, probe_quota=1))
    assert [passes(tool) for _ in range(3)] == [True, False, False]
    calls = there.calls()
    assert [call.probe for call in calls] == [True] * 3 + [False] * 4 + [True] + [False] * 2
    assert [call.gate_epoch for call in calls] == [5] * 7 + [6] * 3


def test_a_wave_is_not_admitted_again_when_its_command_is_read_again(there: World) -> None:
    tool = guarded(there)
    wave = command(state=BreakerState.HALF_OPEN, epoch=5, probe_quota=1)
    there.command(wave)
    assert passes(tool)
    there.command(wave)
    assert not passes(tool)


def test_half_open_read_only_probes_with_writes_and_leaves_reads_free(there: World) -> None:
    write, read = guarded(there, WRITE, "change"), guarded(there, READ, "look")
    there.command(command(Scope.ACTOR, Action.READ_ONLY, BreakerState.HALF_OPEN, probe_quota=1))
    assert all(passes(read) for _ in range(5))
    assert [passes(write), passes(write)] == [True, False]
    assert [call.probe for call in there.calls() if call.tool == "look"] == [False] * 5


@pytest.mark.parametrize("action", [Action.READ_ONLY, Action.DISABLE_TOOL, Action.HALT])
def test_an_irreversible_call_is_never_a_probe(there: World, action: Action) -> None:
    tool = guarded(there, IRREVERSIBLE)
    scope = Scope.ACTOR_TOOL if action is Action.DISABLE_TOOL else Scope.ACTOR
    there.command(command(scope, action, BreakerState.HALF_OPEN, probe_quota=10))
    assert not passes(tool)
    (call,) = there.calls()
    assert not call.probe


def test_a_quota_holds_over_threads(there: World) -> None:
    tool = guarded(there)
    there.command(command(state=BreakerState.HALF_OPEN, probe_quota=7))
    start = threading.Barrier(8)

    def many(_: int) -> int:
        start.wait()
        return sum(passes(tool) for _ in range(50))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(many, range(8))) == 7


def test_a_call_under_two_half_open_breakers_uses_both_quotas_and_is_marked_for_the_needier(there: World) -> None:
    tool = guarded(there)
    there.command(command(Scope.ACTOR_TOOL, Action.DISABLE_TOOL, BreakerState.HALF_OPEN, epoch=1, probe_quota=4))
    there.command(command(Scope.ACTOR, Action.READ_ONLY, BreakerState.HALF_OPEN, epoch=2, probe_quota=4))
    assert [passes(tool) for _ in range(6)] == [True] * 4 + [False] * 2
    marked = [call.gate_epoch for call in there.calls() if call.probe]
    assert sorted(marked) == [1, 1, 2, 2]


def test_an_open_breaker_beats_a_half_open_one_and_uses_no_quota(there: World) -> None:
    tool = guarded(there)
    there.command(command(state=BreakerState.HALF_OPEN, epoch=1, probe_quota=1))
    there.command(command(Scope.ACTOR, Action.READ_ONLY, epoch=1))
    assert refusal(tool).scope is Scope.ACTOR
    there.command(command(Scope.ACTOR, Action.READ_ONLY, BreakerState.CLOSED, epoch=2))
    assert passes(tool)


# ------------------------------------------------------------------ approval


def test_an_approved_write_passes_and_shows_the_breaker(there: World) -> None:
    asked = []

    def approve(call: Any) -> bool:
        asked.append(call.tool)
        return True

    tool = guarded(there, WRITE, approve=approve)
    there.command(command(Scope.ACTOR, Action.REQUIRE_APPROVAL, epoch=3))
    assert passes(tool)
    assert asked == ["refund"]
    (call,) = there.calls()
    assert (call.outcome, call.probe, call.gate_epoch) == (Outcome.OK, False, 3)


def test_an_approval_that_is_refused_denies(there: World) -> None:
    tool = guarded(there, WRITE, approve=lambda call: False)
    there.command(command(Scope.ACTOR, Action.REQUIRE_APPROVAL))
    assert refusal(tool).action is Action.REQUIRE_APPROVAL
    (call,) = there.calls()
    assert call.denied_by is DeniedBy.APPROVAL


def test_an_approval_hook_that_fails_approves_nothing(there: World) -> None:
    def approve(call: Any) -> bool:
        raise KeyError

    tool = guarded(there, WRITE, approve=approve)
    there.command(command(Scope.ACTOR, Action.REQUIRE_APPROVAL))
    assert not passes(tool)


def test_nobody_can_approve_what_is_refused_outright(there: World) -> None:
    tool = guarded(there, WRITE, approve=lambda call: True)
    there.command(command(Scope.ACTOR, Action.READ_ONLY))
    assert not passes(tool)


def test_an_asynchronous_approval_does_not_pass_a_synchronous_call(there: World) -> None:
    async def approve(call: Any) -> bool:
        return True

    tool = guarded(there, WRITE, approve=approve)
    there.command(command(Scope.ACTOR, Action.REQUIRE_APPROVAL))
    assert not passes(tool)


# ------------------------------------------------------------------ staleness


def test_staleness_follows_the_effect(there: World) -> None:
    tools = {effect: guarded(there, effect, effect.value) for effect in Effect}
    there.alive(5.0)
    assert all(passes(tool) for tool in tools.values())
    there.clock.sleep(6.0)
    assert {effect: passes(tool) for effect, tool in tools.items()} == {READ: True, WRITE: True, IRREVERSIBLE: False}
    blocked = refusal(tools[IRREVERSIBLE])
    assert blocked.action is Action.NONE
    assert blocked.breaker_id is None
    assert blocked.reason.startswith("control plane stale")
    there.deliver()
    (warning,) = decode(there.broker, "TraceStep")
    assert warning.kind is StepKind.WARNING


def test_a_stale_write_warns_once_per_interval(there: World) -> None:
    tool = guarded(there, WRITE)
    there.alive(-1.0)
    for _ in range(5):
        assert passes(tool)
    there.clock.sleep(61.0)
    assert passes(tool)
    there.deliver()
    assert len(decode(there.broker, "TraceStep")) == 2


def test_on_stale_can_be_chosen(there: World) -> None:
    strict, lenient = guarded(there, READ, "a", on_stale="deny"), guarded(there, IRREVERSIBLE, "b", on_stale="allow")
    there.alive(-1.0)
    assert not passes(strict)
    assert passes(lenient)


def test_a_stale_view_still_refuses_what_it_knows_to_be_open(there: World) -> None:
    tool = guarded(there, READ)
    there.command(command())
    there.alive(-1.0)
    assert refusal(tool).scope is Scope.ACTOR_TOOL


def test_only_a_call_that_would_be_denied_waits_for_the_first_catch_up_and_once(there: World) -> None:
    read = there.fuse.tool(effect=READ, name="look")(lambda: "done")
    destroy = there.fuse.tool(effect=IRREVERSIBLE, name="destroy")(lambda: "done")
    assert passes(read)
    assert there.clock() == 1000.0
    assert not passes(destroy)
    assert there.clock() == pytest.approx(1002.0, abs=0.02)
    assert not passes(destroy)
    assert there.clock() == pytest.approx(1002.0, abs=0.02)


def test_a_waiting_call_passes_as_soon_as_the_view_is_ready(there: World) -> None:
    destroy = there.fuse.tool(effect=IRREVERSIBLE, timeout=1.0, name="destroy")(lambda: "done")
    slept = there.clock.sleep

    def sleep(seconds: float) -> None:
        slept(seconds)
        if there.clock() > 1000.5:
            there.alive()

    there.runtime.sleep = sleep
    assert passes(destroy)
    assert there.clock() < 1000.6
    (call,) = there.calls()
    assert call.duration_ms == 0, "waiting for the gate is not the tool's time"


def test_the_decision_is_cached_until_something_changes(there: World) -> None:
    tool = there.fuse._tool("refund", WRITE, None, None, None)
    there.alive()
    (slot,) = tool._slots.values()
    gate = there.runtime.gate
    assert gate.decide(slot, None, there.clock()) is FREE
    state = slot.state
    assert gate.decide(slot, None, there.clock()) is FREE
    assert slot.state is state
    there.command(command())
    assert isinstance(gate.decide(slot, None, there.clock()), ToolBlocked)


def test_the_model_tier_follows_the_actor_and_the_tenant(there: World) -> None:
    assert there.fuse.model_tier() is ModelAccess.ANY
    there.command(command(Scope.ACTOR, Action.FAST_MODEL_ONLY, epoch=1))
    assert there.fuse.model_tier() is ModelAccess.FAST_ONLY
    assert there.fuse.as_actor("other").model_tier() is ModelAccess.ANY
    there.command(command(Scope.ACTOR, Action.FAST_MODEL_ONLY, BreakerState.CLOSED, epoch=2))
    assert there.fuse.model_tier() is ModelAccess.ANY


def test_a_disabled_client_admits_and_publishes_nothing() -> None:
    there = world(enabled=False)
    tool = guarded(there, IRREVERSIBLE)
    there.command(command())
    assert passes(tool)
    assert there.fuse.flush(0) == 0
    assert there.broker.connections == 0


def test_no_time_is_promised_for_a_tool_that_nobody_probes() -> None:
    there = world()
    tool = guarded(there, IRREVERSIBLE)
    there.command(command(state=BreakerState.OPEN, action=Action.DISABLE_TOOL, retry_at=NOW_US + 10_000_000))
    blocked = refusal(tool)
    assert blocked.retry_after is None
    assert "until a person acts" in str(blocked)
