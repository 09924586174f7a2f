"""Automatic trips of actors, as the actor's shard sees them: asked for, granted, refused, and over."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from fuseboard_schemas.keys import Target, parse_breaker_id, partition_for, tenant_key
from fuseboard_schemas.records import Action, Mode, PaneKind, Scope, Severity
from fuseboard_streams.core.breaker import Evidence, Moment, id_of
from fuseboard_streams.core.guarding import ACTIVE_S
from fuseboard_streams.core.layout import EPOCH_S
from fuseboard_streams.core.runs import places
from fuseboard_streams.core.settings import SECOND

if TYPE_CHECKING:
    import numpy as np

    from fuseboard_schemas.records import SignalLevel
    from fuseboard_streams.core.breaker import Breaker
    from fuseboard_streams.core.mail import Mail
    from fuseboard_streams.core.ruleset import BlastRadius, Response
    from fuseboard_streams.core.tables import Table


@dataclass(frozen=True, slots=True)
class Trip:
    """A rule's test came true for a target."""

    target: Target
    response: Response
    metric: str
    moment: Moment
    evidence: Evidence
    value: float | None
    reason: str
    """Empty: made from the evidence."""
    until_us: int | None = None
    hard: bool = False
    """Whether it is a hard limit, about which nothing is statistical."""
    warning: bool = False
    """Nothing follows but a signal, unless the rule holds the target already."""
    level: SignalLevel | None = None
    """Of a signal, from which nothing follows."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A trip that waits for its answer."""

    metric: str
    event_id: str | None
    offset: int | None
    evidence: dict[str, Any]
    value: float | None
    reason: str
    until_us: int | None

    def trip(self, target: Target, response: Response, now_us: int) -> Trip:
        """What was asked for, if it comes about at a time."""
        return Trip(
            target, response, self.metric, Moment(now_us, self.event_id, self.offset), Evidence(**self.evidence),
            self.value, self.reason, self.until_us,
        )  # fmt: skip


class Requests:
    """Asks for leave to trip actors.

    Args:
        radius: What the guard covers; None: there is no guard.
        actors: The actors table.
        mail: Takes the panes.
        partitions: Of every topic.
        forget_after_s: Rows of actors that have been idle for longer may be gone.
    """

    def __init__(
        self, radius: BlastRadius | None, actors: Table, mail: Mail, partitions: int, forget_after_s: int
    ) -> None:
        self.adopt(radius)
        self._active_s = min(ACTIVE_S, forget_after_s)
        self._actors = actors
        self._mail = mail
        self._partitions = partitions
        self.asked: dict[tuple[str, str], Asked] = {}
        """By the breaker's id and the rule."""
        self.granted: dict[str, list[str]] = {}
        """The rules because of which a breaker holds with leave, by its id."""
        self.waiting: list[list[Any]] = []
        """What is told when its second is over: kind, tenant, actor, rule, stream time, evidence, event."""
        self.due: int | None = None
        """When the first of these is over, microseconds; None if nothing waits."""

    def adopt(self, radius: BlastRadius | None) -> None:
        """Another limit holds from now on."""
        self._radius = radius

    def covers(self, trip: Trip) -> bool:
        """Whether a trip has to be asked for."""
        radius, response = self._radius, trip.response
        if radius is None or trip.target.scope is not Scope.ACTOR or response.mode is not Mode.ENFORCE:
            return False
        if response.ladder[0].action is Action.NONE or (trip.hard and "hard-cap" in radius.exempt):
            return False
        return not ("critical" in radius.exempt and response.ladder[0].severity is Severity.CRITICAL)

    def ask(self, trip: Trip) -> None:
        """Ask when the second under way is over, unless it has been asked already."""
        target, moment, rule = trip.target, trip.moment, trip.response.rule
        key = id_of(target), rule
        if key in self.asked:
            return
        self.asked[key] = Asked(
            trip.metric, moment.event_id, moment.offset, asdict(trip.evidence), trip.value, trip.reason, trip.until_us
        )
        self._wait(
            ["TRIP_REQUEST", target.tenant, target.actor, rule, moment.time_us, trip.evidence.log10, moment.event_id]
        )

    def grant(self, identity: str, rule: str) -> None:
        """A breaker begins to hold with leave."""
        self.granted[identity] = sorted({*self.granted.get(identity, ()), rule})

    def changed(self, breaker: Breaker) -> None:
        """A breaker has changed, or an answer about it has come: it may hold no longer because of a grant."""
        key = breaker.breaker_id
        rules = self.granted.get(key)
        if breaker.scope is not Scope.ACTOR or rules is None:
            return
        still = [rule for rule in rules if breaker.hold_of(rule) is not None]
        self.granted[key] = still
        if not still and not any(identity == key for identity, _ in self.asked):
            del self.granted[key]
            self.give_back(Target(Scope.ACTOR, breaker.tenant, breaker.actor), breaker.decided_at)

    def let_go(self, now_us: int) -> None:
        """There is no guard any more: nobody is held with leave."""
        for identity in sorted(self.granted):
            self.give_back(parse_breaker_id(identity), now_us)
        self.granted.clear()

    def give_back(self, target: Target, now_us: int) -> None:
        """Say that an actor is not held with leave, or not any more."""
        self._wait(["RELEASED", target.tenant, target.actor, None, now_us, None, None])

    def _wait(self, said: list[Any]) -> None:
        self.waiting.append(said)
        self.due = _over(said) if self.due is None else min(self.due, _over(said))

    def _wait_for(self, waiting: list[list[Any]]) -> None:
        self.waiting, self.due = waiting, min(map(_over, waiting), default=None)

    def tell(self, now_us: int) -> None:
        """Stream time has come to a time: tell what belongs to seconds that are over."""
        if self.due is None or now_us < self.due:
            return
        due = sorted((each for each in self.waiting if _over(each) <= now_us), key=_in_order)
        self._wait_for([each for each in self.waiting if _over(each) > now_us])
        told = []
        for each in due:
            kind, tenant, actor, rule, time_us, evidence, event_id = each
            pane = self._mail.pane(PaneKind(kind), tenant, None, time_us)
            said = replace(pane, actor=actor, rule=rule, evidence_log10=evidence, event_id=event_id)
            told.append((_over(each), self._home(tenant), said))
        self._mail.slip_in(told)

    def tell_standing(self, minute: int) -> None:
        """Say at a whole minute which actors of each tenant hold with leave or ask for it, and how many are active.

        Runs of calls are cut there, so that the count does not depend on how they came. The count is the last word.
        """
        tenants = pl.Series(self._actors["tenant"][self._recent(minute)].tolist(), dtype=pl.String)
        counts = dict(tenants.value_counts().rows()) if len(tenants) else {}
        standing: dict[str, dict[str, bool]] = {tenant: {} for tenant in counts}
        for identity in sorted({*self.granted, *(identity for identity, _ in self.asked)}):
            target = parse_breaker_id(identity)
            standing.setdefault(target.tenant, {})[target.actor or ""] = identity in self.granted
        for tenant, actors in sorted(standing.items()):
            pane = self._mail.pane(PaneKind.SUMS, tenant, None, minute * SECOND)
            for actor, held in actors.items():
                self._mail.send(self._home(tenant), replace(pane, actor=actor, open=held))
            self._mail.send(self._home(tenant), replace(pane, actors=counts.get(tenant, 0)))

    def _recent(self, second: int) -> np.ndarray[Any, np.dtype[np.intp]]:
        top = self._actors.high_water
        since = second - self._active_s - EPOCH_S
        return places(self._actors.live[:top] & (self._actors["last_seen"][:top] >= since))

    def _home(self, tenant: str) -> int:
        return partition_for(tenant_key(tenant), self._partitions)

    # --- state

    def saved(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        asked = [[*key, asdict(each)] for key, each in sorted(self.asked.items())]
        return {"asked": asked, "granted": self.granted, "waiting": self.waiting}

    def restore(self, saved: dict[str, Any]) -> None:
        """Put back what was saved, and nothing else."""
        self.asked = {(identity, rule): Asked(**each) for identity, rule, each in saved.get("asked", ())}
        self.granted = {identity: list(rules) for identity, rules in saved.get("granted", {}).items()}
        self._wait_for(list(saved.get("waiting", ())))


def _over(said: list[Any]) -> int:
    """When the second is over in which something was said, microseconds."""
    over: int = (said[4] // SECOND + 1) * SECOND
    return over


def _in_order(said: list[Any]) -> tuple[int, str, str, str, str]:
    kind, tenant, actor, rule, time_us, *_ = said
    return time_us, kind, tenant, actor, rule or ""
