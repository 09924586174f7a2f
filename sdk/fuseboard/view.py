"""What this process knows about breakers: an immutable snapshot, replaced whenever something changes.

Pure state: the follower feeds it with what it reads from Kafka. Everything here is called from the follower's thread,
except for :meth:`View.register`, :meth:`View.freshness` and reading :attr:`View.snapshot`.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from fuseboard_schemas.axes import Axes
from fuseboard_schemas.keys import KeyFormatError, actor_key, breaker_id, parse_breaker_id
from fuseboard_schemas.records import BreakerCommand, BreakerState, Effect, Mode, ModelAccess, Scope

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger("fuseboard.view")

_HOLDING = frozenset({BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.FORCED_OPEN})
_FORGOTTEN = 10_000
"""Sessions that are over and whose epochs are remembered."""
_ACTOR_SCOPES = frozenset({Scope.ACTOR, Scope.ACTOR_TOOL, Scope.SESSION})
NEVER = float("-inf")


def interest(scope: Scope, tenant: str, actor: str | None = None, tool: str | None = None) -> str:
    """What has to be registered for a breaker to concern a process: its tenant, its actor, or the tool.

    It is named like the breaker on that target, for an actor and a tool may have the same name.
    """
    if scope in _ACTOR_SCOPES:
        return breaker_id(Scope.ACTOR, tenant, actor=actor)
    return breaker_id(scope, tenant, actor=actor, tool=tool)


def home_of(wanted: str) -> str:
    """The key whose partition holds everything about an interest."""
    return wanted.partition(":")[2]


def tenant_of(wanted: str) -> str:
    """The interest in the tenant that an interest belongs to."""
    return f"{Scope.TENANT}:{home_of(wanted).partition('/')[0]}"


def is_tool(wanted: str) -> bool:
    """Whether an interest is one in a tool."""
    return wanted.startswith(f"{Scope.TOOL}:")


def is_tenant(wanted: str) -> bool:
    """Whether an interest is one in a whole tenant."""
    return wanted.startswith(f"{Scope.TENANT}:")


def _is_session(key: str) -> bool:
    return key.startswith(f"{Scope.SESSION}:")


def every_tool(tenant: str) -> str:
    """What is covered once every tool of a tenant is, those included that nobody has registered yet.

    Args:
        tenant: The interest in the tenant.
    """
    return f"{Scope.TOOL}:{home_of(tenant)}/"  # No tool has an empty name.


class Freshness:
    """Until when, by the monotonic clock, the control plane counts as alive for one actor."""

    __slots__ = ("until",)

    def __init__(self) -> None:
        self.until = NEVER


@dataclass(frozen=True, slots=True)
class Breaker:
    """An enforced breaker that is not closed."""

    command: BreakerCommand
    axes: Axes
    half_open: bool

    @classmethod
    def of(cls, command: BreakerCommand) -> Breaker | None:
        """The breaker to enforce, or None when the command holds nothing back."""
        if command.mode is not Mode.ENFORCE or command.state not in _HOLDING:
            return None
        return cls(command, Axes.of(command), half_open=command.state is BreakerState.HALF_OPEN)

    @property
    def fast_model_only(self) -> bool:
        """Whether only fast models may be called: a halted agent may call none, but that is not asked here."""
        return self.axes.model is ModelAccess.FAST_ONLY

    def refuses(self, effect: Effect) -> bool:
        """Whether a call with this effect is held back, be it for approval or altogether."""
        return self.axes.refuses(effect)

    def wants_approval(self, effect: Effect) -> bool:
        """Whether an approval would be enough for a call with this effect."""
        return self.axes.wants_approval(effect)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the gate decides from, at one moment.

    Attributes:
        breakers: Enforced breakers that are not closed, by id.
        actors_with_sessions: Keys of actors that have a breaker on a single session.
        covered: Interests (see :func:`interest`) about which everything is known: their partition has been read to its
            end since they were registered, or since their tenant was, if they are tools. Also :func:`every_tool` of
            tenants about whose tools everything is known.
    """

    breakers: Mapping[str, Breaker] = field(default_factory=lambda: MappingProxyType({}))
    actors_with_sessions: frozenset[str] = frozenset()
    covered: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Applied:
    """A command that is in force from now on and is to be acknowledged."""

    command: BreakerCommand
    partition: int


class View:
    """Collects commands and heartbeats into snapshots.

    Commands about registered actors are kept, and all those about tools and the whole of their tenants: agents meet new
    tools all the time, and reading a partition again for each of them would hold up every other command in it.

    Args:
        stale_after_s: Seconds without a heartbeat, or of a shard's lag, beyond which the control plane is stale.
    """

    def __init__(self, stale_after_s: float) -> None:
        self.snapshot = Snapshot()
        self._stale_after = stale_after_s
        self._interests: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        self._freshness: dict[str, Freshness] = {}
        self._breakers: dict[str, Breaker] = {}
        self._epochs: dict[str, int] = {}
        self._offsets: dict[str, int] = {}
        self._forgotten: dict[str, int] = {}
        self._unacknowledged: dict[str, Applied] = {}
        self._acknowledge: list[Applied] = []
        self._dirty = False

    # -------------------------------------------------- from the agent's threads

    @property
    def interests(self) -> frozenset[str]:
        """Everything registered so far, see :func:`interest`."""
        return self._interests

    def register(self, tenant: str, actor: str, tool: str | None) -> bool:
        """Take an interest in an actor and a tool; True when something was new."""
        wanted = {interest(Scope.TENANT, tenant), interest(Scope.ACTOR, tenant, actor)}
        if tool is not None:
            wanted.add(interest(Scope.TOOL, tenant, tool=tool))
        with self._lock:
            if wanted <= self._interests:
                return False
            self._interests |= wanted
            return True

    def freshness(self, tenant: str, actor: str) -> Freshness:
        """The life sign of the shard that decides about an actor; the same object for ever."""
        with self._lock:
            return self._freshness.setdefault(actor_key(tenant, actor), Freshness())

    # ------------------------------------------------- from the follower's thread

    def apply(
        self, key: str, command: BreakerCommand | None, partition: int, *, catching_up: bool, offset: int | None = None
    ) -> None:
        """Take in one record of the breaker topic; visible to the gate after :meth:`publish`.

        Args:
            key: The breaker id that is the record's key.
            command: The record, None for a tombstone.
            partition: Where it was read, which is the breaker's home.
            catching_up: Whether the partition has not been read to its end yet: then a command may be superseded by
                the next, and only the last is acknowledged, by :meth:`reached_end`.
            offset: Where the record lies in its partition. A partition is read again when something new is registered:
                a tombstone of long ago must not remove the breaker that has tripped since.
        """
        about = self._about(key)
        if about is None or not self._kept(about):
            return
        if command is None:
            if offset is not None and offset < self._offsets.get(key, -1):
                return
            self._keep(key, None)
            self._unacknowledged.pop(key, None)
            if _is_session(key):
                self._forget(key)
            return
        if command.epoch <= self._epochs.get(key, self._forgotten.get(key, -1)):
            return
        self._forgotten.pop(key, None)
        self._epochs[key] = command.epoch
        if offset is not None:
            self._offsets[key] = offset
        self._keep(key, Breaker.of(command))
        if catching_up or about not in self._interests:
            self._unacknowledged[key] = Applied(command, partition)
        else:
            self._unacknowledged.pop(key, None)
            self._acknowledge.append(Applied(command, partition))

    def reached_end(self, partition: int, interests: frozenset[str]) -> None:
        """A partition of the breaker topic has been read to its end since these were registered.

        For tools it is enough that it has been since their tenant was.
        """
        for key, applied in list(self._unacknowledged.items()):
            if applied.partition == partition and self._about(key) in interests:
                self._acknowledge.append(self._unacknowledged.pop(key))
        if not interests <= self.snapshot.covered:
            self.publish(covered=self.snapshot.covered | interests)

    def uncover(self) -> None:
        """Nothing is read any more: what is known stays in force, but there may be more."""
        self.publish(covered=frozenset())

    def publish(self, covered: frozenset[str] | None = None) -> None:
        """Replace the snapshot by one with everything applied so far."""
        if not self._dirty and covered is None:
            return
        breakers = dict(self._breakers)
        sessions = frozenset(
            actor_key(breaker.command.tenant, breaker.command.actor or "")
            for breaker in breakers.values()
            if breaker.command.scope is Scope.SESSION
        )
        self._dirty = False
        self.snapshot = Snapshot(
            MappingProxyType(breakers), sessions, self.snapshot.covered if covered is None else covered
        )

    def take_applied(self) -> list[Applied]:
        """Commands that took effect with the last :meth:`publish` and were not acknowledged yet, in order."""
        taken, self._acknowledge = self._acknowledge, []
        return taken

    def heartbeat(self, actors: frozenset[str], lag_s: float, now: float) -> None:
        """A shard's sign of life, read just now.

        Args:
            actors: Keys of the actors whose home the shard is.
            lag_s: How far the shard is behind, in seconds.
            now: The monotonic clock, in seconds.
        """
        until = now + self._stale_after if lag_s < self._stale_after else now
        with self._lock:
            for actor in actors:
                self._freshness.setdefault(actor, Freshness()).until = until

    def silence(self, now: float) -> None:
        """From now on nothing is heard: who counted as alive does so no longer."""
        with self._lock:
            for fresh in self._freshness.values():
                fresh.until = min(fresh.until, now)

    @property
    def actors(self) -> frozenset[str]:
        """Keys of the actors whose freshness somebody asks for."""
        with self._lock:
            return frozenset(self._freshness)

    def after_fork(self) -> None:
        """Start anew in a forked child: nothing is known until the child has read for itself."""
        self._lock = threading.Lock()
        self.snapshot = Snapshot()
        for fresh in self._freshness.values():
            fresh.until = NEVER
        self._breakers = {}
        self._epochs = {}
        self._offsets = {}
        self._forgotten = {}
        self._unacknowledged = {}
        self._acknowledge = []
        self._dirty = False

    def concerns(self, key: str) -> bool:
        """Whether a breaker id is about something that is kept."""
        about = self._about(key)
        return about is not None and self._kept(about)

    def _keep(self, key: str, breaker: Breaker | None) -> None:
        """Keep what is enforced; what holds nothing back needs no memory but that of its epoch."""
        if breaker is not None:
            self._breakers[key] = breaker
            self._dirty = True
        elif self._breakers.pop(key, None) is not None:
            self._dirty = True

    def _forget(self, key: str) -> None:
        """A session is over and its breaker gone; there are always new ones, so that all of them cannot be remembered.

        The last are: when a partition is read again, what they were told before is not to count once more.
        """
        self._offsets.pop(key, None)
        epoch = self._epochs.pop(key, None)
        if epoch is not None:
            self._forgotten[key] = epoch
            if len(self._forgotten) > _FORGOTTEN:
                del self._forgotten[next(iter(self._forgotten))]

    def _kept(self, about: str) -> bool:
        return (tenant_of(about) if is_tool(about) else about) in self._interests

    def _about(self, key: str) -> str | None:
        """The interest that a breaker id is about; None for what is no breaker id."""
        try:
            target = parse_breaker_id(key)
        except KeyFormatError:
            log.warning("The breaker topic holds the key %r, which is no breaker id; it is ignored.", key)
            return None
        return interest(target.scope, target.tenant, target.actor, target.tool)
