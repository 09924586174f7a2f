"""Which orders of people can be carried out at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fuseboard_schemas.records import Action, Override, OverrideKind, Scope
from fuseboard_schemas.rules import check_override

NOW = 1_795_435_200_000_000
TRIP = Override(
    override_id="o1",
    ts=NOW,
    tenant="default",
    scope=Scope.ACTOR_TOOL,
    actor="agent",
    tool="refund",
    kind=OverrideKind.TRIP,
    action=Action.DISABLE_TOOL,
    person="alice",
    reason="incident 42",
)
RESET = replace(TRIP, kind=OverrideKind.RESET, action=Action.NONE)


@pytest.mark.parametrize(
    "order",
    [
        TRIP,
        replace(TRIP, expires_at=NOW + 1, epoch=7),
        replace(TRIP, scope=Scope.ACTOR, tool=None, action=Action.HALT),
        replace(TRIP, scope=Scope.TOOL, actor=None, action=Action.REQUIRE_APPROVAL),
        replace(TRIP, scope=Scope.TENANT, actor=None, tool=None, action=Action.READ_ONLY),
        replace(TRIP, scope=Scope.SESSION, tool=None, trace_id="0af7", action=Action.HALT),
        replace(TRIP, kind=OverrideKind.HOLD),
        replace(TRIP, kind=OverrideKind.HOLD, action=Action.NONE),
        replace(RESET, rule="tool-failing"),
        RESET,
        replace(RESET, kind=OverrideKind.ACKNOWLEDGE),
        replace(RESET, kind=OverrideKind.BYPASS, expires_at=NOW + 1),
    ],
)
def test_good_orders(order: Override) -> None:
    assert check_override(order, NOW) is None


@pytest.mark.parametrize(
    ("order", "changes", "words"),
    [
        (TRIP, {"override_id": ""}, "override_id is empty"),
        (TRIP, {"override_id": "x" * 257}, "override_id is longer"),
        (TRIP, {"person": " "}, "person is empty"),
        (TRIP, {"reason": ""}, "reason is empty"),
        (TRIP, {"reason": "ü" * 2049}, "reason is longer than 4096 bytes"),
        (TRIP, {"tenant": ""}, "tenant is empty"),
        (TRIP, {"actor": ""}, "actor is empty"),
        (TRIP, {"actor": None}, "actor is null"),
        (TRIP, {"tool": "a\x00"}, "tool contains a NUL"),
        (TRIP, {"trace_id": "0af7"}, "trace_id is given"),
        (TRIP, {"scope": Scope.ACTOR}, "tool is given"),
        (TRIP, {"scope": Scope.OTHER}, "scope is OTHER"),
        (TRIP, {"action": Action.NONE}, "action NONE does not fit"),
        (TRIP, {"action": Action.HALT}, "expected one of REQUIRE_APPROVAL, DISABLE_TOOL"),
        (TRIP, {"kind": OverrideKind.HOLD, "action": Action.READ_ONLY}, "action READ_ONLY does not fit"),
        (TRIP, {"rule": "tool-failing"}, "only RESET"),
        (TRIP, {"expires_at": NOW}, "in the past"),
        (TRIP, {"kind": OverrideKind.BYPASS, "expires_at": NOW + 1}, "enforces nothing"),
        (RESET, {"kind": OverrideKind.BYPASS}, "a bypass must end"),
        (RESET, {"expires_at": NOW + 1}, "does not last"),
        (RESET, {"kind": OverrideKind.ACKNOWLEDGE, "expires_at": NOW + 1}, "does not last"),
        (RESET, {"kind": OverrideKind.APPROVE}, "reserved"),
        (RESET, {"kind": OverrideKind.OTHER}, "no order"),
    ],
)
def test_bad_orders_are_named(order: Override, changes: dict[str, Any], words: str) -> None:
    assert words in (check_override(replace(order, **changes), NOW) or "")
