"""Field rules: what a record that decodes must still fulfil to be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuseboard_schemas.axes import ACTIONS_OF
from fuseboard_schemas.records import Action, OverrideKind, Scope

if TYPE_CHECKING:
    from fuseboard_schemas.records import Override

MAX_NAME_BYTES = 256
MAX_REASON_BYTES = 4_096
_PARTS = {
    Scope.ACTOR: ("actor",),
    Scope.ACTOR_TOOL: ("actor", "tool"),
    Scope.TOOL: ("tool",),
    Scope.TENANT: (),
    Scope.SESSION: ("actor", "trace_id"),
}
"""What names a target besides its tenant."""


def check_identity(tenant: str, actor: str, tool: str) -> str | None:
    """Why these names cannot be used, or None if they can.

    A name is 1 to 256 bytes of UTF-8 without NUL.
    """
    for field, value in (("tenant", tenant), ("actor", actor), ("tool", tool)):
        if not value:
            return f"{field} is empty: expected 1 to {MAX_NAME_BYTES} bytes"
        if "\x00" in value:
            return f"{field} contains a NUL character: remove it"
        if len(value.encode()) > MAX_NAME_BYTES:
            return f"{field} is longer than {MAX_NAME_BYTES} bytes: shorten it"
    return None


def check_override(order: Override, now_us: int) -> str | None:
    """Why a person's order cannot be carried out whatever the state of its breaker, or None if it can.

    Args:
        order: The order.
        now_us: The later of its arrival and the stream time, microseconds: an order that ends before is over already.
    """
    return (
        _check_words(order)
        or _check_target(order.scope, order.tenant, order.actor, order.tool, order.trace_id)
        or _check_kind(order)
        or _check_end(order, now_us)
    )


def _check_words(order: Override) -> str | None:
    for field, value, most in (
        ("override_id", order.override_id, MAX_NAME_BYTES),
        ("person", order.person, MAX_NAME_BYTES),
        ("reason", order.reason, MAX_REASON_BYTES),
    ):
        if not value.strip():
            return f"{field} is empty: expected 1 to {most} bytes"
        if len(value.encode()) > most:
            return f"{field} is longer than {most} bytes: shorten it"
    return None


def _check_target(scope: Scope, tenant: str, actor: str | None, tool: str | None, trace_id: str | None) -> str | None:
    needed = _PARTS.get(scope)
    if needed is None:
        return f"scope {scope} has no breakers: expected one of {', '.join(_PARTS)}"
    given = {"actor": actor, "tool": tool, "trace_id": trace_id}
    for field, value in given.items():
        if value is None and field in needed:
            return f"{field} is missing: a target of scope {scope} has one"
        if value is not None and field not in needed:
            return f"{field} is given, but a target of scope {scope} has none: remove it, or choose another scope"
    names = {"tenant": tenant, **{field: value or "" for field, value in given.items() if field in needed}}
    for field, value in names.items():
        wrong = check_identity(value, "-", "-")
        if wrong is not None:
            return wrong.replace("tenant", field, 1)
    return None


def _check_kind(order: Override) -> str | None:
    kind, action = order.kind, order.action
    if kind is OverrideKind.APPROVE:
        return "kind APPROVE is reserved: this version does not carry approvals out"
    if kind is OverrideKind.OTHER:
        return "kind OTHER is no order: expected one of TRIP, RESET, HOLD, BYPASS, ACKNOWLEDGE"
    if kind in (OverrideKind.TRIP, OverrideKind.HOLD):
        fitting = ACTIONS_OF[order.scope]
        if action not in fitting and not (kind is OverrideKind.HOLD and action is Action.NONE):
            listed = ", ".join(each for each in Action if each in fitting)
            return f"action {action} does not fit scope {order.scope}: expected one of {listed}"
    elif action is not Action.NONE:
        return f"action {action} is given with kind {kind}, which enforces nothing: leave it NONE"
    if order.rule is not None and kind is not OverrideKind.RESET:
        return f"rule {order.rule} is given with kind {kind}: only RESET can be about a single rule"
    return None


def _check_end(order: Override, now_us: int) -> str | None:
    if order.expires_at is None:
        return "expires_at is missing: a bypass must end" if order.kind is OverrideKind.BYPASS else None
    if order.kind in (OverrideKind.RESET, OverrideKind.ACKNOWLEDGE):
        return f"expires_at is given with kind {order.kind}, which does not last: remove it"
    if order.expires_at <= now_us:
        return f"expires_at {order.expires_at} microseconds is in the past: it is {now_us} already"
    return None
