"""Breakers with several holds, and those held open or closed by hand: enforcers obey the axes that workers join."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import pytest

from fuseboard import Action, Effect, ModelAccess, Scope, ToolBlocked
from fuseboard.view import Breaker
from fuseboard_schemas.axes import Axes, axes_of, plain_action
from fuseboard_schemas.codec import Decoder, Encoder
from fuseboard_schemas.keys import Target
from fuseboard_schemas.records import BreakerState, Hold, Recovery
from fuseboard_streams.core.breaker import Moment
from fuseboard_streams.core.breaker_params import BreakerParams
from fuseboard_streams.core.breakers import Breakers
from fuseboard_streams.core.commands import to_command
from fuseboard_streams.core.ruleset import RecoveryPlan, Response, Rung
from tests.unit.sdk.support import NOW_US, World, command, world

if TYPE_CHECKING:
    from collections.abc import Callable

EFFECTS = (Effect.READ, Effect.WRITE, Effect.IRREVERSIBLE)
AXES = [axes_of(some) for n in range(4) for some in itertools.combinations(Action, n)]


def axes_as_fields(axes: Axes) -> dict[str, Any]:
    return {field.name: getattr(axes, field.name) for field in fields(axes)}


def guarded(there: World, effect: Effect = Effect.READ, approves: bool | None = None) -> Callable[[], str]:
    given = {} if approves is None else {"approve": lambda _: approves}

    @there.fuse.tool(effect=effect, name="refund", **given)
    def tool() -> str:
        return "done"

    there.alive()
    return tool


def refusal(tool: Callable[[], object]) -> ToolBlocked:
    with pytest.raises(ToolBlocked) as caught:
        tool()
    return caught.value


@pytest.mark.parametrize("actions", [some for n in (1, 2, 3) for some in itertools.combinations(Action, n)])
def test_worker_and_enforcer_agree_on_the_join(actions: tuple[Action, ...]) -> None:
    """Through a real breaker with one hold for each action, its command's bytes, and the enforcer's view."""
    breakers = Breakers(BreakerParams())
    for action in actions:
        response = Response(f"rule-{action}", (Rung(action),), recovery=RecoveryPlan(Recovery.PERSON))
        breakers.fire(Target(Scope.ACTOR, "default", "agent"), Moment(NOW_US), response)
    state = breakers.get("ACTOR:default/agent")
    assert state is not None
    made = to_command(state, BreakerParams())
    seen = Breaker.of(Decoder().decode(Encoder("BreakerCommand").encode(made), "BreakerCommand"))
    assert seen is not None
    assert seen.axes == axes_of(actions)
    assert seen.axes == axes_of(hold.action for hold in seen.command.holds)
    assert seen.command.action is plain_action(axes_of(actions))


@pytest.mark.parametrize("state", [BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.FORCED_OPEN])
@pytest.mark.parametrize("axes", AXES)
def test_the_enforcer_obeys_the_joined_axes(state: BreakerState, axes: Axes) -> None:
    made = replace(command(state=state), **axes_as_fields(axes))
    breaker = Breaker.of(made)
    assert breaker is not None
    assert [breaker.refuses(each) for each in EFFECTS] == [axes.refuses(each) for each in EFFECTS]
    assert [breaker.wants_approval(each) for each in EFFECTS] == [axes.wants_approval(each) for each in EFFECTS]
    assert breaker.fast_model_only is (axes.model is ModelAccess.FAST_ONLY)


def test_fast_models_and_approval_at_once() -> None:
    """Two holds on one actor: reads pass, writes need a person, and only fast models may be called."""
    there = world()
    axes = axes_of((Action.FAST_MODEL_ONLY, Action.REQUIRE_APPROVAL))
    there.command(replace(command(Scope.ACTOR, plain_action(axes)), **axes_as_fields(axes)))
    assert guarded(there)() == "done"
    assert guarded(there, Effect.WRITE, approves=True)() == "done"
    assert refusal(guarded(there, Effect.WRITE, approves=False)).action is Action.REQUIRE_APPROVAL
    assert there.fuse.model_tier() is ModelAccess.FAST_ONLY


def test_a_forced_breaker_names_who_ordered_it_and_until_when() -> None:
    there = world()
    forced = command(
        state=BreakerState.FORCED_OPEN, person="alice", expires_at=1_795_437_000_000_000, reason="incident 42"
    )
    there.command(forced)
    for effect in EFFECTS:
        blocked = refusal(guarded(there, effect))
        assert blocked.reason == "incident 42; ordered by alice, until 2026-11-23 12:30:00Z"
        assert blocked.retry_after == pytest.approx((1_795_437_000_000_000 - NOW_US) / 1e6)


@pytest.mark.parametrize(("expires_at", "words"), [(None, "until it is reset"), (2**63 - 1, "until 294247-")])
def test_a_forced_breaker_without_an_end_says_so(expires_at: int | None, words: str) -> None:
    there = world()
    there.command(command(state=BreakerState.FORCED_OPEN, person="bob", expires_at=expires_at))
    assert f"ordered by bob, {words}" in refusal(guarded(there)).reason


def test_a_bypass_lets_everything_pass_whatever_holds_underneath() -> None:
    there = world()
    hold = Hold(rule="r", action=Action.HALT, since=NOW_US, recovery=Recovery.PERSON)
    there.command(command(epoch=1))
    there.command(command(state=BreakerState.FORCED_CLOSED, epoch=2, holds=(hold,), person="alice"))
    for effect in EFFECTS:
        assert guarded(there, effect)() == "done"


@pytest.mark.parametrize(("recovery", "said"), [(Recovery.PROBE, True), (Recovery.CLEAR, False)])
def test_only_what_is_probed_is_said_to_need_a_person_for_irreversible_calls(recovery: Recovery, said: bool) -> None:
    there = world()
    hold = Hold(rule="r", action=Action.DISABLE_TOOL, since=NOW_US, recovery=recovery)
    there.command(command(holds=(hold,)))
    assert ("never probes" in refusal(guarded(there, Effect.IRREVERSIBLE)).reason) is said
