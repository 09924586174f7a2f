"""Automatic trips of actors, as the actor's shard sees them: asked for, granted, refused, and over."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from fuseboard_schemas.keys import Target, partition_for, tenant_key
from fuseboard_schemas.records import Mode, PaneKind, Scope, Severity
from fuseboard_streams.core.breaker import Evidence, id_of
from fuseboard_streams.core.guarding import ACTIVE_S
from fuseboard_streams.core.layout import EPOCH_S
from fuseboard_streams.core.runs import places
from fuseboard_streams.core.settings import SECOND

if TYPE_CHECKING:
    from fuseboard_streams.core.breaker import Breaker, Moment
    from fuseboard_streams.core.mail import Mail
    from fuseboard_streams.core.ruleset import BlastRadius, Response
    from fuseboard_streams.core.tables import Table


@dataclass(frozen=True, slots=True)
class Asked:
    """A trip that waits for its answer."""

    rule: str
    time_us: int
    event_id: str | None
    offset: int | None
    evidence: dict[str, Any]

    @property
    def found(self) -> Evidence:
        """What it rests on."""
        return Evidence(**self.evidence)


class Requests:
    """Asks for leave to trip actors.

    Args:
        radius: What the guard covers; None: there is no guard.
        actors: The actors table.
        mail: Takes the panes.
        partitions: Of every topic.
    """

    def __init__(self, radius: BlastRadius | None, actors: Table, mail: Mail, partitions: int) -> None:
        self._radius = radius
        self._actors = actors
        self._mail = mail
        self._partitions = partitions
        self.asked: dict[str, Asked] = {}
        """By the breaker's id."""
        self.granted: dict[str, str] = {}
        """The rules of breakers that hold because of a grant."""
        self.waiting: list[list[Any]] = []
        """What is told when a second is over: kind, tenant, actor, rule, time, evidence, event."""
        self.due: int | None = None
        """When that is, microseconds; None if nothing waits."""

    def covers(self, response: Response) -> bool:
        """Whether a trip has to be asked for."""
        radius = self._radius
        if radius is None or response.mode is not Mode.ENFORCE:
            return False
        return not ("critical" in radius.exempt and response.ladder[0].severity is Severity.CRITICAL)

    def ask(self, target: Target, rule: str, moment: Moment, evidence: Evidence) -> None:
        """Ask when the second under way is over."""
        self.asked[id_of(target)] = Asked(rule, moment.time_us, moment.event_id, moment.offset, asdict(evidence))
        self._wait(["TRIP_REQUEST", target.tenant, target.actor, rule, moment.time_us, evidence.log10, moment.event_id])

    def changed(self, breaker: Breaker) -> None:
        """A breaker has changed: one that held because of a grant may be free again."""
        rule = self.granted.get(breaker.breaker_id)
        if breaker.scope is Scope.ACTOR and rule is not None and breaker.hold_of(rule) is None:
            del self.granted[breaker.breaker_id]
            self._wait(["RELEASED", breaker.tenant, breaker.actor, rule, breaker.decided_at, None, None])

    def _wait(self, said: list[Any]) -> None:
        self.waiting.append(said)
        self.due = max(self.due or 0, (said[4] // SECOND + 1) * SECOND)

    def tell(self, now_us: int) -> None:
        """A second is over."""
        if self.due is None or now_us < self.due:
            return
        waiting, self.waiting, self.due = self.waiting, [], None
        for kind, tenant, actor, rule, time_us, evidence, event_id in waiting:
            pane = self._mail.pane(PaneKind(kind), tenant, None, time_us)
            said = replace(pane, actor=actor, rule=rule, evidence_log10=evidence, event_id=event_id)
            if kind == "TRIP_REQUEST":
                said = replace(said, actors=self._active(tenant, now_us))
            self._mail.send(self._home(tenant), said)

    def tell_active(self, minute: int) -> None:
        """Say at a whole minute how many actors of each tenant are active."""
        tenants = pl.Series(self._actors["tenant"][self._recent(minute)].tolist(), dtype=pl.String)
        counts = tenants.value_counts().sort("").rows() if len(tenants) else []
        for tenant, count in counts:
            pane = self._mail.pane(PaneKind.SUMS, tenant, None, minute * SECOND)
            self._mail.send(self._home(tenant), replace(pane, actors=count))

    def _recent(self, second: int) -> np.ndarray[Any, np.dtype[np.intp]]:
        top = self._actors.high_water
        return places(self._actors.live[:top] & (self._actors["last_seen"][:top] >= second - ACTIVE_S - EPOCH_S))

    def _active(self, tenant: str, now_us: int) -> int:
        rows = self._recent(now_us // SECOND)
        return int(np.count_nonzero(self._actors["tenant"][rows] == tenant))

    def _home(self, tenant: str) -> int:
        return partition_for(tenant_key(tenant), self._partitions)

    # --- state

    def saved(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        asked = {key: asdict(each) for key, each in self.asked.items()}
        return {"asked": asked, "granted": self.granted, "waiting": self.waiting, "due": self.due}

    def restore(self, saved: dict[str, Any]) -> None:
        """Put back what was saved, and nothing else."""
        self.asked = {key: Asked(**each) for key, each in saved.get("asked", {}).items()}
        self.granted = dict(saved.get("granted", {}))
        self.waiting, self.due = list(saved.get("waiting", ())), saved.get("due")
