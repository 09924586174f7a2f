"""The records as frozen dataclasses.

Times are integer microseconds since 1970-01-01 UTC, money is integer micro-dollars. The modules are loaded at the first
use of one of their names: making all classes takes longer than an agent process should wait at its start.
"""

# Generated from avsc/*.avsc by `python -m fuseboard_schemas.generate`; do not edit.
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TypeAlias

    from fuseboard_schemas.records.control import (
        Alert,
        BreakerCommand,
        EnforcementAck,
        Hold,
        Override,
        Pane,
        Rules,
        Signal,
    )
    from fuseboard_schemas.records.enums import (
        Action,
        AlertAction,
        AuditKind,
        BreakerState,
        Cause,
        DeadLetterReason,
        Decision,
        DeniedBy,
        Effect,
        EvalArm,
        GraderKind,
        Mode,
        ModelAccess,
        Outcome,
        OverrideKind,
        PaneKind,
        Recovery,
        RouteTier,
        RunAccess,
        Scope,
        ScoreKind,
        Severity,
        SignalLevel,
        StateKind,
        StepKind,
        TaskResult,
        ToolAccess,
        WriteAccess,
    )
    from fuseboard_schemas.records.events import (
        EvalResult,
        PolicyDecision,
        SessionRequest,
        TaskOutcome,
        ToolCall,
        TraceStep,
    )
    from fuseboard_schemas.records.internals import (
        Aggregate,
        AuditRecord,
        DeadLetter,
        Heartbeat,
        InputRange,
        NearTrip,
        StateRecord,
    )

    Record: TypeAlias = (
        ToolCall
        | TraceStep
        | PolicyDecision
        | TaskOutcome
        | SessionRequest
        | EvalResult
        | Signal
        | Rules
        | Override
        | Pane
        | BreakerCommand
        | EnforcementAck
        | Alert
        | Aggregate
        | AuditRecord
        | Heartbeat
        | DeadLetter
        | StateRecord
    )
    """Any record that is the value of a topic."""
    RECORDS: dict[str, type[Record]]
    """Record name to class."""

_HOMES = {
    "Action": "enums",
    "Aggregate": "internals",
    "Alert": "control",
    "AlertAction": "enums",
    "AuditKind": "enums",
    "AuditRecord": "internals",
    "BreakerCommand": "control",
    "BreakerState": "enums",
    "Cause": "enums",
    "DeadLetter": "internals",
    "DeadLetterReason": "enums",
    "Decision": "enums",
    "DeniedBy": "enums",
    "Effect": "enums",
    "EnforcementAck": "control",
    "EvalArm": "enums",
    "EvalResult": "events",
    "GraderKind": "enums",
    "Heartbeat": "internals",
    "Hold": "control",
    "InputRange": "internals",
    "Mode": "enums",
    "ModelAccess": "enums",
    "NearTrip": "internals",
    "Outcome": "enums",
    "Override": "control",
    "OverrideKind": "enums",
    "Pane": "control",
    "PaneKind": "enums",
    "PolicyDecision": "events",
    "Recovery": "enums",
    "RouteTier": "enums",
    "Rules": "control",
    "RunAccess": "enums",
    "Scope": "enums",
    "ScoreKind": "enums",
    "SessionRequest": "events",
    "Severity": "enums",
    "Signal": "control",
    "SignalLevel": "enums",
    "StateKind": "enums",
    "StateRecord": "internals",
    "StepKind": "enums",
    "TaskOutcome": "events",
    "TaskResult": "enums",
    "ToolAccess": "enums",
    "ToolCall": "events",
    "TraceStep": "events",
    "WriteAccess": "enums",
}
_RECORDS = (
    "ToolCall",
    "TraceStep",
    "PolicyDecision",
    "TaskOutcome",
    "SessionRequest",
    "EvalResult",
    "Signal",
    "Rules",
    "Override",
    "Pane",
    "BreakerCommand",
    "EnforcementAck",
    "Alert",
    "Aggregate",
    "AuditRecord",
    "Heartbeat",
    "DeadLetter",
    "StateRecord",
)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name == "RECORDS":
        value = {record: __getattr__(record) for record in _RECORDS}
    elif name == "Record":
        value = __getattr__(_RECORDS[0])
        for record in _RECORDS[1:]:
            value |= __getattr__(record)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


__all__ = [
    "RECORDS",
    "Action",
    "Aggregate",
    "Alert",
    "AlertAction",
    "AuditKind",
    "AuditRecord",
    "BreakerCommand",
    "BreakerState",
    "Cause",
    "DeadLetter",
    "DeadLetterReason",
    "Decision",
    "DeniedBy",
    "Effect",
    "EnforcementAck",
    "EvalArm",
    "EvalResult",
    "GraderKind",
    "Heartbeat",
    "Hold",
    "InputRange",
    "Mode",
    "ModelAccess",
    "NearTrip",
    "Outcome",
    "Override",
    "OverrideKind",
    "Pane",
    "PaneKind",
    "PolicyDecision",
    "Record",
    "Recovery",
    "RouteTier",
    "Rules",
    "RunAccess",
    "Scope",
    "ScoreKind",
    "SessionRequest",
    "Severity",
    "Signal",
    "SignalLevel",
    "StateKind",
    "StateRecord",
    "StepKind",
    "TaskOutcome",
    "TaskResult",
    "ToolAccess",
    "ToolCall",
    "TraceStep",
    "WriteAccess",
]
