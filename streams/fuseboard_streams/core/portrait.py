"""The whole state of one actor as its shard has it, for people. Reads only; nothing here decides anything."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Final

import numpy as np

from fuseboard_detectors.arithmetic import log10
from fuseboard_detectors.failure import (
    FailureState,
    count_failure,
    fold_successes,
    learn_successes,
    mean_r,
    renew_null,
)
from fuseboard_schemas.keys import Target, parse_breaker_id
from fuseboard_schemas.records import Recovery, Scope
from fuseboard_streams.core.breaker import id_of
from fuseboard_streams.core.layout import EPOCH_S
from fuseboard_streams.core.portrait_measures import measures_of
from fuseboard_streams.core.portrayed import ActorPortrait, FailurePortrait, HoldPortrait, WaitingPortrait
from fuseboard_streams.core.rulebook import NONE
from fuseboard_streams.core.runs import places
from fuseboard_streams.core.settings import SECOND

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fuseboard_detectors.failure import FailureParams
    from fuseboard_streams.core.breaker import Breaker
    from fuseboard_streams.core.holds import RuleHold
    from fuseboard_streams.core.parts import Parts
    from fuseboard_streams.core.rulebook import FailureLevel
    from fuseboard_streams.core.shard import Shard
    from fuseboard_streams.core.statistics import Statistic

__all__ = ["portrait"]

_MOST: Final = 1_000
_OF_AN_ACTOR: Final = (Scope.ACTOR, Scope.ACTOR_TOOL, Scope.SESSION)


def portrait(shard: Shard, tenant: str, actor: str) -> ActorPortrait | None:
    """What a shard knows of an actor; None if it knows nothing.

    Args:
        shard: The actor's home, outside a transaction.
        tenant: The actor's tenant.
        actor: Its name.
    """
    parts = shard.parts
    row = parts.identities.find_actor(tenant, actor)
    holds = tuple(_holds(parts, tenant, actor))
    if row is None and not holds:
        return None
    asked = parts.second.waiting_for(id_of(Target(Scope.ACTOR, tenant, actor)))
    waiting = tuple(
        WaitingPortrait(rule, each.metric, each.reason, each.evidence.get("log10"))
        for rule, each in sorted(asked.items())
    )
    if row is None:
        return ActorPortrait(
            tenant, actor, parts.stream_time, parts.book.version, None, 0, None, holds=holds, waiting=waiting
        )
    state = parts.state
    used = state.actors.used_rows("experience", np.array([row]))
    return ActorPortrait(
        tenant,
        actor,
        parts.stream_time,
        parts.book.version,
        _time(state.actors["last_seen"][row]),
        state.clients_seen(row, parts.stream_time - parts.settings.breaker.client_window_us),
        int(state.actors["calls"][row]) if len(used) else None,
        tuple(_failures(parts, row)),
        holds=holds,
        waiting=waiting,
        **measures_of(parts, row),
    )


def _time(seconds: int) -> int:
    """A last-seen time of the tables, in microseconds."""
    return (int(seconds) + EPOCH_S) * SECOND


# --- failures


def _failures(parts: Parts, actor: int) -> Iterator[FailurePortrait]:
    state, book = parts.state, parts.book
    yield _failure(parts, state.actor_statistic, book.actors, actor, None)
    top = state.tools.high_water
    rows = places((state.tools["actor"][:top] == actor) & state.tools.live[:top])
    names = [parts.identities.tool_names[number] for number in state.tools["tool"][rows].tolist()]
    for name, row in sorted(zip(names, rows.tolist(), strict=True)):
        yield _failure(parts, state.tool_statistic, book.tools, row, name)


def _failure(parts: Parts, statistic: Statistic, level: FailureLevel, row: int, tool: str | None) -> FailurePortrait:
    table, actors = statistic.table, parts.state.actors
    owner = row if tool is None else int(table["actor"][row])
    number = level.number(str(actors["tenant"][owner]), str(actors["actor"][owner]), tool or "")
    params = level.params(number)
    response = None if number == NONE else level.response(number)
    resting = bool(table["frozen"][row])
    anew = _begins_anew(parts, statistic, level, number, row)
    state = FailureState.fresh(1, params) if anew else statistic.load(np.array([row]))
    mean = float(mean_r(fold_successes(state.r, state.p0, state.successes, params.odds))[0])
    counts = int(state.run_calls[0] + state.successes[0]), int(state.run_failures[0])
    since = int(state.run_since[0]) if state.run_failures[0] else None
    straight = None if resting or number == NONE else _straight_failures(_copy(state), parts.stream_time, params)
    # What the next failure would do first: learn what was well since the last one, and take the null anew.
    learn_successes(state, params)
    renew_null(state, params)
    return FailurePortrait(
        tool,
        None if response is None else response.rule,
        None if response is None else str(response.mode),
        float(state.p0[0]),
        int(state.learned_calls[0]),
        int(state.learned_failures[0]),
        int(state.pending_calls[0] + state.parked_calls[0]),
        _log10(mean) if mean > 0.0 else None,
        _log10(params.warn),
        _log10(params.trip),
        *counts,
        since,
        mean >= params.warn,
        resting,
        anew,
        straight,
        _time(table["last_seen"][row]),
    )


def _log10(value: float) -> float:
    return round(float(log10(np.array([value]))[0]), 6)


def _begins_anew(parts: Parts, statistic: Statistic, level: FailureLevel, number: int, row: int) -> bool:
    table = statistic.table
    if table["frozen"][row]:
        return False
    idle_s = parts.stream_time // SECOND - EPOCH_S - int(table["last_seen"][row])
    if idle_s > parts.settings.forget_after_us // SECOND:
        return True
    return parts.state.rules_version is not None and int(table["basis"][row]) != level.basis(number)


def _copy(state: FailureState) -> FailureState:
    return FailureState(**{each.name: getattr(state, each.name).copy() for each in fields(FailureState)})


def _straight_failures(state: FailureState, now_us: int, params: FailureParams) -> int | None:
    """How many failures in a row, each of another trace, bring a key to its trip level from where it is.

    Of an actor: if no single one of its tools explains them.
    """
    at = np.array([now_us])
    for count in range(1, _MOST + 1):
        if count_failure(state, at, params).tripped[0]:
            return count
    return None


# --- holds


def _holds(parts: Parts, tenant: str, actor: str) -> Iterator[HoldPortrait]:
    breakers = parts.breakers
    for identity in breakers.open_ids():
        breaker = breakers.get(identity)
        if breaker is not None and (breaker.tenant, breaker.actor) == (tenant, actor):
            yield from (_hold(breaker, hold) for hold in breaker.holds)
            if breaker.forced is not None:
                forced = breaker.forced
                actions = "+".join(str(each) for each in forced.actions) or None
                yield HoldPortrait(
                    identity, str(breaker.state), f"order of {forced.person}", watching=False, since_us=forced.since,
                    action=actions, recovery="PERSON", reason=forced.reason, until_us=forced.expires_at,
                )  # fmt: skip
    for identity, rule in breakers.virtual.open_keys():
        target = parse_breaker_id(identity)
        watched = breakers.virtual.get(identity, rule)
        mine = target.scope in _OF_AN_ACTOR and (target.tenant, target.actor) == (tenant, actor)
        if mine and watched is not None and watched.is_open(parts.stream_time):
            yield HoldPortrait(
                identity, "CLOSED", rule, watching=True, since_us=watched.since,
                until_us=None if watched.on else watched.until,
            )  # fmt: skip


def _hold(breaker: Breaker, hold: RuleHold) -> HoldPortrait:
    test = breaker.test if hold.probes else None
    return HoldPortrait(
        breaker.breaker_id,
        str(breaker.state),
        hold.rule,
        watching=False,
        since_us=hold.first_since,
        action=str(hold.action),
        recovery=str(hold.recovery),
        condition=str(hold.condition),
        rung=hold.rung + 1,
        rungs=len(hold.ladder),
        reason=hold.reason or None,
        last_on_us=hold.last_on,
        quiet_us=hold.plan.quiet_us if hold.recovery is Recovery.CLEAR else None,
        until_us=hold.until if hold.expires_at is None else hold.expires_at,
        climb_at_us=hold.climb_at,
        probe_at_us=hold.probe_at,
        probes_ok=None if test is None else test.ok,
        probes_failed=None if test is None else test.failed,
    )
