"""Field rules: what a record that decodes must still fulfil to be used."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from fuseboard_schemas.records.enums import Scope

if TYPE_CHECKING:
    from fuseboard_schemas.records import Signal

MAX_NAME_BYTES = 256
_TARGETS: dict[Scope, tuple[str, ...]] = {
    Scope.ACTOR: ("actor",),
    Scope.ACTOR_TOOL: ("actor", "tool"),
    Scope.TOOL: ("tool",),
    Scope.TENANT: (),
    Scope.SESSION: ("actor", "trace_id"),
}
"""What each scope needs beside the tenant."""


def check_identity(tenant: str, actor: str | None, tool: str | None) -> str | None:
    """Why these names cannot be used, or None if they can.

    A name is 1 to 256 bytes of UTF-8 without NUL. An actor or tool that is None is not looked at.
    """
    return _check_names({"tenant": tenant, "actor": actor, "tool": tool})


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
    """Why a signal cannot be used, or None if it can: its target, and that its numbers are numbers."""
    wrong = check_target(signal.scope, signal.tenant, signal.actor, signal.tool, signal.trace_id)
    if wrong is not None:
        return wrong
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
