"""Moments of a demo as they were recorded, for tests: an outage, a trip, refusals, probes, recovery."""

from __future__ import annotations

from fuseboard_schemas.keys import breaker_id
from fuseboard_schemas.records import (
    Action,
    BreakerCommand,
    BreakerState,
    Cause,
    Mode,
    ModelAccess,
    RunAccess,
    Scope,
    Severity,
    Signal,
    SignalLevel,
    ToolAccess,
    WriteAccess,
)
from fuseboard_streams.demo.moments import (
    Acknowledged,
    Applied,
    Attempt,
    Committed,
    Decided,
    Moment,
    Refused,
    Signalled,
)
from fuseboard_streams.demo.story import TENANT

ACTOR = "tau-airline/gpt-4o/trial0"
OTHER = "tau-airline/gpt-4o/trial1"
TOOL = "get_reservation_details"
START = 1_790_000_000_000_000
"""When the outage begins."""
ENDED = START + 1_000_000
"""The end of the deciding call."""


def target(actor: str = ACTOR, tool: str = TOOL) -> str:
    return breaker_id(Scope.ACTOR_TOOL, TENANT, actor=actor, tool=tool)


def command(
    state: BreakerState, cause: Cause, epoch: int, *, actor: str = ACTOR, tool: str = TOOL, **changes: object
) -> BreakerCommand:
    free = state is BreakerState.CLOSED
    values: dict[str, object] = {
        "breaker_id": target(actor, tool),
        "epoch": epoch,
        "ts": ENDED,
        "tenant": TENANT,
        "scope": Scope.ACTOR_TOOL,
        "actor": actor,
        "tool": tool,
        "state": state,
        "action": Action.NONE if free else Action.DISABLE_TOOL,
        "model": ModelAccess.ANY,
        "writes": WriteAccess.FREE,
        "tool_access": ToolAccess.ON if free else ToolAccess.OFF,
        "run": RunAccess.ON,
        "mode": Mode.ENFORCE,
        "severity": Severity.TICKET,
        "cause": cause,
        "reason": f"{tool} failed",
        "rule": "tool-failing",
        "rules_version": "builtin-1",
        "since": ENDED,
        "cooldown_ms": 7_100,
        "calls_seen": 22,
        "failures_seen": 18,
        "evidence_log10": 6.12,
        "null_p0": 0.2684,
        "event_id": "e" * 32,
        "source_offset": 311,
        **changes,
    }
    return BreakerCommand(**values)  # type: ignore[arg-type]


def trip(actor: str = ACTOR, tool: str = TOOL) -> Committed:
    return Committed(command(BreakerState.OPEN, Cause.TRIP, 100, actor=actor, tool=tool), ENDED + 13_000)


def warning(actor: str = ACTOR, tool: str = TOOL) -> Signalled:
    signal = Signal(
        signal_id="s",
        ts=ENDED,
        source="failure",
        tenant=TENANT,
        scope=Scope.ACTOR_TOOL,
        actor=actor,
        tool=tool,
        level=SignalLevel.WARN,
        metric="calls.failed",
        evidence_log10=4.1,
        calls=8,
        failures=8,
        reason=f"{tool} failed in 8 of 8 calls",
    )
    return Signalled(signal, ENDED - 200_000)


def refusal(at_us: int, actor: str = ACTOR) -> Refused:
    return Refused(actor, TOOL, at_us, "DISABLE_TOOL", "ACTOR_TOOL", target(actor), 100, 6.8, "it failed")


def enforcement() -> list[Moment]:
    """From the first failure to the first refusal."""
    return [
        Attempt(ACTOR, TOOL, START + 10, ok=False),
        Attempt(OTHER, TOOL, START + 20, ok=True),
        warning(),
        Attempt(ACTOR, TOOL, ENDED, ok=False),
        Attempt(ACTOR, TOOL, ENDED + 5_000, ok=False),
        Applied(target(), 100, ENDED + 18_000),
        trip(),
        Decided(target(), 100, "e" * 32, ENDED),
        Acknowledged(target(), 100, ENDED + 41_000),
        refusal(ENDED + 60_000),
        refusal(ENDED + 80_000),
    ]


def recovery() -> list[Moment]:
    """From the end of the cooldown to a call that passes."""
    half_open = command(BreakerState.HALF_OPEN, Cause.COOLDOWN_OVER, 200, wave=1, probe_quota=10)
    closed = command(BreakerState.CLOSED, Cause.PROBES_PASSED, 300, probes_ok=3, probes_failed=0)
    later = ENDED + 8_000_000
    return [
        Committed(half_open, later),
        Applied(target(), 200, later + 1_000),
        *(Attempt(ACTOR, TOOL, later + 2_000 + i, ok=True, probe=True) for i in range(3)),
        Committed(closed, later + 9_000),
        Applied(target(), 300, later + 10_000),
        Attempt(ACTOR, TOOL, later + 20_000, ok=True),
    ]
