"""Field rules: what a record that decodes must still fulfil to be used."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from fuseboard_schemas.axes import ACTIONS_OF
from fuseboard_schemas.records import Action, OverrideKind, Scope

if TYPE_CHECKING:
    from fuseboard_schemas.records import Override, Signal

MAX_NAME_BYTES = 256
MAX_REASON_BYTES = 4_096
_TARGETS: dict[Scope, tuple[str, ...]] = {
    Scope.ACTOR: ("actor",),
    Scope.ACTOR_TOOL: ("actor", "tool"),
    Scope.TOOL: ("tool",),
    Scope.TENANT: (),
    Scope.SESSION: ("actor", "trace_id"),
}
"""What each scope needs beside the tenant."""
_SIGNAL_WORDS = ("actor", "tool", "trace_id", "event_id", "rule", "rules_version", "reason")
"""What may be missing from a signal, or empty, but has a longest length."""


def check_identity(tenant: str, actor: str | None, tool: str | None) -> str | None:
    """Why these names cannot be used, or None if they can.

    A name is 1 to 256 bytes of UTF-8 without NUL. An actor or tool that is None is not looked at.
    """
    return _check_names({"tenant": tenant, "actor": actor, "tool": tool})


def check_ids(event_id: str | None, trace_id: str | None) -> str | None:
    """Why these ids of an event cannot be used, or None if they can: they have at most 256 bytes, or are None."""
    for name, value in (("event_id", event_id), ("trace_id", trace_id)):
        if value is not None and len(value.encode()) > MAX_NAME_BYTES:
            return f"{name} is longer than {MAX_NAME_BYTES} bytes: give ids of a usual length"
    return None


def check_target(
    scope: Scope, tenant: str, actor: str | None, tool: str | None, trace_id: str | None = None
) -> str | None:
    """Why these fields name no target, or None if they do; a field that the scope does not need is not looked at."""
    if scope not in _TARGETS:
        return f"scope is {scope}: expected one of {', '.join(_TARGETS)}"
    given = {"actor": actor, "tool": tool, "trace_id": trace_id}
    needed = {name: given[name] for name in _TARGETS[scope]}
    for name, value in needed.items():
        if value is None:
            return f"{name} is null: a target of scope {scope} needs it"
    return _check_names({"tenant": tenant, **needed})


def check_signal(signal: Signal) -> str | None:
    """Why a signal cannot be used, or None if it can: its target, how long its words are, and its numbers."""
    return (
        check_target(signal.scope, signal.tenant, signal.actor, signal.tool, signal.trace_id)
        or _check_signal_words(signal)
        or _check_signal_numbers(signal)
    )


def _check_signal_words(signal: Signal) -> str | None:
    """What a worker repeats of a signal in its own records must leave them far below a megabyte."""
    for name in _SIGNAL_WORDS:
        word: str | None = getattr(signal, name)
        most = MAX_REASON_BYTES if name == "reason" else MAX_NAME_BYTES
        if word is not None and len(word.encode()) > most:
            return f"{name} is longer than {most} bytes: shorten it"
    return _check_names({"signal_id": signal.signal_id, "source": signal.source, "metric": signal.metric})


def _check_signal_numbers(signal: Signal) -> str | None:
    for name in ("value", "evidence_log10", "null_p0"):
        number: float | None = getattr(signal, name)
        if number is not None and not isfinite(number):
            return f"{name} is {number}: expected a finite number, or null"
    if signal.null_p0 is not None and not 0.0 <= signal.null_p0 <= 1.0:
        return f"null_p0 is {signal.null_p0}: expected a probability from 0 to 1"
    for name in ("calls", "failures"):
        count: int | None = getattr(signal, name)
        if count is not None and count < 0:
            return f"{name} is {count}: expected a count, or null"
    return None


def _check_names(names: dict[str, str | None]) -> str | None:
    for field, value in names.items():
        if value is None:
            continue
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
    return _check_words(order) or _check_order_target(order) or _check_kind(order) or _check_end(order, now_us)


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


def _check_order_target(order: Override) -> str | None:
    given = {"actor": order.actor, "tool": order.tool, "trace_id": order.trace_id}
    wrong = check_target(order.scope, order.tenant, **given)
    if wrong is not None:
        return wrong
    for field, value in given.items():
        if value is not None and field not in _TARGETS[order.scope]:
            return f"{field} is given, but a target of scope {order.scope} has none: remove it, or choose another scope"
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
