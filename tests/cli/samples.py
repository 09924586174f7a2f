"""Records with fixed contents, and a fixed moment to look at them."""

from fuseboard_schemas.records import (
    Action,
    BreakerCommand,
    BreakerState,
    Cause,
    Effect,
    EnforcementAck,
    Hold,
    Mode,
    ModelAccess,
    Outcome,
    Recovery,
    RunAccess,
    Scope,
    Severity,
    ToolAccess,
    ToolCall,
    WriteAccess,
)

NOW = 1_795_406_400_000_000  # 2026-11-23 04:00:00 UTC
SECOND = 1_000_000
MINUTE = 60 * SECOND
BREAKER = "ACTOR_TOOL:default/support_agent_v4/get_reservation_details"


def command(**changes: object) -> BreakerCommand:
    """Return the command of a tool breaker that tripped 12 s before ``NOW``."""
    values: dict[str, object] = {
        "breaker_id": BREAKER,
        "epoch": 1_795_406_388_000,
        "ts": NOW - 12 * SECOND,
        "tenant": "default",
        "scope": Scope.ACTOR_TOOL,
        "actor": "support_agent_v4",
        "tool": "get_reservation_details",
        "state": BreakerState.OPEN,
        "action": Action.DISABLE_TOOL,
        "model": ModelAccess.ANY,
        "writes": WriteAccess.FREE,
        "tool_access": ToolAccess.OFF,
        "run": RunAccess.ON,
        "mode": Mode.ENFORCE,
        "severity": Severity.PAGE,
        "cause": Cause.TRIP,
        "reason": "13 of 21 calls failed",
        "rule": "tool-failing",
        "rules_version": "builtin-1",
        "runbook": "docs/runbooks/tool-failing.md",
        "since": NOW - 12 * SECOND,
        "retry_at": NOW + 18 * SECOND,
        "cooldown_ms": 30_000,
        "evidence_log10": 6.3124,
        "null_p0": 0.005,
        "calls_seen": 21,
        "failures_seen": 13,
        "evidence_since": NOW - 3 * MINUTE,
        "event_id": "0193-call-21",
        "source_offset": 1042,
        "holds": (
            Hold(
                rule="tool-failing",
                action=Action.DISABLE_TOOL,
                since=NOW - 12 * SECOND,
                recovery=Recovery.PROBE,
            ),
        ),
    }
    return BreakerCommand(**{**values, **changes})  # type: ignore[arg-type]


def half_open(**changes: object) -> BreakerCommand:
    """Return the command of the same breaker in its second wave of probes."""
    values: dict[str, object] = {
        "state": BreakerState.HALF_OPEN,
        "cause": Cause.NEXT_WAVE,
        "reason": "second wave",
        "wave": 2,
        "probe_quota": 5,
        "probes_ok": 7,
        "probes_failed": 1,
        "retry_at": NOW + 20 * SECOND,
        "ts": NOW - 10 * SECOND,
        "since": NOW - 4 * MINUTE,
        "epoch": 1_795_406_390_000,
        "reopenings": 1,
        "cooldown_ms": None,
    }
    return command(**{**values, **changes})


def closed(**changes: object) -> BreakerCommand:
    """Return the command of an actor's breaker that closed an hour ago."""
    values: dict[str, object] = {
        "breaker_id": "ACTOR:acme/billing_agent",
        "tenant": "acme",
        "scope": Scope.ACTOR,
        "actor": "billing_agent",
        "tool": None,
        "state": BreakerState.CLOSED,
        "action": Action.NONE,
        "tool_access": ToolAccess.ON,
        "cause": Cause.PROBES_PASSED,
        "reason": "14 probes passed",
        "ts": NOW - 60 * MINUTE,
        "since": NOW - 60 * MINUTE,
        "retry_at": None,
        "cooldown_ms": None,
        "evidence_log10": None,
        "calls_seen": None,
        "failures_seen": None,
        "evidence_since": None,
        "event_id": None,
        "source_offset": None,
        "holds": (),
    }
    return command(**{**values, **changes})


def ack(**changes: object) -> EnforcementAck:
    """Return the acknowledgement of the open command by one agent process."""
    values: dict[str, object] = {
        "breaker_id": BREAKER,
        "epoch": 1_795_406_388_000,
        "state": BreakerState.OPEN,
        "tenant": "default",
        "actor": "support_agent_v4",
        "client_id": -1,
        "enforcer": "agent-7",
        "ts": NOW - 12 * SECOND + 120_000,
        "command_ts": NOW - 12 * SECOND,
        "seq": 1,
    }
    return EnforcementAck(**{**values, **changes})  # type: ignore[arg-type]


def call(**changes: object) -> ToolCall:
    """Return a failed tool call that ended at ``NOW``."""
    values: dict[str, object] = {
        "event_id": "e1",
        "ts": NOW,
        "actor": "support_agent_v4",
        "tool": "billing.refund",
        "effect": Effect.WRITE,
        "outcome": Outcome.ERROR,
        "error_type": "RateLimitError",
        "duration_ms": 1_240,
        "cost_usd_micros": 1_200,
        "attempt": 2,
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }
    return ToolCall(**{**values, **changes})  # type: ignore[arg-type]
