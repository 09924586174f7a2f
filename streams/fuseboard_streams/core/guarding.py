"""The guard at a tenant's home: which automatic trips of actors are granted, and the incident that the others make."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fuseboard_detectors.guard import GuardParams, GuardState, clear, decide, limits, release

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fuseboard_schemas.records import Pane
    from fuseboard_streams.core.ruleset import BlastRadius

ACTIVE_S: Final = 3_600
"""An actor with an event in so many seconds is active."""
_STALE_S: Final = 2 * ACTIVE_S
_COLUMNS = tuple(each.name for each in fields(GuardState))
_LISTED: Final = 20
"""Names in the words about an incident."""


@dataclass(slots=True)
class Tenant:
    """One tenant, beside the detector's state."""

    state: GuardState = field(default_factory=lambda: GuardState.fresh(1))
    active: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By shard: the second in which it was said, and how many actors were active."""
    held: list[str] = field(default_factory=list)
    """Actors that are held because of a grant."""
    withheld: list[str] = field(default_factory=list)
    """Actors of the incident."""


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
        self._counts: dict[int, list[tuple[str, int, int]]] = {}
        """Tenant, shard and active actors, by the second in which they were counted, as they came."""

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
            self._counts = {}

    # --- panes

    def heard(self, pane: Pane, second: int) -> None:
        """A shard says how many actors of a tenant are active: that counts when the second is complete."""
        self._counts.setdefault(second, []).append((pane.tenant, pane.source_shard, pane.actors))

    def take(self, pane: Pane, second: int, *, released: bool) -> None:
        """Keep a request until its second is complete."""
        request = Request(pane.tenant, pane.actor or "", pane.rule or "", pane.ts, pane.source_shard, released)
        self._waiting.setdefault(second, []).append(request)

    def seconds(self, before: int) -> list[int]:
        """The seconds before one that wait, ascending."""
        return sorted(second for second in {*self._waiting, *self._counts} if second < before)

    def step(self, second: int) -> tuple[list[tuple[Request, bool]], list[Incident]]:
        """Decide the requests of a second that is complete, each granted or not, and what incidents they add to.

        While this shard's rules limit nothing, those of the one that asks do already: everything is granted.
        """
        if not self.wanted:
            asking = [each for each in self._waiting.pop(second, ()) if not each.released]
            return [(each, True) for each in sorted(asking, key=_by_time)], []
        for name, shard, actors in self._counts.pop(second, ()):
            self._of(name).active[str(shard)] = (second, actors)
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
        active = sum(count for said, count in tenant.active.values() if said >= second - _STALE_S)
        # An actor counts once, whatever rules ask for it: with the first that does.
        first: dict[str, Request] = {}
        for each in asking:
            if each.actor not in tenant.held:
                first.setdefault(each.actor, each)
        granted = set(tenant.held)
        if first:
            decided = decide(
                tenant.state,
                np.zeros(len(first), dtype=np.int64),
                np.array([each.at_us for each in first.values()], dtype=np.int64),
                np.array(list(first)),
                limits(np.array([active], dtype=np.int64), self._params),
                self._params,
            )
            granted |= {actor for actor, free in zip(first, decided.granted.tolist(), strict=True) if free}
        tenant.held = sorted(granted)
        return [(each, each.actor in granted) for each in asking]

    @staticmethod
    def _release(tenant: Tenant, several: list[Request]) -> None:
        for each in several:
            if each.actor in tenant.held:
                tenant.held.remove(each.actor)
                release(tenant.state, np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64))

    @staticmethod
    def _incident(name: str, tenant: Tenant, refused: list[Request]) -> list[Incident]:
        before = len(tenant.withheld)
        tenant.withheld = sorted({*tenant.withheld, *(each.actor for each in refused if each.tenant == name)})
        if len(tenant.withheld) == before:
            return []
        listed = ", ".join(tenant.withheld[:_LISTED])
        more = f" and {len(tenant.withheld) - _LISTED} more" if len(tenant.withheld) > _LISTED else ""
        reason = (
            f"{len(tenant.withheld)} actors were not tripped, since {len(tenant.held)} are held already: {listed}{more}"
            f". No more are tripped automatically until somebody acknowledges this for the tenant {name}"
        )
        return [Incident(name, int(tenant.state.incident[0]), len(tenant.withheld), reason)]

    # --- people

    def acknowledge(self, tenant: str) -> Incident | None:
        """Somebody knows of a tenant's incident: requests are granted again. Returns what has ended."""
        found = self.tenants.get(tenant)
        if found is None or not found.state.incident[0]:
            return None
        ended = Incident(tenant, int(found.state.incident[0]), len(found.withheld), "")
        clear(found.state, np.zeros(1, dtype=np.int64))
        found.withheld = []
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
        return {"state": state, "active": found.active, "held": found.held, "withheld": found.withheld}

    def saved_requests(self) -> dict[str, Any]:
        """What waits for its second."""
        requests = [
            [second, each.tenant, each.actor, each.rule, each.at_us, each.shard, each.released]
            for second, several in sorted(self._waiting.items())
            for each in several
        ]
        counts = [[second, *each] for second, several in sorted(self._counts.items()) for each in several]
        return {"requests": requests, "counts": counts}

    def restore(self, tenants: Iterable[tuple[str, dict[str, Any]]], waiting: dict[str, Any]) -> None:
        """Put back what was saved, and nothing else."""
        self.tenants = {}
        for name, saved in tenants:
            found = self.tenants[name] = Tenant()
            found.active = {shard: (each[0], each[1]) for shard, each in saved["active"].items()}
            found.held, found.withheld = list(saved["held"]), list(saved["withheld"])
            for column, value in saved["state"].items():
                getattr(found.state, column)[0] = value
        self.changed.clear()
        self._waiting, self._counts = {}, {}
        for second, *rest in waiting.get("requests", ()):
            self._waiting.setdefault(second, []).append(Request(*rest))
        for second, tenant, shard, actors in waiting.get("counts", ()):
            self._counts.setdefault(second, []).append((tenant, shard, actors))


def _by_time(request: Request) -> tuple[int, str, str]:
    return request.at_us, request.actor, request.rule
