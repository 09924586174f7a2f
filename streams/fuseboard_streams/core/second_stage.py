"""The second stage of one shard: what it tells owners of tools and tenants, what it decides as one, what it is told.

See "The second stage" in ARCHITECTURE.md. Everything here is a function of the shard's inputs in the order of its
journal; nothing depends on how they were cut into batches, but how often a marker is sent.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fuseboard_detectors.arithmetic import log10
from fuseboard_schemas.keys import Target, breaker_id, home_key, home_partition, parse_breaker_id, partition_for
from fuseboard_schemas.records import (
    Action,
    DeadLetterReason,
    Effect,
    Mode,
    OverrideKind,
    PaneKind,
    Scope,
    SignalLevel,
)
from fuseboard_streams.core.blame import Blame
from fuseboard_streams.core.breaker import Evidence, Moment, id_of
from fuseboard_streams.core.commands import shown
from fuseboard_streams.core.doubts import Doubts
from fuseboard_streams.core.guarding import Guard
from fuseboard_streams.core.mail import Mail, PaneOutput
from fuseboard_streams.core.owner import Owner
from fuseboard_streams.core.panes import MINUTE_S, Panes
from fuseboard_streams.core.pools import Pools
from fuseboard_streams.core.requests import Requests
from fuseboard_streams.core.ruleset import GUARD, Response, Rung
from fuseboard_streams.core.rulings import trip_of, words_of
from fuseboard_streams.core.settings import SECOND
from fuseboard_streams.core.tool_objectives import ToolObjectives
from fuseboard_streams.core.tool_states import ToolStates
from fuseboard_streams.core.watermark import Watermark

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_schemas.records import Override, Pane
    from fuseboard_streams.core.blame import I64, Bools
    from fuseboard_streams.core.breaker import Breaker
    from fuseboard_streams.core.breakers import Breakers
    from fuseboard_streams.core.counters import ShardCounters
    from fuseboard_streams.core.doubts import Doubt
    from fuseboard_streams.core.guarding import Incident, Request
    from fuseboard_streams.core.identity import Identities
    from fuseboard_streams.core.inputs import Received
    from fuseboard_streams.core.nearing import Nearing
    from fuseboard_streams.core.objects import Objects
    from fuseboard_streams.core.owner import Found
    from fuseboard_streams.core.piece import Piece
    from fuseboard_streams.core.requests import Asked, Trip
    from fuseboard_streams.core.rulebook import Rulebook
    from fuseboard_streams.core.rulings import Rulings
    from fuseboard_streams.core.state import ShardState
    from fuseboard_streams.core.tool_objectives import Key

METRIC: Final = "calls.failed"
_TO_TOOL = (PaneKind.PROBED,)
_TO_TENANT = (PaneKind.TRIP_REQUEST, PaneKind.RELEASED)
_TO_ACTOR = (PaneKind.GRANTED, PaneKind.REFUSED)
_NAMES = "pane"
"""Kind of the objects in the state log."""
_KINDS = ("tool", "tenant", "blame", "sums", "objective", "rings", "results", "said")
"""What their names begin with, but for that of the shard."""


class SecondStage:
    """One shard's part in rules about tools and tenants.

    Args:
        number: Of the shard.
        partitions: Of every topic.
        book: The rules in force.
        state: The shard's.
        identities: The shard's.
        breakers: The shard's.
        counters: The shard's.
        forget_after_us: What has been idle for longer begins anew.
    """

    rulings: Rulings
    """Where decisions go; set once, by whoever makes both."""
    note_hold: Callable[[str, str, int], None]
    """Told the breaker, rule and time of a hold that somebody gave leave for; set like `rulings`."""

    def __init__(
        self,
        number: int,
        partitions: int,
        book: Rulebook,
        state: ShardState,
        identities: Identities,
        breakers: Breakers,
        counters: ShardCounters,
        forget_after_us: int,
    ) -> None:
        self._number, self._partitions = number, partitions
        self._book, self._state, self._identities, self._breakers = book, state, identities, breakers
        self._counters = counters
        radius = book.rules.blast_radius
        self._objectives = ToolObjectives(book)
        self.pools = Pools(book.pooled, self._objectives.wanted, state.tools, state.actors, partitions)
        self._mail = Mail(number, partitions, book)
        self._owner = Owner(book.pooled, forget_after_us // SECOND)
        self._panes = Panes(self.pools, state.tools, state.actors, self._mail)
        self._states = ToolStates(self._mail)
        self._blame = Blame(self.pools, book.tools, state, identities, breakers)
        self._doubts = Doubts(book, self._blame)
        self._guard = Guard(radius)
        self._requests = Requests(radius, state.actors, self._mail, partitions, forget_after_us // SECOND)
        self._watermark = Watermark(partitions)
        self._heard = [0] * partitions
        """The number of the last pane from each shard."""
        self._probes: list[list[Any]] = []
        """Results of probes that wait for their second: second, shard, sequence, tenant, tool, epoch, ok, event."""
        self._minute = 0
        self._used = self.wanted
        """Whether there is, or has been, anything to keep."""

    @property
    def wanted(self) -> bool:
        """Whether the rules ask for anything here."""
        return self.pools.wanted or self._guard.wanted

    # --- rules

    def adopt(self) -> None:
        """Follow other rules from now on; what they find is dealt with by `rules_changed`, or loaded."""
        radius = self._book.rules.blast_radius
        self._objectives.adopt(self._book)
        self.pools.adopt(self._objectives.wanted, self._identities.tool_names)
        self._guard.adopt(radius)
        self._requests.adopt(radius)

    def rules_changed(self, now_us: int) -> None:
        """Other rules have come into force, in a transaction; the holds that they end have been released."""
        self._used = self._used or self.wanted
        self._owner.rules_changed()
        self._objectives.rules_changed()
        self._guard.rules_changed()
        self._panes.restore(self._panes.saved() if self.pools.wanted else {})
        if not self._guard.wanted:
            # A home that skips these rules would count them for ever. Under the next ones it is told at once.
            self._requests.let_go(now_us)
            self._minute = 0
        for identity, rule in sorted(self._requests.asked):
            self._reconsider(identity, rule, now_us)

    def _reconsider(self, identity: str, rule: str, now_us: int) -> None:
        """Whether a trip that waits for its answer is still one, and still has to wait."""
        target = parse_breaker_id(identity)
        found = self._book.rule_for(rule, target)
        asked = self._requests.asked[identity, rule]
        if found is None or self._began_anew(rule, target):
            del self._requests.asked[identity, rule]
            self._go_on(rule, target, now_us)
            return
        trip = asked.trip(target, found[0].variants[found[1]].response, now_us)
        if not self._requests.covers(trip):
            del self._requests.asked[identity, rule]
            self._trip(trip)
            if trip.response.mode is not Mode.ENFORCE:
                self._go_on(rule, target, now_us)

    def _began_anew(self, rule: str, target: Target) -> bool:
        """Whether the statistic that asked for a trip is not the one that the rules in force have."""
        level, row = self._book.actors, self._identities.find_actor(target.tenant, target.actor or "")
        if rule != level.name or row is None:
            return False
        number = level.number(target.tenant, target.actor or "", "")
        return level.basis(number) != int(self._state.actors["basis"][row])

    def _go_on(self, rule: str, target: Target, now_us: int) -> None:
        """Let an actor's statistic go on that has rested for an answer, with the calls that begin from now on."""
        row = self._identities.find_actor(target.tenant, target.actor or "")
        if row is not None and rule == self._book.actors.name:
            actors = self._state.actors
            actors.touch("stat", np.array([row]))
            actors["frozen"][row], actors["closed_at"][row] = 0, now_us

    # --- calls of this shard

    def arrive(self, piece: Piece) -> None:
        """A piece of calls begins; its keys' last-seen times are still what they were."""
        if not self.wanted:
            return
        minute = int(piece.stream[0]) // SECOND // MINUTE_S * MINUTE_S
        if self._guard.wanted and minute > self._minute:
            self._minute = minute
            self._requests.tell_standing(minute)
        if self.pools.wanted:
            self._panes.arrive(piece)

    def note(self, piece: Piece) -> None:
        """The calls of a piece, without duplicates; none may be left."""
        if self.pools.wanted:
            counting = self._blame.counting(piece)
            self._panes.note(piece, ~piece.late if counting is None else ~piece.late & counting)

    def counting(self, piece: Piece) -> Bools | None:
        """Which calls may count for their actors: not those of a tool whose own breaker holds; None stands for all."""
        return self._blame.counting(piece)

    def refusing(self, piece: Piece) -> I64 | None:
        """Since when each call's tool is known to refuse everybody, as `Blame.refusing`."""
        return self._blame.refusing(piece)

    def doubt(self, several: list[Doubt]) -> None:
        """Calls seem to have passed a tool's own breaker."""
        self._doubts.note(several)

    def stop(self, begin_us: int) -> int | None:
        """Where a run of events that begins at a time must end, microseconds; None: anywhere."""
        if not self.wanted:
            return None
        stop, due = self._panes.stop(begin_us), self._requests.due
        return stop if due is None else min(stop, due)

    # --- time

    @property
    def next_due(self) -> int | None:
        """When a second is over that has to be told about, microseconds; None if there is none."""
        due, own = self._panes.due, self._requests.due
        return own if due is None else due if own is None else min(due, own)

    def tick(self, due_us: int) -> None:
        """Tell about every second that is over at a time."""
        if self._panes.due is not None and self._panes.due <= due_us:
            self._panes.close()
        self._requests.tell(due_us)

    def take(self, now_us: int) -> list[PaneOutput]:
        """What is to be sent since the last call, with markers that everything before the present second has been."""
        if self.wanted and now_us:
            due = self.next_due
            # What comes last may count for nobody: then the second before it is over, and not told yet.
            self._mail.mark(min(now_us, now_us if due is None else due - 1) // SECOND)
        return self._mail.take()

    # --- what others tell

    def refuse(self, pane: Pane) -> tuple[DeadLetterReason, str] | None:
        """Why a pane cannot be used, or None if it can."""
        if not 0 <= pane.source_shard < self._partitions:
            return (
                DeadLetterReason.INVALID_FIELD,
                f"source_shard is {pane.source_shard}, expected one of 0 to {self._partitions - 1}",
            )
        home = self._home(pane)
        if home is not None and home != self._number:
            return (
                DeadLetterReason.MISPLACED,
                f"a pane of kind {pane.kind} about {pane.tenant}/{pane.tool or pane.actor} belongs to "
                f"partition {home}, not {self._number}",
            )
        return None

    def _home(self, pane: Pane) -> int | None:
        if pane.kind in _TO_TENANT or (pane.kind is PaneKind.SUMS and pane.tool is None):
            return home_partition(Scope.TENANT, pane.tenant, None, None, self._partitions)
        if pane.kind is PaneKind.SUMS or pane.kind in _TO_TOOL:
            return home_partition(Scope.TOOL, pane.tenant, None, pane.tool or "", self._partitions)
        if pane.kind in _TO_ACTOR:
            return partition_for(home_key(Scope.ACTOR, pane.tenant, pane.actor or "", None), self._partitions)
        return None

    @property
    def complete_us(self) -> int:
        """The time before which everything has been heard, microseconds; 0 if nothing has."""
        return self._watermark.second * SECOND

    def hear(self, received: Received[Pane], now_us: int) -> None:
        """Take in a pane that `refuse` lets in.

        Args:
            received: The pane.
            now_us: Stream time of this shard, or the pane's own before its first event.
        """
        pane, source = received.record, received.record.source_shard
        self._used = True
        if pane.kind is not PaneKind.MARKER:
            if pane.sequence <= self._heard[source]:
                self._counters.panes_repeated += 1
                return
            self._counters.panes_missing += pane.sequence - self._heard[source] - 1
            self._heard[source] = pane.sequence
            self._take(pane, now_us, received.arrival)
        passed = pane.ts // SECOND if pane.kind is PaneKind.MARKER else 0
        before = self._watermark.second
        if self._watermark.hear(source, passed, received.arrival) > before:
            self._complete(self._watermark.second, now_us)
        for trip in self._doubts.settle(received.arrival, now_us):
            if not self.ask(trip):
                self._trip(trip)

    def _take(self, pane: Pane, now_us: int, arrival: int) -> None:
        second = pane.ts // SECOND
        late, second = second < self._watermark.second, max(second, self._watermark.second)
        match pane.kind:
            case PaneKind.SUMS if pane.tool is None:
                if self._guard.wanted:
                    self._guard.heard(pane, second)
            case PaneKind.SUMS if self.pools.hears(pane.tenant, pane.tool or ""):
                self._counters.panes_late += late
                self._take_sums(pane, second)
            case PaneKind.PROBED:
                self._probes.append(
                    [second, pane.source_shard, pane.sequence, pane.tenant, pane.tool, pane.breaker_epoch,
                     not pane.failures, pane.event_id]
                )  # fmt: skip
            case PaneKind.TRIP_REQUEST | PaneKind.RELEASED:
                self._guard.take(pane, second, released=pane.kind is PaneKind.RELEASED)
            case PaneKind.GRANTED | PaneKind.REFUSED:
                self._answered(pane, now_us)
            case PaneKind.TOOL_STATE:
                self.rulings.publish(self._blame.hear(pane, now_us, arrival))
            case _:
                return

    def _take_sums(self, pane: Pane, second: int) -> None:
        """A tool in one second, which counts for its breaker in a second that is not complete yet."""
        tenant, tool = pane.tenant, pane.tool or ""
        # Without calls that count, what it says of actors is no pane of the statistic.
        if (pane.calls or pane.actors_failing) and self.pools.follows(tenant, tool):
            self._owner.take(pane, second)
        if pane.results and self._objectives.wanted:
            own, results = pane.ts // SECOND, (pane.results, pane.results_bad)
            if own == second:
                self._objectives.take(tenant, tool, second, *results)
            else:
                self._objectives.fold(tenant, tool, own, *results, self._watermark.second)

    def _complete(self, before: int, now_us: int) -> None:
        """Decide every second before one, in order: objectives first, then tools, probes, and the guard."""
        waiting = {*self._owner.seconds(before), *self._guard.seconds(before), *self._objectives.seconds(before)}
        waiting |= {each[0] for each in self._probes if each[0] < before}
        for second in sorted(waiting):
            self._measure(second)
            self._objectives.step(second)
            for found in self._owner.step(second):
                self._found(found, second, now_us)
            for probe in sorted(each for each in self._probes if each[0] == second):
                self._probed(probe, now_us)
            self._probes = [each for each in self._probes if each[0] != second]
            answers, incidents = self._guard.step(second)
            for request, granted in answers:
                self._answer(request, granted=granted, now_us=now_us)
            for incident in incidents:
                self._incident(incident)
        self._measure(before)

    # --- as the owner of a tool

    def _measure(self, before: int) -> None:
        """Ask for states of objectives at the whole minutes up to a second before which all is complete."""
        for firing in self._objectives.advance(before * SECOND):
            self.rulings.say(trip_of(firing, None, None, None))

    def _found(self, found: Found, second: int, now_us: int) -> None:
        tenant, tool = found.tool
        target, moment = Target(Scope.TOOL, tenant, tool=tool), Moment(now_us, made_us=second * SECOND)
        evidence = Evidence(
            round(float(log10(np.array([found.mean]))[0]), 6), found.p0, found.calls, found.failures,
            found.since * SECOND,
        )  # fmt: skip
        response = self._book.pooled.response(found.number)
        reason = f"{words_of(target, evidence, now_us)}; it fails for {found.suspects} of {found.callers} actors"
        value = found.failures / max(found.calls, 1)
        if not found.tripped:
            self._counters.warnings += 1
            self.rulings.signal(SignalLevel.WARN, target, moment, response, METRIC, value, evidence, reason)
            return
        self._owner.restart(found.tool)
        fired = self._breakers.fire(target, moment, response, evidence, reason)
        self.rulings.told(fired, target, moment, response, METRIC, value, evidence, reason)

    def _probed(self, probe: list[Any], now_us: int) -> None:
        _, _, _, tenant, tool, epoch, ok, event_id = probe
        identity = breaker_id(Scope.TOOL, tenant, tool=tool)
        if epoch is not None and self._breakers.can_be_probe(identity, Effect.WRITE):
            self.rulings.publish(self._breakers.probe(identity, epoch, ok, Moment(now_us, event_id)))

    def nearing(self, most: int) -> list[Nearing]:
        """The tools owned here that are nearest to a trip."""
        return self._owner.nearing(most)

    def waiting_for(self, identity: str) -> dict[str, Asked]:
        """What waits for an answer of the guard about a breaker, by rule."""
        return {rule: asked for (each, rule), asked in self._requests.asked.items() if each == identity}

    def callers(self, tenant: str) -> int:
        """How many actors may probe a tool of a tenant whose breaker holds."""
        return self._owner.callers(tenant)

    def changed(self, breaker: Breaker) -> None:
        """A breaker of this shard has changed: others may have to know."""
        self._requests.changed(breaker)
        if breaker.scope is not Scope.TOOL or breaker.tool is None:
            return
        name = breaker.tenant, breaker.tool
        before = self._owner.frozen_by(name)
        rule = before or self._book.pooled.name
        held = None if rule is None else breaker.hold_of(rule)
        # Under a bypass too: what fails while somebody lets calls through is no news about the tool.
        if (held is None) != (before is None):
            self._owner.freeze(name, None if held is None else rule)
        self._states.tell(breaker, held, begins=before is None, followed=self.pools.followed)

    # --- as the home of a tenant

    def _answer(self, request: Request, *, granted: bool, now_us: int) -> None:
        kind = PaneKind.GRANTED if granted else PaneKind.REFUSED
        pane = self._mail.pane(kind, request.tenant, None, now_us)
        self._mail.send(request.shard, replace(pane, actor=request.actor, rule=request.rule))
        self._counters.withheld += not granted

    def _incident(self, incident: Incident) -> None:
        identity = breaker_id(Scope.TENANT, incident.tenant)
        reason = (
            f"{incident.reason}: fuseboard breakers ack {identity} --reason TEXT; what to look for: fuseboard runbook "
            f"{GUARD}"
        )
        moment = Moment(incident.since_us)
        self._say(SignalLevel.WARN, incident, moment, float(incident.actors), reason)

    def acknowledge(self, order: Override, now_us: int) -> bool:
        """A person's order about a tenant; returns whether it was meant for the guard's incident only."""
        if order.scope is not Scope.TENANT or order.kind not in (OverrideKind.ACKNOWLEDGE, OverrideKind.RESET):
            return False
        ended = self._guard.acknowledge(order.tenant)
        if ended is None:
            return False
        actors = "1 actor was" if ended.actors == 1 else f"{ended.actors} actors were"
        reason = (
            f"{order.person} has ended the incident in which {actors} not tripped, and actors of the tenant "
            f"{order.tenant} are tripped automatically again: {order.reason}"
        )
        self._say(SignalLevel.INFO, ended, Moment(now_us, order.override_id), 0.0, shown(reason))
        return order.kind is OverrideKind.ACKNOWLEDGE

    def _say(self, level: SignalLevel, incident: Incident, moment: Moment, value: float, reason: str) -> None:
        response = Response(GUARD, (Rung(Action.NONE),), rules_version=self._book.version)
        self.rulings.signal(
            level, Target(Scope.TENANT, incident.tenant), moment, response, "trips.withheld", value,
            Evidence(since_us=incident.since_us), reason, first=(SignalLevel.WARN, incident.since_us),
        )  # fmt: skip

    # --- as the shard of an actor

    def ask(self, trip: Trip) -> bool:
        """Ask for leave to trip an actor; returns whether it has to be asked for.

        What holds already climbs without.
        """
        if not self._requests.covers(trip):
            return False
        breaker = self._breakers.get(id_of(trip.target))
        if breaker is not None and breaker.hold_of(trip.response.rule) is not None:
            return False
        self._requests.ask(trip)
        return True

    def asked(self, identity: str, rule: str | None) -> bool:
        """Whether a rule's trip of a breaker waits for its answer."""
        return rule is not None and (identity, rule) in self._requests.asked

    def _answered(self, pane: Pane, now_us: int) -> None:
        target, rule = Target(Scope.ACTOR, pane.tenant, pane.actor), pane.rule or ""
        identity = id_of(target)
        asked = self._requests.asked.pop((identity, rule), None)
        found = self._book.rule_for(rule, target)
        if pane.kind is PaneKind.GRANTED and asked is not None and found is not None:
            self._requests.grant(identity, rule)
            self._trip(asked.trip(target, found[0].variants[found[1]].response, now_us))
            return
        if asked is not None:
            self._go_on(rule, target, now_us)
        breaker = self._breakers.get(identity)
        if breaker is not None and identity in self._requests.granted:
            self._requests.changed(breaker)
        elif pane.kind is PaneKind.GRANTED and not self.waiting_for(identity):
            # The trip that this is about is not wanted any more.
            self._requests.give_back(target, now_us)

    def _trip(self, trip: Trip) -> None:
        """Carry out what somebody gave leave for."""
        self.rulings.fire(trip)
        self.note_hold(id_of(trip.target), trip.response.rule, trip.moment.time_us)

    # --- state

    def record(self, objects: Objects) -> None:
        """Put everything that has changed into the state, before its changes are encoded."""
        if not self._used:
            return
        shard = {
            "minute": self._minute,
            "sequence": self._mail.sequence,
            "heard": self._heard,
            "panes": self._panes.saved(),
            "requests": self._requests.saved(),
            "watermark": self._watermark.saved(),
            "probes": self._probes,
            "asking": self._guard.saved_requests(),
            "doubts": self._doubts.saved(),
        }
        _put(objects, "", shard)
        for second in sorted(self._owner.touched):
            _put(objects, json.dumps(["sums", str(second)]), self._owner.saved_sums(second))
        for tool in sorted(self._owner.changed):
            _put(objects, json.dumps(["tool", *tool]), self._owner.saved(tool))
        self._record_objectives(objects)
        for tenant in sorted(self._guard.changed):
            _put(objects, json.dumps(["tenant", tenant]), self._guard.saved(tenant))
        for name in sorted(self._blame.changed):
            _put(objects, json.dumps(["blame", *name]), self._blame.saved(name))
        for name in sorted(self._states.changed):
            _put(objects, json.dumps(["said", *name]), self._states.saved(name))

    def _record_objectives(self, objects: Objects) -> None:
        measured = self._objectives
        for second in sorted(measured.touched):
            _put(objects, json.dumps(["results", str(second)]), measured.saved_second(second))
        for key in sorted(measured.changed):
            _put(objects, json.dumps(["objective", *key]), measured.saved(key))
        for key in sorted(measured.rolled):
            _put(objects, json.dumps(["rings", *key]), measured.saved_rings(key))

    def commit(self) -> None:
        """What has been put into the state is there for good."""
        self._objectives.kept()
        self._owner.touched.clear()
        for changed in (self._owner.changed, self._guard.changed, self._blame.changed, self._states.changed):
            changed.clear()

    def load(self, objects: Objects) -> None:
        """Put everything back as it stands in the state, after a restore or a rollback; tables are complete."""
        found: dict[str, dict[tuple[str, ...], Any]] = {kind: {} for kind in _KINDS}
        shard: dict[str, Any] = {}
        for name, value in objects.items(_NAMES):
            if name:
                kind, *key = json.loads(name)
                found[kind][tuple(key)] = json.loads(value)
            else:
                shard = json.loads(value)
        self._used = self.wanted or bool(shard)
        self.pools.rebuild(self._identities.tool_names)
        self._minute = shard.get("minute", 0)
        self._mail.restore(shard.get("sequence", ()))
        self._heard = shard.get("heard") or [0] * self._partitions
        self._panes.restore(shard.get("panes", {}) if self.pools.wanted else {})
        self._requests.restore(shard.get("requests", {}))
        self._watermark.restore(shard.get("watermark", {}))
        self._probes = shard.get("probes", [])
        tools = [((key[0], key[1]), each) for key, each in found["tool"].items()]
        self._owner.restore(tools, {int(key[0]): each for key, each in found["sums"].items()})
        self._objectives.restore(
            [(_key(key), each) for key, each in found["objective"].items()],
            {_key(key): each for key, each in found["rings"].items()},
            {int(key[0]): each for key, each in found["results"].items()},
        )
        tenants = [(key[0], each) for key, each in found["tenant"].items()]
        self._guard.restore(tenants, shard.get("asking", {}))
        self._blame.restore(((key[0], key[1]), each) for key, each in found["blame"].items())
        self._states.restore(((key[0], key[1]), each) for key, each in found["said"].items())
        self._doubts.restore(shard.get("doubts", ()))


def _key(name: tuple[str, ...]) -> Key:
    objective, tenant, tool = name
    return objective, tenant, tool


def _put(objects: Objects, name: str, value: Any) -> None:  # noqa: ANN401 - whatever JSON holds
    if value is None:
        objects.delete(_NAMES, name)
        return
    objects.put(_NAMES, name, json.dumps(value, separators=(",", ":")).encode())
