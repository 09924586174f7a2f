"""From a breaker's state to the command that enforcers obey, and to a line that people can read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fuseboard_schemas.axes import Axes, axes_of
from fuseboard_schemas.records import (
    Action,
    BreakerCommand,
    BreakerState,
    Cause,
    Hold,
)

if TYPE_CHECKING:
    from fuseboard_streams.core.breaker import Breaker, Evidence
    from fuseboard_streams.core.breaker_params import BreakerParams

__all__ = ["Axes", "axes_of", "describe_evidence", "describe_reason", "to_command"]

_SUBJECT_LENGTH = 120
"""Characters of a name that are shown: names come from outside and may be as long as a record."""
_DAY_US = 86_400_000_000


def to_command(breaker: Breaker, params: BreakerParams, *, runbook: str | None = None) -> BreakerCommand | None:
    """The record that publishes a breaker's state.

    Args:
        breaker: The state after a transition.
        params: The settings under which it was made.
        runbook: What to read when it trips.

    Returns:
        The command; None (a tombstone) for a breaker that was forgotten. HALF_OPEN keeps the axes of OPEN, and only
        the probes pass; CLOSED and FORCED_CLOSED restrict nothing.
    """
    if breaker.forgotten:
        return None
    free = breaker.state in (BreakerState.CLOSED, BreakerState.FORCED_CLOSED)
    axes = axes_of(() if free else (breaker.action,))
    hold = Hold(rule=breaker.rule, action=breaker.action, since=breaker.since, recovery=breaker.recovery)
    closed = breaker.state is BreakerState.CLOSED
    test, evidence = breaker.test, breaker.evidence
    return BreakerCommand(
        breaker_id=breaker.breaker_id,
        epoch=breaker.epoch,
        ts=breaker.decided_at,
        tenant=breaker.tenant,
        scope=breaker.scope,
        actor=breaker.actor,
        tool=breaker.tool,
        trace_id=breaker.trace_id,
        state=breaker.state,
        action=Action.NONE if free else breaker.action,
        model=axes.model,
        writes=axes.writes,
        tool_access=axes.tool_access,
        run=axes.run,
        mode=breaker.mode,
        severity=breaker.severity,
        cause=breaker.cause,
        reason=describe_reason(breaker, params),
        rule=breaker.rule,
        rules_version=breaker.rules_version,
        runbook=runbook,
        since=breaker.decided_at if closed else breaker.since,
        retry_at=breaker.due if breaker.state is BreakerState.OPEN else None,
        cooldown_ms=breaker.cooldown_us // 1000 if breaker.state is BreakerState.OPEN else None,
        reopenings=breaker.reopenings,
        wave=breaker.wave,
        probe_quota=breaker.quota,
        probes_ok=test.ok if test else 0,
        probes_failed=test.failed if test else 0,
        evidence_log10=evidence.log10,
        null_p0=evidence.null_p0,
        calls_seen=evidence.calls,
        failures_seen=evidence.failures,
        evidence_since=evidence.since_us,
        event_id=breaker.event_id,
        source_offset=breaker.offset,
        holds=() if closed else (hold,),
    )


def describe_evidence(subject: str, evidence: Evidence, at_us: int) -> str:
    """What was found about a target, in one line, the same on every machine.

    Args:
        subject: Name of the tool or actor.
        evidence: What was counted.
        at_us: When it is said, microseconds: a start on another UTC day is given with its date.
    """
    return (
        f"{_name(subject)} failed in {evidence.failures} of {evidence.calls} calls since "
        f"{_time(evidence.since_us, at_us)} (evidence 10^{evidence.log10:.1f} against a baseline of at most "
        f"{_percent(evidence.null_p0)})"
    )


def describe_reason(breaker: Breaker, params: BreakerParams) -> str:
    """Why a breaker is in its state, in one line, the same on every machine."""
    name, test = _name(breaker.subject), breaker.test
    again = f"; next probes at {_time(breaker.due, breaker.decided_at)}" if breaker.due is not None else ""
    ok, failed = (test.ok, test.failed) if test else (0, 0)
    match breaker.cause:
        case Cause.COOLDOWN_OVER | Cause.NEXT_WAVE:
            share = f"up to {breaker.quota} from each of {breaker.clients_in_wave} clients"
            return f"probing {name}: wave {breaker.wave}, {share}; so far {ok} succeeded and {failed} failed"
        case Cause.PROBES_PASSED:
            return f"{ok} of {ok + failed} probes of {name} succeeded"
        case Cause.PROBES_FAILED:
            return f"{failed} of {ok + failed} probes of {name} failed{again}"
        case Cause.PROBES_UNDECIDED:
            return f"{ok + failed} probes of {name} did not decide, {failed} of them failed{again}"
        case Cause.NO_PROBES:
            return f"{params.empty_waves} waves of probes of {name} in a row brought no result{again}"
        case _:
            return breaker.reason or describe_evidence(breaker.subject, breaker.evidence, breaker.decided_at)


def _name(name: str) -> str:
    short = name if len(name) <= _SUBJECT_LENGTH else name[: _SUBJECT_LENGTH - 1] + "…"
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in short)


def _time(time_us: int, at_us: int) -> str:
    # numpy's calendar covers every 64-bit microsecond; datetime ends with the year 9999 and would raise.
    date, _, clock = str(np.datetime64(time_us // 1_000_000, "s")).partition("T")
    return f"{clock}Z" if time_us // _DAY_US == at_us // _DAY_US else f"{date} {clock}Z"


def _percent(probability: float) -> str:
    return f"{100 * probability:.3g}%"
