"""The gate: admits or refuses a call from the local snapshot, without any network on its way."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from fuseboard.errors import ToolBlocked
from fuseboard.view import NEVER, Breaker, Freshness, Snapshot, View, every_tool, interest
from fuseboard_schemas.axes import hardest
from fuseboard_schemas.keys import actor_key, breaker_id
from fuseboard_schemas.records import Action, BreakerState, Effect, Recovery, Scope

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_schemas.records import BreakerCommand

_UNKNOWN_RETRY_S = 1.0
_STALE_RETRY_S = 5.0


class OnStale(StrEnum):
    """What becomes of a tool's calls while the control plane gives no sign of life."""

    ALLOW = "allow"
    WARN = "warn"
    """Allow, and publish a warning."""
    DENY = "deny"


DEFAULT_ON_STALE = {Effect.READ: OnStale.ALLOW, Effect.WRITE: OnStale.WARN, Effect.IRREVERSIBLE: OnStale.DENY}


@dataclass(frozen=True, slots=True)
class _State:
    """What a snapshot means for one tool of one actor, worked out once per snapshot."""

    snapshot: Snapshot
    free: bool
    """No breaker holds the tool back and no session has to be looked up."""
    holding: tuple[Breaker, ...]
    sessions: bool
    covered: bool


class Slot:
    """One tool as one actor uses it, with its breaker ids and its last known state."""

    __slots__ = (
        "actor",
        "effect",
        "fresh",
        "ids",
        "interests",
        "key",
        "of_tool",
        "on_stale",
        "since",
        "state",
        "tenant",
        "tool",
        "waited",
    )

    def __init__(
        self,
        tenant: str,
        actor: str,
        tool: str,
        effect: Effect,
        on_stale: OnStale,
        fresh: Freshness,
        since: float = NEVER,
    ) -> None:
        self.tenant = tenant
        self.actor = actor
        self.tool = tool
        self.effect = effect
        self.on_stale = on_stale
        self.fresh = fresh
        self.since = since
        """When its actor was registered, by the monotonic clock."""
        self.key = actor_key(tenant, actor)
        self.ids = (
            breaker_id(Scope.ACTOR_TOOL, tenant, actor=actor, tool=tool),
            breaker_id(Scope.TOOL, tenant, tool=tool),
            breaker_id(Scope.ACTOR, tenant, actor=actor),
            breaker_id(Scope.TENANT, tenant),
        )
        whole = interest(Scope.TENANT, tenant)
        self.interests = frozenset({interest(Scope.ACTOR, tenant, actor), whole})
        self.of_tool = frozenset({interest(Scope.TOOL, tenant, tool=tool), every_tool(whole)})
        self.state = _State(Snapshot(), free=False, holding=(), sessions=False, covered=False)
        self.waited = 0
        """The life of the gate in which a call has waited for the view in vain; 0 for none."""

    def refresh(self, snapshot: Snapshot) -> _State:
        """Work out what a new snapshot means here."""
        breakers = snapshot.breakers
        holding = tuple(
            breaker for key in self.ids if (breaker := breakers.get(key)) is not None and breaker.refuses(self.effect)
        )
        sessions = self.key in snapshot.actors_with_sessions
        covered = self.interests <= snapshot.covered and not self.of_tool.isdisjoint(snapshot.covered)
        free = covered and not holding and not sessions
        self.state = _State(snapshot, free, holding, sessions, covered)
        return self.state

    def complete(self, state: _State) -> bool:
        """Whether its breakers have been read and its actor's shard has given a sign of life, be it long ago."""
        return state.covered and self.fresh.until != NEVER


@dataclass(frozen=True, slots=True)
class Admission:
    """A call may run.

    Attributes:
        breaker: The half-open breaker whose probe the call is, or the one whose approval it needs.
        needs_approval: The call may run only if a person agrees.
        warn: The call runs although the control plane is stale, and that is worth a warning.
    """

    breaker: Breaker | None = None
    needs_approval: bool = False
    warn: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """The view has never been complete: worth waiting for; ``blocked`` if that is in vain."""

    blocked: ToolBlocked


_NEVER_PROBED = "irreversible calls are never probes, so it stays shut until a person acts on it"
FREE = Admission()
_WARN = Admission(warn=True)
_UNSURE = Admission()
"""Free as far as is known, but the control plane is stale: unlike after `FREE` the caller sees to the follower."""


class Gate:
    """Decides about calls. Safe to use from any number of threads.

    Args:
        view: Where the snapshots come from.
        wall_us: The wall clock in microseconds since 1970, for retry times.
    """

    def __init__(self, view: View, wall_us: Callable[[], int]) -> None:
        self.view = view
        self._wall_us = wall_us
        self._lock = threading.Lock()
        self._quotas: dict[str, tuple[int, int]] = {}
        self._marked: dict[str, int] = {}
        self.life = 1
        """Grows in a forked child, which knows nothing yet."""

    def decide(self, slot: Slot, trace_id: str | None, now: float) -> Admission | ToolBlocked | Wait:
        """Decide about one call.

        Args:
            slot: The tool and the actor.
            trace_id: The trace the call belongs to, for breakers on one session.
            now: The monotonic clock in seconds.
        """
        state = slot.state
        if state.snapshot is not self.view.snapshot:
            state = slot.refresh(self.view.snapshot)
        if state.free and now < slot.fresh.until:
            return FREE
        return self._consider(slot, state, trace_id, now)

    def knows(self, slot: Slot) -> bool:
        """Whether a tool's breakers have ever been known."""
        return slot.complete(slot.refresh(self.view.snapshot))

    def _consider(self, slot: Slot, state: _State, trace_id: str | None, now: float) -> Admission | ToolBlocked | Wait:
        holding = state.holding
        if state.sessions and trace_id is not None:
            session = state.snapshot.breakers.get(
                breaker_id(Scope.SESSION, slot.tenant, actor=slot.actor, trace_id=trace_id)
            )
            if session is not None and session.refuses(slot.effect):
                holding = (*holding, session)
        firm = [breaker for breaker in holding if not _may_probe(breaker, slot.effect)]
        refusing = [breaker for breaker in firm if not breaker.wants_approval(slot.effect)]
        if refusing:
            worst = hardest(breaker.command.action for breaker in refusing)
            return self._blocked(slot, next(breaker for breaker in refusing if breaker.command.action is worst))
        stale = not state.covered or now >= slot.fresh.until
        if stale and slot.on_stale is OnStale.DENY:
            return self._stale(slot, state)
        if len(firm) < len(holding):
            return self._probe(slot, [breaker for breaker in holding if breaker not in firm], approval=firm)
        if firm:
            return Admission(firm[0], needs_approval=True)
        if not stale:
            return FREE
        return _WARN if slot.on_stale is OnStale.WARN else _UNSURE

    def _probe(self, slot: Slot, breakers: list[Breaker], approval: list[Breaker]) -> Admission | ToolBlocked:
        """Admit a call if every half-open breaker on its way has quota left, and mark it for the least probed one."""
        with self._lock:
            for breaker in breakers:
                if self._left(breaker) <= 0:
                    return self._blocked(slot, breaker)
            for breaker in breakers:
                command = breaker.command
                self._quotas[command.breaker_id] = (command.epoch, self._left(breaker) - 1)
            chosen = min(breakers, key=lambda breaker: self._marked.get(breaker.command.breaker_id, 0))
            self._marked[chosen.command.breaker_id] = self._marked.get(chosen.command.breaker_id, 0) + 1
        return Admission(chosen, needs_approval=bool(approval))

    def _left(self, breaker: Breaker) -> int:
        command = breaker.command
        epoch, left = self._quotas.get(command.breaker_id, (-1, 0))
        if epoch == command.epoch:
            return left
        if epoch > command.epoch:  # Another thread already knows a newer wave.
            return 0
        self._marked.pop(command.breaker_id, None)
        return command.probe_quota

    def _blocked(self, slot: Slot, breaker: Breaker) -> ToolBlocked:
        command = breaker.command
        forced = command.state is BreakerState.FORCED_OPEN
        reason = (command.reason.rstrip(". ") or "a breaker is open") + (_by_whom(command) if forced else "")
        # Nobody probes such a tool: a time at which to try again would be a promise that nobody keeps.
        probed = not command.holds or any(hold.recovery is Recovery.PROBE for hold in command.holds)
        for_ever = slot.effect is Effect.IRREVERSIBLE and command.scope is Scope.ACTOR_TOOL and probed and not forced
        return ToolBlocked(
            slot.tool,
            f"{reason}; {_NEVER_PROBED}" if for_ever else reason,
            action=command.action,
            scope=command.scope,
            breaker_id=command.breaker_id,
            epoch=command.epoch,
            retry_after=None if for_ever else self._retry_after(breaker),
            runbook=command.runbook,
        )

    def refusal(self, slot: Slot, breaker: Breaker) -> ToolBlocked:
        """What to raise when the approval that ``breaker`` asks for is not given."""
        return self._blocked(slot, breaker)

    def _retry_after(self, breaker: Breaker) -> float | None:
        command = breaker.command
        if command.state is BreakerState.FORCED_OPEN:
            return None if command.expires_at is None else max(0.0, (command.expires_at - self._wall_us()) / 1e6)
        if command.retry_at is None:
            return _UNKNOWN_RETRY_S if breaker.half_open else None
        return max(_UNKNOWN_RETRY_S, (command.retry_at - self._wall_us()) / 1e6)

    def _stale(self, slot: Slot, state: _State) -> ToolBlocked | Wait:
        blocked = ToolBlocked(
            slot.tool,
            "control plane stale: no sign of life from the worker that guards this actor",
            action=Action.NONE,
            retry_after=_STALE_RETRY_S,
        )
        return Wait(blocked) if not slot.complete(state) and slot.waited != self.life else blocked

    def after_fork(self) -> None:
        """Replace the lock that another thread may have held when a child was forked; forget the parent's quotas."""
        self._lock = threading.Lock()
        self.life += 1
        self._quotas = {}
        self._marked = {}


def _by_whom(command: BreakerCommand) -> str:
    """Who holds a breaker open by hand, and for how long."""
    person = f"; ordered by {command.person}" if command.person else "; ordered by a person"
    if command.expires_at is None:
        return f"{person}, until it is reset"
    try:
        end = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(command.expires_at // 1_000_000))
    except (OverflowError, OSError, ValueError):  # A year that this machine cannot write.
        return f"{person}, for very long"
    return f"{person}, until {end}"


def _may_probe(breaker: Breaker, effect: Effect) -> bool:
    return breaker.half_open and effect is not Effect.IRREVERSIBLE
