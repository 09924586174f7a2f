"""What people order: trips, resets, holds, bypasses and acknowledgements by hand. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fuseboard_schemas.records import Action, BreakerState, Cause, Override, OverrideKind
from fuseboard_streams.core.breaker import Breaker, Forced, Moment
from fuseboard_streams.core.commands import time_words

if TYPE_CHECKING:
    from fuseboard_streams.core.transitions import Transitions

__all__ = ["Answer", "answer_order"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of an order."""

    breaker: Breaker | None = None
    """The breaker's new state; None if nothing changes."""
    publish: bool = False
    """Whether it is to be published: not if only somebody took note."""
    refused: str | None = None
    """Why the order is refused."""


def answer_order(transitions: Transitions, before: Breaker, order: Override, moment: Moment) -> Answer:
    """Carry an order out.

    Args:
        transitions: What makes the new state.
        before: The breaker's state, `Breaker.of` its target if it has never tripped.
        order: An order that ``check_override`` accepts.
        moment: Stream time; the order's id and its offset in ``overrides``.
    """
    if order.epoch is not None and order.epoch != before.epoch:
        return Answer(
            refused=f"epoch {order.epoch} is stale: {before.breaker_id} is at epoch {before.epoch} now; look at it "
            "again and repeat the order if it still holds"
        )
    match order.kind:
        case OverrideKind.TRIP:
            return _force(transitions, before, order, moment, opens=True, actions=(order.action,))
        case OverrideKind.BYPASS:
            return _force(transitions, before, order, moment, opens=False, actions=())
        case OverrideKind.HOLD:
            return _hold(transitions, before, order, moment)
        case OverrideKind.RESET:
            return _reset(transitions, before, order, moment)
        case OverrideKind.ACKNOWLEDGE:
            if before.state is BreakerState.CLOSED:
                return Answer(refused=f"{before.breaker_id} is closed: there is nothing to acknowledge")
            noted = replace(before, acknowledged_by=order.person, acknowledged_at=moment.time_us)
            return Answer(noted)
        case _:
            return Answer(refused=f"kind {order.kind}: this version does not carry such orders out")


def _force(
    transitions: Transitions,
    before: Breaker,
    order: Override,
    moment: Moment,
    *,
    opens: bool,
    actions: tuple[Action, ...],
) -> Answer:
    forced = Forced(opens, actions, order.person, order.reason, moment.time_us, order.expires_at)
    after = transitions.arrive(before, moment, Cause.OVERRIDE, holds=before.holds, reason=order.reason, forced=forced)
    return Answer(after, publish=True)


def _hold(transitions: Transitions, before: Breaker, order: Override, moment: Moment) -> Answer:
    if before.state in (BreakerState.CLOSED, BreakerState.FORCED_CLOSED):
        return Answer(
            refused=f"{before.breaker_id} is {before.state}: there is no restriction to hold; trip it instead"
        )
    standing = before.forced
    if standing is not None and order.expires_at is not None:
        end = standing.expires_at
        if end is None or end > order.expires_at:
            until = "without end" if end is None else f"until {time_words(end)}"
            return Answer(
                refused=f"the order of {standing.person} holds {before.breaker_id} open {until} already, and this one "
                "would end sooner: give it no end, or a later one; trip it to replace that order, or reset it"
            )
    asked = [action for hold in before.holds for action in hold.actions]
    asked += before.forced.actions if before.forced else ()
    asked += () if order.action is Action.NONE else (order.action,)
    actions = tuple(dict.fromkeys(asked))
    return _force(transitions, before, order, moment, opens=True, actions=actions)


def _reset(transitions: Transitions, before: Breaker, order: Override, moment: Moment) -> Answer:
    if order.rule is None:
        if before.state is BreakerState.CLOSED:
            return Answer()
        after = transitions.arrive(before, moment, Cause.OVERRIDE, holds=(), reason=order.reason, person=order.person)
        return Answer(after, publish=True)
    holds = tuple(hold for hold in before.holds if hold.rule != order.rule)
    if len(holds) == len(before.holds):
        return Answer(refused=f"rule {order.rule} does not hold {before.breaker_id}")
    after = transitions.arrive(
        before,
        moment,
        Cause.OVERRIDE,
        holds=holds,
        about=before.hold_of(order.rule),
        reason=order.reason,
        forced=before.forced,
        person=order.person,
    )
    return Answer(after, publish=True)
