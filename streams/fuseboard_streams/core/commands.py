"""From a breaker's state to the command that enforcers obey, and to a line that people can read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fuseboard_schemas.records import (
    BreakerCommand,
    BreakerState,
    Cause,
    Hold,
    Mode,
)

if TYPE_CHECKING:
    from fuseboard_streams.core.breaker import Breaker, Evidence
    from fuseboard_streams.core.breaker_params import BreakerParams

__all__ = ["describe_evidence", "describe_reason", "shown", "time_words", "to_command"]

_SUBJECT_LENGTH = 120
"""Characters of a name that are shown: names come from outside and may be as long as a record."""
_REASON_LENGTH = 500
"""Characters of a reason that are shown: people and other programs give them too."""
_DAY_US = 86_400_000_000


def to_command(breaker: Breaker, params: BreakerParams) -> BreakerCommand | None:
    """The record that publishes a breaker's state.

    Args:
        breaker: The state after a transition.
        params: The settings under which it was made.

    Returns:
        The command; None (a tombstone) for a breaker that was forgotten. HALF_OPEN keeps the axes of OPEN, and only
        the probes pass; CLOSED and FORCED_CLOSED restrict nothing.
    """
    if breaker.forgotten:
        return None
    axes = breaker.axes
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
        action=breaker.action,
        model=axes.model,
        writes=axes.writes,
        tool_access=axes.tool_access,
        run=axes.run,
        mode=Mode.ENFORCE,
        severity=breaker.severity,
        cause=breaker.cause,
        reason=describe_reason(breaker, params),
        rule=breaker.rule,
        rules_version=breaker.rules_version,
        runbook=breaker.runbook,
        since=breaker.decided_at if closed else breaker.since,
        retry_at=breaker.retry_at,
        cooldown_ms=None if breaker.retry_at is None else breaker.cooldown_us // 1000,
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
        holds=tuple(
            Hold(rule=hold.rule, action=hold.action, since=hold.first_since, recovery=hold.recovery)
            for hold in breaker.holds
        ),
        person=breaker.person,
        expires_at=breaker.expires_at,
    )


def describe_evidence(subject: str, evidence: Evidence, at_us: int) -> str:
    """What was found about a target, in one line, the same on every machine.

    Args:
        subject: Name of the tool or actor.
        evidence: What was counted.
        at_us: When it is said, microseconds: a start on another UTC day is given with its date.
    """
    if evidence.failures is None or evidence.calls is None:
        return f"{_name(subject)} is held"
    since = "" if evidence.since_us is None else f" since {_time(evidence.since_us, at_us)}"
    found = f"{_name(subject)} failed in {evidence.failures} of {evidence.calls} calls{since}"
    if evidence.log10 is None or evidence.null_p0 is None:
        return found
    return f"{found} (evidence 10^{evidence.log10:.1f} against a baseline of at most {_percent(evidence.null_p0)})"


def describe_reason(breaker: Breaker, params: BreakerParams) -> str:
    """Why a breaker is in its state, in one line, the same on every machine."""
    name, test = _name(breaker.subject), breaker.test
    again = f"; next probes at {_time(breaker.retry_at, breaker.decided_at)}" if breaker.retry_at is not None else ""
    ok, failed = (test.ok, test.failed) if test else (0, 0)
    match breaker.cause:
        case Cause.COOLDOWN_OVER | Cause.NEXT_WAVE:
            share = f"up to {breaker.quota} from each of {breaker.clients_in_wave} clients"
            return f"probing {name}: wave {breaker.wave}, {share}; so far {ok} succeeded and {failed} failed"
        case Cause.PROBES_PASSED:
            lower = f"; {breaker.action} remains{again}" if breaker.holds else ""
            return f"{ok} of {ok + failed} probes of {name} succeeded{lower}"
        case Cause.PROBES_FAILED:
            return f"{failed} of {ok + failed} probes of {name} failed{again}"
        case Cause.PROBES_UNDECIDED:
            return f"{ok + failed} probes of {name} did not decide, {failed} of them failed{again}"
        case Cause.NO_PROBES:
            return f"{params.empty_waves} waves of probes of {name} in a row brought no result{again}"
        case _:
            given = shown(breaker.reason)
            return given or describe_evidence(breaker.subject, breaker.evidence, breaker.decided_at)


def shown(reason: str) -> str:
    """A reason that somebody gave as one line of at most 500 characters, for people."""
    return _name(reason, _REASON_LENGTH)


def _name(name: str, length: int = _SUBJECT_LENGTH) -> str:
    short = name if len(name) <= length else name[: length - 1] + "…"
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in short)


def time_words(time_us: int) -> str:
    """A time with its date, for people, in whole seconds by UTC."""
    return _time(time_us, -_DAY_US)


def _time(time_us: int, at_us: int) -> str:
    # numpy's calendar covers every 64-bit microsecond; datetime ends with the year 9999 and would raise.
    date, _, clock = str(np.datetime64(time_us // 1_000_000, "s")).partition("T")
    return f"{clock}Z" if time_us // _DAY_US == at_us // _DAY_US else f"{date} {clock}Z"


def _percent(probability: float) -> str:
    return f"{100 * probability:.3g}%"
