"""Which targets others' signals may be about: those that the shard has heard of, and few of those it cannot know.

Whoever may write signals could otherwise open breakers without end, on names that nobody has. Actors and their tools
are in the shard's tables; it has seen an event of each. A session belongs to an actor; how many may be held is bounded
(``max_session_breakers``). The calls of a tool are with its actors, in other shards, and so is whatever a tenant does:
the home of a tool or tenant cannot know whether there is such a one, and only the number of open breakers is bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from fuseboard_schemas.keys import actor_key
from fuseboard_schemas.records import BreakerState, DeadLetterReason, Scope
from fuseboard_streams.core.breaker import id_of
from fuseboard_streams.core.engine import target_of
from fuseboard_streams.core.layout import EPOCH_S
from fuseboard_streams.core.settings import SECOND

if TYPE_CHECKING:
    from fuseboard_schemas.records import Signal
    from fuseboard_streams.core.breakers import Breakers
    from fuseboard_streams.core.identity import Identities
    from fuseboard_streams.core.settings import CoreSettings
    from fuseboard_streams.core.state import ShardState
    from fuseboard_streams.core.tables import Table

    Problem: TypeAlias = tuple[DeadLetterReason, str]

_SHARED = (Scope.TOOL, Scope.TENANT)


class Known:
    """Refuses signals about targets of which nobody has heard."""

    def __init__(self, settings: CoreSettings, state: ShardState, identities: Identities, breakers: Breakers) -> None:
        self._settings = settings
        self._state = state
        self._identities = identities
        self._breakers = breakers

    def refuse(self, signal: Signal, now_us: int) -> Problem | None:
        """Why a signal that is otherwise right is not heard, or None if it is.

        Args:
            signal: One that ``check_signal`` accepts.
            now_us: Stream time.
        """
        if signal.scope in _SHARED:
            return self._one_too_many(signal)
        tenant, actor, tool = signal.tenant, signal.actor or "", signal.tool or ""
        name = f"actor {actor_key(tenant, actor)}"
        row = self._identities.find_actor(tenant, actor)
        table = self._state.actors
        if signal.scope is Scope.ACTOR_TOOL:
            name = f"tool {tool} of {name}"
            row, table = self._identities.find_tool(tenant, actor, tool), self._state.tools
        if row is not None and self._seen(table, row, now_us):
            return None
        days = self._settings.forget_after_us / (86_400 * SECOND)
        return (
            DeadLetterReason.INVALID_FIELD,
            f"the {name} is unknown here: no event of it has come within {days:.3g} days; correct the name, or publish "
            "the signal again, under the same signal_id, once its first event has",
        )

    def _seen(self, table: Table, row: int, now_us: int) -> bool:
        # By its own last event: whether a checkpoint has removed the row already must not show.
        idle_s = now_us // SECOND - EPOCH_S - int(table["last_seen"][row])
        return idle_s <= self._settings.forget_after_us // SECOND

    def _one_too_many(self, signal: Signal) -> Problem | None:
        breaker = self._breakers.get(id_of(target_of(signal)))
        if breaker is not None and breaker.state is not BreakerState.CLOSED:
            return None
        if sum(map(self._breakers.alive_of, _SHARED)) < self._settings.max_shared_breakers:
            return None
        return (
            DeadLetterReason.KEY_LIMIT,
            f"{self._settings.max_shared_breakers} breakers of tools and tenants are open in this shard: close some, "
            "raise max_shared_breakers, or find out who publishes signals about so many",
        )
