"""The records as frozen dataclasses.

Times are integer microseconds since 1970-01-01 UTC, money is integer micro-dollars.
"""

# Generated from avsc/*.avsc by `python -m fuseboard_schemas.generate`; do not edit.
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

RECORDS: dict[str, type[Record]] = {
    "ToolCall": ToolCall,
    "TraceStep": TraceStep,
    "PolicyDecision": PolicyDecision,
    "TaskOutcome": TaskOutcome,
    "SessionRequest": SessionRequest,
    "EvalResult": EvalResult,
    "Signal": Signal,
    "Rules": Rules,
    "Override": Override,
    "Pane": Pane,
    "BreakerCommand": BreakerCommand,
    "EnforcementAck": EnforcementAck,
    "Alert": Alert,
    "Aggregate": Aggregate,
    "AuditRecord": AuditRecord,
    "Heartbeat": Heartbeat,
    "DeadLetter": DeadLetter,
    "StateRecord": StateRecord,
}
"""Record name to class."""

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
