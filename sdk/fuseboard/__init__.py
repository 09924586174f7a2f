"""Fuseboard: circuit breakers for AI agents.

from fuseboard import Effect, Fuseboard

fuse = Fuseboard(actor="support_agent")

@fuse.tool(effect=Effect.WRITE)
def refund(order_id: str) -> str: ...

with fuse.session():
    refund("42")
"""

from fuseboard.calls import Call, current_call
from fuseboard.client import Fuseboard
from fuseboard.errors import ConfigurationError, FuseboardError, ToolBlocked
from fuseboard.gate import OnStale
from fuseboard.settings import Settings
from fuseboard_schemas.records import (
    Action,
    Decision,
    DeniedBy,
    Effect,
    ModelAccess,
    Outcome,
    PolicyDecision,
    RouteTier,
    Scope,
    StepKind,
    TaskResult,
)

__all__ = [
    "Action",
    "Call",
    "ConfigurationError",
    "Decision",
    "DeniedBy",
    "Effect",
    "Fuseboard",
    "FuseboardError",
    "ModelAccess",
    "OnStale",
    "Outcome",
    "PolicyDecision",
    "RouteTier",
    "Scope",
    "Settings",
    "StepKind",
    "TaskResult",
    "ToolBlocked",
    "current_call",
]
