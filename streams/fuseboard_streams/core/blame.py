"""What a shard makes of a tool's own breaker: while that holds, the tool owns the blame for its failures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors.segments import different
from fuseboard_detectors.ungated import NOT_OPEN
from fuseboard_schemas.keys import Target, breaker_id
from fuseboard_schemas.records import Cause, Scope
from fuseboard_streams.core.breaker import Moment
from fuseboard_streams.core.rulebook import NONE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fuseboard_schemas.records import Pane
    from fuseboard_streams.core.breaker import Breaker
    from fuseboard_streams.core.breakers import Breakers
    from fuseboard_streams.core.identity import Identities
    from fuseboard_streams.core.piece import Piece
    from fuseboard_streams.core.pools import Pools
    from fuseboard_streams.core.rulebook import FailureLevel
    from fuseboard_streams.core.state import ShardState

Bools: TypeAlias = NDArray[np.bool_]
I64: TypeAlias = NDArray[np.int64]

DISORDER_US = 5_000_000
"""Failures so long before the estimated onset are blamed on the tool too: calls are told out of order."""

FORGET_US = 86_400_000_000
"""A breaker that closed so long ago holds no call back from counting: none lasts that long."""


@dataclass(slots=True)
class Told:
    """What is known of one tool's own breaker."""

    epoch: int
    open: bool
    """Whether it owns the blame: a rule about failures holds it, and nobody bypasses it."""
    closed_at: int = 0
    """Stream time at which this shard heard that it has closed: only calls that begin later count."""
    refuses_since: int = 0
    """Since when enforcers can know that it refuses all calls, microseconds; 0: it does not."""


class Blame:
    """Takes a tool's failures from its actors, and gives back what they have cost them."""

    def __init__(
        self, pools: Pools, level: FailureLevel, state: ShardState, identities: Identities, breakers: Breakers
    ) -> None:
        self._level = level
        self._pools = pools
        self._state = state
        self._identities = identities
        self._breakers = breakers
        self.told: dict[tuple[str, str], Told] = {}
        """By tenant and tool, whether this shard's rules follow it or not: an owner's may already, or still."""
        self.changed: set[tuple[str, str]] = set()
        """Those that differ from what was saved last; one that is not in `told` is forgotten."""

    def counting(self, piece: Piece) -> Bools | None:
        """Which calls of a piece may count at all; None stands for all."""
        if not self.told or not self._pools.wanted:
            return None
        pool = self._pools.of(piece.tool)
        start = piece.start
        result = np.ones(len(piece), dtype=np.bool_)
        first = int(start.min()) if len(start) else 0
        for name, told in self.told.items():
            if told.open or first <= told.closed_at:
                number = self._pools.number(*name)
                mine = (pool == number) & (number != NONE)
                result[mine] = False if told.open else start[mine] > told.closed_at
        return result

    def refusing(self, piece: Piece) -> I64 | None:
        """Since when each call's tool is known to refuse everybody, `NOT_OPEN` where it does not; None: nowhere."""
        shut = [(name, told.refuses_since) for name, told in self.told.items() if told.refuses_since]
        if not shut or not self._pools.wanted:
            return None
        pool = self._pools.of(piece.tool)
        result = np.full(len(piece), NOT_OPEN, dtype=np.int64)
        for name, since in shut:
            number = self._pools.number(*name)
            result[(pool == number) & (number != NONE)] = since
        return result

    def hear(self, pane: Pane, now_us: int, arrival: int) -> tuple[Breaker, ...]:
        """A tool's own breaker has begun to hold or to refuse calls, or does no longer.

        One that holds again after a bypass takes nothing over: what was found meanwhile is the actors' own.

        Args:
            pane: What its owner says.
            now_us: Stream time of this shard.
            arrival: When the broker appended the pane, and with it the command that enforcers obey: the times of shards
                that are behind say nothing about who can have heard of it.

        Returns:
            Breakers of actors that it supersedes, to publish.
        """
        name = pane.tenant, pane.tool or ""
        before, epoch = self.told.get(name), pane.breaker_epoch or 0
        if before is not None and epoch <= before.epoch:
            return ()
        self.changed.add(name)
        self._forget(now_us)
        before = before or Told(epoch, open=False)
        closed_at = now_us if before.open and not pane.open else before.closed_at
        heard = max(now_us, pane.ts, arrival)
        refuses_since = (before.refuses_since or heard) if pane.refuses else 0
        self.told[name] = Told(epoch, pane.open, closed_at, refuses_since)
        if not pane.open or pane.since is None or self._pools.number(*name) == NONE:
            return ()
        return self._take_over(*name, pane.since - DISORDER_US, now_us)

    def _forget(self, now_us: int) -> None:
        for name, told in list(self.told.items()):
            if not (told.open or told.refuses_since) and told.closed_at < now_us - FORGET_US:
                del self.told[name]
                self.changed.add(name)

    def _take_over(self, tenant: str, tool: str, since_us: int, now_us: int) -> tuple[Breaker, ...]:
        actors, tools = self._state.actors, self._state.tools
        rows = self._pools.rows(tenant, tool)
        if len(rows) == 0:
            return ()
        # All rows have the same tool of the same tenant.
        mine = different(tools["actor"][rows].astype(np.int64))
        self._state.actor_statistic.blame(mine, int(tools["tool"][rows[0]]), since_us)
        # What they have against the tool is its breaker's now, like the evidence of a trip.
        used = rows[(tools["frozen"][rows] == 0) & (tools["run_since"][rows] >= since_us)]
        if len(used):
            tools.touch("hot", used)
            tools.touch("stat", used)
            self._state.tool_statistic.restart(used)
        rule = self._level.name
        changed: list[Breaker] = []
        for row in rows[tools["frozen"][rows] != 0].tolist():
            target = Target(Scope.ACTOR_TOOL, tenant, str(actors["actor"][tools["actor"][row]]), tool)
            changed += self._supersede(target, rule or "", since_us, now_us)
        return tuple(sorted(changed, key=lambda each: each.breaker_id))

    def _supersede(self, target: Target, rule: str, since_us: int, now_us: int) -> tuple[Breaker, ...]:
        breaker = self._breakers.get(breaker_id(target.scope, target.tenant, target.actor, target.tool))
        held = None if breaker is None else breaker.hold_of(rule)
        # One that came before the onset has a cause of its own.
        if held is None or held.first_since < since_us:
            return ()
        reason = f"{target.tool} fails for many actors: its own breaker owns the blame"
        return self._breakers.release(target, rule, Moment(now_us), Cause.ATTRIBUTED, reason)

    # --- state

    def saved(self, name: tuple[str, str]) -> list[Any] | None:
        """Everything about one tool, as JSON holds it; None if it is forgotten."""
        told = self.told.get(name)
        return None if told is None else [told.epoch, told.open, told.closed_at, told.refuses_since]

    def restore(self, saved: Iterable[tuple[tuple[str, str], list[Any]]]) -> None:
        """Put back what was saved, and nothing else."""
        self.told = {name: Told(*each) for name, each in saved}
        self.changed.clear()
