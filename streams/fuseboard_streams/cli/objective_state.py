"""What signals tell about objectives: the newest of a target says in which state one is, and since when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fuseboard_streams.core.ruleset import MEASURED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fuseboard_schemas.records import Signal

UNKNOWN: Final = "unknown"
_STATES: Final = ("met", "violated", UNKNOWN)
About: TypeAlias = "tuple[str, str, str | None, str | None]"
"""An objective, and the tenant, actor and tool of its target."""


def state_of(signal: Signal) -> str | None:
    """Return ``met``, ``violated`` or ``unknown`` if a signal is about an objective, else None."""
    if not signal.source.startswith("fuseboard/") or signal.metric not in MEASURED or signal.rule is None:
        return None
    # A breaker can be about the same metric; what is said of one does not begin like this.
    state = (signal.reason or "").partition(":")[0]
    return state if state in _STATES else None


def about(signal: Signal) -> About:
    """Return which objective of which target a signal is about."""
    return signal.rule or "", signal.tenant, signal.actor, signal.tool


def words(signal: Signal) -> str:
    """Return what was measured, for people."""
    return (signal.reason or "").partition(":")[2].strip()


def objective_json(signal: Signal) -> dict[str, Any]:
    """Return a state as JSON."""
    return {
        "objective": signal.rule,
        "metric": signal.metric,
        "scope": str(signal.scope),
        "tenant": signal.tenant,
        "actor": signal.actor,
        "tool": signal.tool,
        "state": state_of(signal),
        "value": signal.value,
        "total": signal.calls,
        "bad": signal.failures,
        "said": signal.ts,
        "words": words(signal),
    }


def of_objectives(signals: Iterable[Signal]) -> list[Signal]:
    """Return those of some signals that are about objectives, the violated ones first, then by name."""
    found = [each for each in signals if state_of(each) is not None]
    return sorted(found, key=lambda each: (state_of(each) != "violated", each.rule or "", each.tool or ""))
