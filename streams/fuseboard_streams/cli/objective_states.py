"""What signals tell of objectives: shards publish one when an objective changes its state, and again as it lasts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fuseboard_streams.rules.catalogue import OBJECTIVE_METRICS

if TYPE_CHECKING:
    from typing import TypeAlias

    from fuseboard_schemas.records import Signal

    Key: TypeAlias = tuple[str, str, str, str | None, str | None]
    """Objective, scope, tenant, actor and tool."""

STATES: Final = ("violated", "unknown", "met")
"""In the order in which they matter."""
MARK: Final = b"fuseboard/"
"""What the value of every signal has that a shard published: others need not be decoded to be passed over."""
VALID_US: Final = 25 * 3_600_000_000
"""A state that lasts is said again within a day: one that was said longer ago belongs to an objective that is gone."""
_KEPT: Final = 10_000


def is_objective(signal: Signal) -> bool:
    """Return whether a signal is the state of one of our objectives: its reason begins with it.

    The metric alone does not tell: rules that trip may be about the same one.
    """
    ours = signal.source.startswith(MARK.decode()) and signal.metric in OBJECTIVE_METRICS
    return ours and state_of(signal) in STATES


def state_of(signal: Signal) -> str:
    """Return the state that an objective's signal tells."""
    return (signal.reason or "").partition(":")[0]


def words_of(signal: Signal) -> str:
    """Return what such a signal says beside the state: the counts and the bound."""
    return (signal.reason or "").partition(":")[2].strip()


class ObjectiveStates:
    """The newest state of each objective and target."""

    def __init__(self) -> None:
        self._found: dict[Key, tuple[int, Signal]] = {}

    def take(self, signal: Signal, arrival: int) -> None:
        """Keep a state, unless a newer one is known.

        Args:
            signal: An objective's.
            arrival: When the broker had it, µs since the epoch.
        """
        key = (signal.rule or signal.source, str(signal.scope), signal.tenant, signal.actor, signal.tool)
        known = self._found.pop(key, None)
        self._found[key] = (arrival, signal) if known is None or signal.ts >= known[1].ts else known
        if len(self._found) > _KEPT:
            del self._found[next(iter(self._found))]

    def latest(self, now: int) -> list[Signal]:
        """Return the states that still hold, those that are violated first, then by objective and target."""
        found = [signal for arrival, signal in self._found.values() if now - arrival < VALID_US]
        return sorted(found, key=_order)


def _order(signal: Signal) -> tuple[int, str, str, str, str]:
    return (
        STATES.index(state_of(signal)),
        signal.rule or "",
        signal.tenant,
        signal.actor or "",
        signal.tool or "",
    )
