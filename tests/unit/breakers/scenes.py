"""A breaker on a virtual timeline: what the tests of its life share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuseboard_schemas.keys import Target
from fuseboard_schemas.records import Action, BreakerState, Scope
from fuseboard_streams.core.breaker import Breaker, Evidence, Moment, id_of
from fuseboard_streams.core.breaker_params import BreakerParams
from fuseboard_streams.core.breakers import Breakers
from fuseboard_streams.core.ruleset import Response, Rung

if TYPE_CHECKING:
    from collections.abc import Callable

SECOND = 1_000_000
NOON = 1_795_435_200 * SECOND
"""2026-11-23T12:00:00Z, a whole second."""
TARGET = Target(Scope.ACTOR_TOOL, "default", "support_agent_v4", "billing.refund")
RESPONSE = Response(
    rule="tool-failing",
    ladder=(Rung(Action.DISABLE_TOOL),),
    runbook="docs/runbooks/tool-failing.md",
    rules_version="builtin-1",
)
ID = "ACTOR_TOOL:default/support_agent_v4/billing.refund"


def at(seconds: float, event_id: str | None = "e1", offset: int | None = 7) -> Moment:
    """So many seconds after noon."""
    return Moment(NOON + round(seconds * SECOND), event_id, offset)


def evidence(p0: float = 0.005) -> Evidence:
    return Evidence(log10=6.187654, null_p0=p0, calls=9, failures=8, since_us=NOON - 56 * SECOND)


def clients(number: int) -> Callable[[str, str], int]:
    return lambda tenant, actor: number


def trip(breakers: Breakers, seconds: float = 0.0, target: Target = TARGET, p0: float = 0.005) -> Breaker:
    breakers.fire(target, at(seconds), RESPONSE, evidence(p0))
    return now(breakers, id_of(target))


def to_half_open(breakers: Breakers, number_of_clients: int = 1) -> Breaker:
    """Run the next timer, which must open a wave."""
    due = breakers.next_due()
    assert due is not None
    (wave,) = breakers.tick(due, clients(number_of_clients))
    assert wave.state is BreakerState.HALF_OPEN
    return wave


def half_open(params: BreakerParams | None = None, number_of_clients: int = 1, p0: float = 0.005) -> Breakers:
    """One breaker, tripped at noon and now in its first wave."""
    breakers = Breakers(params or BreakerParams())
    trip(breakers, p0=p0)
    to_half_open(breakers, number_of_clients)
    return breakers


def now(breakers: Breakers, breaker_id: str = ID) -> Breaker:
    breaker = breakers.get(breaker_id)
    assert breaker is not None
    return breaker


def probe(breakers: Breakers, ok: bool, after_s: float = 1.0, breaker_id: str = ID) -> tuple[Breaker, ...]:
    """A result under the present epoch, so many seconds after the last transition."""
    breaker = now(breakers, breaker_id)
    moment = Moment(breaker.decided_at + round(after_s * SECOND), "e2", 8)
    return breakers.probe(breaker_id, breaker.epoch, ok, moment)
