"""The guard at a tenant's home: which automatic trips of actors are granted, and the incident that the others make."""

from __future__ import annotations

from dataclasses import astuple, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fuseboard_detectors.guard import GuardParams, GuardState, clear, decide, limits, release
from fuseboard_streams.core.settings import SECOND

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fuseboard_schemas.records import Pane
    from fuseboard_streams.core.ruleset import BlastRadius

ACTIVE_S: Final = 3_600
"""An actor with an event in so many seconds is active."""
_STALE_S: Final = 2 * ACTIVE_S
_COLUMNS = tuple(each.name for each in fields(GuardState))
_KEPT = ("active", "held", "lately", "withheld", "first", "why")
_LISTED: Final = 20
"""Names in the words about an incident."""


@dataclass(slots=True)
class Tenant:
    """One tenant, beside the detector's state."""

    state: GuardState = field(default_factory=lambda: GuardState.fresh(1))
    active: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By shard: the second in which it was said, and how many actors were active."""
    held: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Actors that are held because of a grant: their shard, and the second of its own for which that is known."""
    lately: dict[str, int] = field(default_factory=dict)
    """Actors of the grants of the window: the time of the request, microseconds."""
    withheld: list[str] = field(default_factory=list)
    """Actors of the incident."""
    why: str = ""
    """Of the incident: which limit stopped the trip of its first actor."""
    first: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """A shard asks for leave to trip an actor, or says that one is free again."""

    tenant: str
    actor: str
    rule: str
    at_us: int
    shard: int
    released: bool


@dataclass(frozen=True, slots=True)
class Said:
    """What a shard says of a tenant at a whole minute: of each actor that concerns the guard, then of all."""

    tenant: str
    shard: int
    second: int
    """The minute, in the shard's own stream time."""
    actor: str | None
    """None: this is the last word of the minute; who was not named is not held with leave, and does not ask for it."""
    held: bool
    """Whether the actor is held with leave; else it has asked for it."""
    active: int
    """Actors with an event in the last hour."""


@dataclass(frozen=True, slots=True)
class Incident:
    """Trips that were not granted."""

    tenant: str
    since_us: int
    actors: int
    reason: str


class Guard:
    """Decides about the tenants whose home is this shard.

    Args:
        radius: What is allowed; None: nobody asks.
    """

    def __init__(self, radius: BlastRadius | None) -> None:
        self.tenants: dict[str, Tenant] = {}
        self.changed: set[str] = set()
        """Those whose state differs from what was saved last; one that is not in `tenants` is forgotten."""
        self.adopt(radius)
        self._waiting: dict[int, list[Request]] = {}
        self._said: dict[int, list[Said]] = {}
        """By the second in which it counts, as it came."""

    # --- rules

    def adopt(self, radius: BlastRadius | None) -> None:
        """Allow something else from now on."""
        self.wanted = radius is not None
        self._params = GuardParams() if radius is None else GuardParams(radius.share, radius.at_least, radius.window_us)

    def rules_changed(self) -> None:
        """Other rules are in force: without a guard nothing is known of anybody."""
        if not self.wanted:
            self.changed |= set(self.tenants)
            self.tenants = {}
            self._said = {}

    # --- panes

    def heard(self, pane: Pane, second: int) -> None:
        """A shard says how things stand in a tenant: that counts when the second is complete."""
        said = Said(
            pane.tenant, pane.source_shard, pane.ts // SECOND, pane.actor, held=bool(pane.open), active=pane.actors
        )
        self._said.setdefault(second, []).append(said)

    def take(self, pane: Pane, second: int, *, released: bool) -> None:
        """Keep a request until its second is complete."""
        request = Request(pane.tenant, pane.actor or "", pane.rule or "", pane.ts, pane.source_shard, released)
        self._waiting.setdefault(second, []).append(request)

    def seconds(self, before: int) -> list[int]:
        """The seconds before one that wait, ascending."""
        return sorted(second for second in {*self._waiting, *self._said} if second < before)

    def step(self, second: int) -> tuple[list[tuple[Request, bool]], list[Incident]]:
        """Decide the requests of a second that is complete, each granted or not, and what incidents they add to.

        While this shard's rules limit nothing, those of the one that asks do already: everything is granted.
        """
        if not self.wanted:
            asking = [each for each in self._waiting.pop(second, ()) if not each.released]
            return [(each, True) for each in sorted(asking, key=_by_time)], []
        for said in self._said.pop(second, ()):
            _reconcile(self._of(said.tenant), said, second)
        several = sorted(
            self._waiting.pop(second, ()), key=lambda each: (each.tenant, not each.released, *_by_time(each))
        )
        answers: list[tuple[Request, bool]] = []
        incidents: list[Incident] = []
        for name in sorted({each.tenant for each in several}):
            tenant = self._of(name)
            self._release(tenant, [each for each in several if each.tenant == name and each.released])
            asking = [each for each in several if each.tenant == name and not each.released]
            if asking:
                answers += self._decide(tenant, asking, second)
                incidents += self._incident(name, tenant, [one for one, granted in answers if not granted])
        return answers, incidents

    def _decide(self, tenant: Tenant, asking: list[Request], second: int) -> list[tuple[Request, bool]]:
        # A shard that has been silent for so long may have lost what it knew, and will never say who is free.
        _keep(tenant, {actor for actor, (_, known) in tenant.held.items() if known >= second - _STALE_S})
        active = sum(count for said, count in tenant.active.values() if said >= second - _STALE_S)
        limit = limits(np.array([active], dtype=np.int64), self._params)
        # An actor counts once, whatever rules ask for it: with the first that does.
        first: dict[str, Request] = {}
        for each in asking:
            if each.actor not in tenant.held:
                first.setdefault(each.actor, each)
        before = int(tenant.state.incident[0])
        if first:
            decided = decide(
                tenant.state,
                np.zeros(len(first), dtype=np.int64),
                np.array([each.at_us for each in first.values()], dtype=np.int64),
                np.array(list(first)),
                limit,
                self._params,
                np.array([tenant.lately.get(actor, -1) for actor in first], dtype=np.int64),
            )
            for each, granted in zip(first.values(), decided.granted.tolist(), strict=True):
                if granted:
                    tenant.held[each.actor] = each.shard, each.at_us // SECOND
                    tenant.lately[each.actor] = max(each.at_us, tenant.lately.get(each.actor, 0))
        oldest = int(tenant.state.newest[0]) - 2 * self._params.window_us
        tenant.lately = {actor: at for actor, at in tenant.lately.items() if at >= oldest}
        answers = [(each, each.actor in tenant.held) for each in asking]
        if tenant.state.incident[0] and not before:
            refused = next(each for each, granted in answers if not granted)
            tenant.first, tenant.why = refused.actor, self._why(tenant, int(limit[0]))
        return answers

    def _why(self, tenant: Tenant, limit: int) -> str:
        """Which limit stopped the first request of an incident that has just begun: nothing was granted since."""
        if limit == 0:
            return "no actor may be tripped automatically"
        held = int(tenant.state.open[0])
        most = f"and no more than {limit} may be"
        if held >= limit:
            return f"{_actors(held, 'is', 'are')} held already, {most}"
        tripped = int(tenant.state.grants[0].sum())
        return f"{_actors(tripped, 'was', 'were')} tripped within {self._params.window_us / SECOND:g} s, {most}"

    @staticmethod
    def _release(tenant: Tenant, several: list[Request]) -> None:
        _keep(tenant, set(tenant.held) - {each.actor for each in several})

    @staticmethod
    def _incident(name: str, tenant: Tenant, refused: list[Request]) -> list[Incident]:
        before = len(tenant.withheld)
        tenant.withheld = sorted({*tenant.withheld, *(each.actor for each in refused if each.tenant == name)})
        count = len(tenant.withheld)
        if count == before:
            return []
        listed = ", ".join(tenant.withheld[:_LISTED])
        more = f" and {count - _LISTED} more" if count > _LISTED else ""
        if count == 1:
            stopped = f"1 actor was not tripped, since {tenant.why}"
        else:
            others = f"the other{'s' if count > 2 else ''} since this incident was under way"
            stopped = f"{count} actors were not tripped, {tenant.first} since {tenant.why}, {others}"
        reason = (
            f"{stopped}: {listed}{more}. No more are tripped automatically until somebody acknowledges this for the "
            f"tenant {name}"
        )
        return [Incident(name, int(tenant.state.incident[0]), count, reason)]

    # --- people

    def acknowledge(self, tenant: str) -> Incident | None:
        """Somebody knows of a tenant's incident: requests are granted again. Returns what has ended."""
        found = self.tenants.get(tenant)
        if found is None or not found.state.incident[0]:
            return None
        ended = Incident(tenant, int(found.state.incident[0]), len(found.withheld), "")
        clear(found.state, np.zeros(1, dtype=np.int64))
        found.withheld, found.first, found.why = [], "", ""
        self.changed.add(tenant)
        return ended

    def _of(self, tenant: str) -> Tenant:
        self.changed.add(tenant)
        return self.tenants.setdefault(tenant, Tenant())

    # --- state

    def saved(self, tenant: str) -> dict[str, Any] | None:
        """Everything about one tenant, as JSON holds it; None if it is forgotten."""
        found = self.tenants.get(tenant)
        if found is None:
            return None
        state = {name: getattr(found.state, name)[0].tolist() for name in _COLUMNS}
        return {"state": state} | {name: getattr(found, name) for name in _KEPT}

    def saved_requests(self) -> dict[str, Any]:
        """What waits for its second."""
        requests = [
            [second, each.tenant, each.actor, each.rule, each.at_us, each.shard, each.released]
            for second, several in sorted(self._waiting.items())
            for each in several
        ]
        said = [[second, *astuple(each)] for second, several in sorted(self._said.items()) for each in several]
        return {"requests": requests, "said": said}

    def restore(self, tenants: Iterable[tuple[str, dict[str, Any]]], waiting: dict[str, Any]) -> None:
        """Put back what was saved, and nothing else."""
        self.tenants = {}
        for name, saved in tenants:
            found = self.tenants[name] = Tenant()
            found.active = {shard: (each[0], each[1]) for shard, each in saved["active"].items()}
            found.held = {actor: (each[0], each[1]) for actor, each in saved["held"].items()}
            found.lately, found.withheld = dict(saved["lately"]), list(saved["withheld"])
            found.first, found.why = saved["first"], saved["why"]
            for column, value in saved["state"].items():
                getattr(found.state, column)[0] = value
        self.changed.clear()
        self._waiting, self._said = {}, {}
        for second, *rest in waiting.get("requests", ()):
            self._waiting.setdefault(second, []).append(Request(*rest))
        for second, *rest in waiting.get("said", ()):
            self._said.setdefault(second, []).append(Said(*rest))


def _reconcile(tenant: Tenant, said: Said, second: int) -> None:
    """Take in what a shard says at a whole minute; it counts in a second."""
    if said.actor is None:
        tenant.active[str(said.shard)] = second, said.active
        _keep(
            tenant,
            {actor for actor, (shard, known) in tenant.held.items() if shard != said.shard or known >= said.second},
        )
        return
    found = tenant.held.get(said.actor)
    if found is not None:
        tenant.held[said.actor] = said.shard, max(found[1], said.second)
    elif said.held:
        tenant.held[said.actor] = said.shard, said.second
        tenant.state.open += 1


def _keep(tenant: Tenant, actors: set[str]) -> None:
    """Of the actors that are held, only these still are."""
    kept = {actor: each for actor, each in tenant.held.items() if actor in actors}
    release(tenant.state, np.zeros(1, dtype=np.int64), np.array([len(tenant.held) - len(kept)], dtype=np.int64))
    tenant.held = kept


def _actors(count: int, one: str, several: str) -> str:
    return f"1 actor {one}" if count == 1 else f"{count} actors {several}"


def _by_time(request: Request) -> tuple[int, str, str]:
    return request.at_us, request.actor, request.rule
