"""The breakers of one shard: what holds each, driven by rules, probe results, orders of people, and stream time.

A breaker holds a set of **holds**, one per rule. What is enforced is the join of what they ask for.

```
              fire, or an order              all holds probe, and their cooldowns are over
   ┌────────┐ ───────────────► ┌──────────┐ ──────────────────────────────► ┌───────────┐ ─┐ next wave: the quota's
   │ CLOSED │                  │   OPEN   │                                 │ HALF_OPEN │  │ results are in, or the
   └────────┘ ◄─────────────── └──────────┘ ◄────────────────────────────── └───────────┘ ◄┘ wave's time is over
     ▲    ▲    the last hold     │      ▲     probes fail or do not decide, three waves
     │    │    is released       │      │     bring no result, another hold, a rung up
     │    └──────────────────────│──────│───────────────────────────────────────┘ probes pass
     │ expiry, reset             ▼      │ expiry, reset of one rule (of the last hold: CLOSED)
   ┌─────────────────────────────────────────────────┐
   │ FORCED_OPEN (trip, hold) FORCED_CLOSED (bypass) │   holds come, climb and go underneath
   └─────────────────────────────────────────────────┘

   one hold:     fire again on calls made under the rung, or its time ──► one rung up (none above DISABLE_TOOL, HALT)
     PROBE       probes pass ──► one rung down           WINDOW    the window rolls over ──► released
     CLEAR       quiet for long enough ──► one rung down PERSON    an order ──► released; so is every critical rung
     any, on a session: an hour ──► released             any       reset, rule removed, blamed on another ──► released
```

There is no clock and no randomness here. Time is the shard's stream time; transitions by time happen only at ticks, on
whole seconds, and take the timer's time as theirs, so that it does not matter how often ticks are called. Jitter is
derived from the breaker's id and epoch.

Choices that the picture does not show:

* A breaker that trips again within twice its last cooldown (before jitter) after probes let it in is flapping: its
  cooldown goes on doubling where it was. Nothing else remembers: a release by a person, a window or quiet does not.
* A hold that may be probed waits with its cooldown over while another kind of hold is there, or an order.
* Under FORCED_OPEN the order's action is joined with the holds'; under FORCED_CLOSED nothing is enforced and nothing
  climbs, and when it ends every rung is in force anew. A new order replaces the one before,
  but a hold by hand never ends what is held open for longer.
* Nothing is weakened without a command whose cause is a release: PROBES_PASSED, CONDITION_CLEARED, EXPIRED, OVERRIDE,
  RULE_REMOVED or ATTRIBUTED.

How many calls a half-open period admits: a period counts at most ``max_probes`` (40) results, and each enforcer
admits at most the wave's quota under each epoch. If no more enforcers act than clients were counted, a wave that ends
because its results are in has admitted no more than it counted, so that

    admitted <= 40 + quota * enforcers + (calls of waves ended by time that brought no counted result)

whatever the delays, the order and the losses. The last term is at most quota * enforcers for each such wave, and
nothing when results come back within their wave. From here a probe that hangs looks like one that was never made.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, TypeAlias

from fuseboard_detectors.probes import ProbeVerdict
from fuseboard_schemas.records import BreakerState, Cause, Effect, Mode, Recovery, Scope
from fuseboard_streams.core.breaker import Breaker, Evidence, Moment, id_of
from fuseboard_streams.core.commands import shown
from fuseboard_streams.core.holds import RuleHold, ceil_second
from fuseboard_streams.core.orders import answer_order
from fuseboard_streams.core.transitions import Transitions, What
from fuseboard_streams.core.virtual import VirtualHolds

if TYPE_CHECKING:
    from fuseboard_schemas.keys import Target
    from fuseboard_schemas.records import Override
    from fuseboard_streams.core.breaker_params import BreakerParams
    from fuseboard_streams.core.ruleset import Response

__all__ = ["Breakers", "ClientsOf", "Fired", "Ordered", "Outcome", "ceil_second"]

ClientsOf: TypeAlias = Callable[[str, str], int]
"""(tenant, actor) to the clients of that actor seen within ``client_window_us``; the actor is "" for whole tenants."""

Gone: TypeAlias = Callable[[str, str, Mode], bool]
"""Breaker id, rule and a mode (ENFORCE for holds, SHADOW for virtual ones) to whether there can be no such hold."""

_SECOND = 1_000_000
_HEAP_SLACK = 64
"""Stale timers that are kept in any case: small heaps are not worth rebuilding."""


class Outcome(Enum):
    """What came of a rule's firing."""

    NOTHING = auto()
    """It holds already, or would."""
    TRIPPED = auto()
    """A hold began; of a rule that only watches, a virtual one."""
    CLIMBED = auto()
    """Its hold went up a rung."""
    REFUSED = auto()
    """Nothing: as many sessions of its tenant are held as may be."""


@dataclass(frozen=True, slots=True)
class Fired:
    """What came of a rule's firing, and the transitions to publish."""

    outcome: Outcome
    changed: tuple[Breaker, ...] = ()


@dataclass(frozen=True, slots=True)
class Ordered:
    """What came of a person's order: the transitions to publish, or why it is refused."""

    changed: tuple[Breaker, ...] = ()
    refused: str | None = None
    let_go: tuple[str, ...] = ()
    """The rules whose holds it ended."""


class Breakers:
    """All breakers of one shard, with undo.

    Between :meth:`begin` and :meth:`commit` every change can be taken back by :meth:`rollback`; states are immutable
    and replaced on write. A breaker that is closed costs memory, and nothing per tick. Calls come in the order of
    stream time: whoever fires or probes at a time has first run the timers due before it.

    Args:
        params: Of their automatic life.
        sessions: How many sessions of a tenant may be held at a time; None: any number.
    """

    def __init__(self, params: BreakerParams, sessions: int | None = None) -> None:
        self._params = params
        self._most_sessions = sessions
        self._transitions = Transitions(params)
        self.virtual = VirtualHolds()
        self._rows: dict[str, Breaker] = {}
        self._open: set[str] = set()
        self._alive: Counter[tuple[Scope, str]] = Counter()
        self._undo: dict[str, Breaker | None] | None = None
        # Timers by (due, id). An entry counts only while its breaker still has that due, others are skipped when they
        # come up. One may be in it twice: the first run moves the due on, so that the second is skipped.
        self._heap: list[tuple[int, str]] = []

    def __len__(self) -> int:
        """How many breakers are remembered, closed ones included."""
        return len(self._rows)

    def get(self, breaker_id: str) -> Breaker | None:
        """The breaker's present state; None if it never tripped or was forgotten."""
        return self._rows.get(breaker_id)

    def ids(self) -> tuple[str, ...]:
        """The ids of all remembered breakers, in order."""
        return tuple(sorted(self._rows))

    def open_ids(self) -> tuple[str, ...]:
        """The ids of all breakers that are not CLOSED, in order."""
        return tuple(sorted(self._open))

    def alive(self, scope: Scope, tenant: str) -> int:
        """How many breakers of a tenant and scope are not CLOSED."""
        return self._alive[scope, tenant]

    def alive_of(self, scope: Scope) -> int:
        """How many breakers of a scope are not CLOSED."""
        return sum(count for (each, _), count in self._alive.items() if each is scope)

    @property
    def all_closed(self) -> bool:
        """Whether no breaker holds anything back."""
        return not self._open

    # --- what rules say

    def fire(
        self,
        target: Target,
        moment: Moment,
        response: Response,
        evidence: Evidence | None = None,
        reason: str = "",
        until_us: int | None = None,
    ) -> Fired:
        """A rule has fired on a target.

        It begins to hold; if it holds already and fires on calls made under its present rung, it climbs, unless the
        next rung is one of time. A rule that only watches gets a virtual hold.

        Args:
            target: What to cut off.
            moment: Stream time, id and offset of the deciding event, and when it was made: only what was made under the
                present rung shows that it does not do.
            response: What follows when the rule fires.
            evidence: What it rests on; None: nothing that can be counted.
            reason: One line for people, cut after 500 characters; empty: made from the evidence.
            until_us: When the rule's window rolls over; needed for ``WINDOW``, except on a session.

        Returns:
            What came of it. With ``NOTHING`` or ``REFUSED`` there is nothing to publish, and the breaker is the very
            object that it was before, unless its condition had to be noted.

        Raises:
            ValueError: The evidence's baseline is not strictly between 0 and 1, or ``until_us`` is missing.
        """
        # State, commands and signals repeat it.
        reason = shown(reason)
        key, now = id_of(target), moment.time_us
        if response.mode is not Mode.ENFORCE:
            tripped = self.virtual.fire(key, response, now, until_us)
            return Fired(Outcome.TRIPPED if tripped else Outcome.NOTHING)
        before = self._rows.get(key) or Breaker.of(target)
        held = before.hold_of(response.rule)
        transitions = self._transitions
        evidence = evidence or Evidence()
        if held is None:
            if self._full(before):
                return Fired(Outcome.REFUSED)
            after = transitions.begin_hold(before, moment, response, evidence, reason, until_us)
            return Fired(Outcome.TRIPPED, (self._write(after),))
        if held.listens and moment.made_at > held.applied_at and not before.bypassed:
            after = transitions.climb(before, before.holds.index(held), moment, evidence, reason)
            return Fired(Outcome.CLIMBED, (self._write(after),))
        self._note(before, held, transitions.fire_again(held, now, until_us))
        return Fired(Outcome.NOTHING)

    def settled(self, target: Target, response: Response, now_us: int, until_us: int | None = None) -> bool:
        """Whether it would change nothing if a rule fired at a time, or before it: it holds, and cannot climb.

        Arguments as of :meth:`fire`, which need not be called then.
        """
        if response.mode is not Mode.ENFORCE:
            return self.virtual.settled(id_of(target), response.rule, now_us)
        _, held = self._held(target, response.rule)
        if held is None or held.listens:
            return False
        return self._transitions.fire_again(held, now_us, until_us) is held

    def burning(self, target: Target, rule: str, moment: Moment) -> None:
        """The condition of a rule is on: its hold is not released by quiet, and climbs by time. For ticks."""
        self.virtual.burning(id_of(target), rule, moment.time_us)
        before, held = self._held(target, rule)
        if before is not None and held is not None:
            self._note(before, held, self._transitions.burning(held, moment.time_us))

    def cleared(self, target: Target, rule: str, moment: Moment) -> None:
        """The condition of a rule is gone: the quiet clock runs from when it was last on. For ticks."""
        self.virtual.cleared(id_of(target), rule, moment.time_us)
        before, held = self._held(target, rule)
        if before is not None and held is not None:
            self._note(before, held, self._transitions.cleared(held, moment.time_us))

    def release(self, target: Target, rule: str, moment: Moment, cause: Cause, reason: str) -> tuple[Breaker, ...]:
        """End a rule's hold, whatever its rung, for example because another breaker owns the blame (``ATTRIBUTED``).

        Returns:
            The transition to publish; none if the rule does not hold.
        """
        before, held = self._held(target, rule)
        if before is None or held is None:
            return ()
        place = before.holds.index(held)
        return (self._write(self._transitions.release(before, place, moment, cause, reason)),)

    def holds(self, target: Target, rule: str, now_us: int) -> bool:
        """Whether a rule holds a target at a time, or would."""
        virtual = self.virtual.get(id_of(target), rule)
        return self._held(target, rule)[1] is not None or (virtual is not None and virtual.is_open(now_us))

    def release_where(self, gone: Gone, moment: Moment) -> tuple[Breaker, ...]:
        """End the holds of rules that are removed or enforce no more, but for those that wait for a person.

        Args:
            gone: Whether a rule has none left on a breaker, given by its id, in a mode.
            moment: When.

        Returns:
            The transitions to publish, in the order of the breakers' ids.
        """
        self.virtual.drop(lambda key, rule: gone(key, rule, Mode.SHADOW))
        done = []
        for key in self.open_ids():
            for held in self._rows[key].holds:
                if held.recovery is Recovery.PERSON or not gone(key, held.rule, Mode.ENFORCE):
                    continue
                before, reason = self._rows[key], f"rule {held.rule} is not in force any more"
                place = before.holds.index(held)
                after = self._transitions.release(before, place, moment, Cause.RULE_REMOVED, reason)
                done.append(self._write(after))
        return tuple(done)

    # --- what people and enforcers say

    def order(self, target: Target, order: Override, moment: Moment) -> Ordered:
        """Carry out a person's order that ``check_override`` accepts.

        Args:
            target: The order's target.
            order: What is ordered.
            moment: Stream time; the order's id, and its offset in ``overrides``.
        """
        before = self._rows.get(id_of(target)) or Breaker.of(target)
        answer = answer_order(self._transitions, before, order, moment)
        if answer.breaker is None:
            return Ordered(refused=answer.refused)
        written = self._write(answer.breaker)
        let_go = tuple(hold.rule for hold in before.holds if written.hold_of(hold.rule) is None)
        return Ordered((written,) if answer.publish else (), let_go=let_go)

    def acknowledge(self, breaker_id: str, epoch: int, moment: Moment) -> None:
        """An enforcer has applied an epoch: calls from now on are made under the rungs that it brought."""
        before = self._rows.get(breaker_id)
        if before is None or epoch > before.epoch:
            return
        now = moment.time_us
        holds = tuple(
            replace(hold, applied_at=now) if hold.epoch <= epoch and now < hold.applied_at else hold
            for hold in before.holds
        )
        if holds != before.holds:
            self._write(replace(before, holds=holds))

    def can_be_probe(self, breaker_id: str, effect: Effect) -> bool:
        """Whether a call with this effect may be a probe: one that the breaker holds back, and never irreversible.

        What passes anyway, a READ of an agent that may only read, says nothing.
        """
        breaker = self._rows.get(breaker_id)
        return breaker is not None and effect is not Effect.IRREVERSIBLE and breaker.axes.refuses(effect)

    def probe(self, breaker_id: str, epoch: int, ok: bool, moment: Moment) -> tuple[Breaker, ...]:
        """Take in the result of one probe call.

        Args:
            breaker_id: The breaker that admitted the call.
            epoch: The epoch under which it was admitted.
            ok: Whether the call succeeded.
            moment: Stream time, id and offset of the call's event.

        Returns:
            The transitions to publish, none or one. A result for a breaker that is not HALF_OPEN or of another epoch
            is ignored (with ``late_results`` those of earlier waves of the same period count).
        """
        before = self._rows.get(breaker_id)
        if before is None or before.test is None or not self._counts(before, epoch):
            return ()
        test = before.test.observe(ok)
        after = replace(before, test=test, wave_results=before.wave_results + 1)
        match test.verdict:
            case ProbeVerdict.PASS:
                after = self._transitions.pass_probes(after, moment)
            case ProbeVerdict.FAIL:
                after = self._transitions.reopen(after, moment, Cause.PROBES_FAILED)
            case ProbeVerdict.UNDECIDED:
                after = self._transitions.reopen(after, moment, Cause.PROBES_UNDECIDED)
            case ProbeVerdict.CONTINUE:
                if after.wave_results < after.quota * after.clients_in_wave:
                    self._write(after)
                    return ()
                after = self._transitions.next_wave(after, moment, after.clients_in_wave, empty=0)
        return (self._write(after),)

    # --- what time does

    def next_due(self) -> int | None:
        """The time of the next timer: microseconds, a whole second; None if there is none."""
        while self._heap and not self._is_live(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def tick(self, now_us: int, clients_of: ClientsOf) -> tuple[Breaker, ...]:
        """Run the timers due at or before a time, in the order of their times and then of the breakers' ids.

        Args:
            now_us: Stream time, microseconds, a whole second.
            clients_of: How many clients share the probes of a wave that opens now.

        Returns:
            The transitions to publish, in order; one with ``forgotten`` is a breaker removed: publish a tombstone.

        Raises:
            ValueError: ``now_us`` is not a whole second.
        """
        if now_us % _SECOND:
            raise ValueError(f"ticks are on whole seconds, not at {now_us} microseconds")
        done: list[Breaker] = []
        while (due := self.next_due()) is not None and due <= now_us:
            before = self._rows[heapq.heappop(self._heap)[1]]
            after = self._on_timer(before, Moment(due), clients_of)
            if after is not None:
                done.append(after)
        self.virtual.drop_over(now_us)
        return tuple(done)

    def _on_timer(self, before: Breaker, moment: Moment, clients_of: ClientsOf) -> Breaker | None:
        transitions = self._transitions
        timer = transitions.timer(before)
        if timer is None or timer.due > moment.time_us:
            # The settings have been changed since it was written: it is due later now.
            self._write(transitions.timed(before))
            return None
        match timer.what:
            case What.FORGET:
                self.discard(before.breaker_id)
                return replace(before, forgotten=True)
            case What.END_ORDER:
                return self._write(self._end_order(before, moment))
            case What.RELEASE:
                return self._write(transitions.on_release_timer(before, timer.hold, moment))
            case What.CLIMB:
                return self._write(transitions.climb(before, timer.hold, moment))
        clients = clients_of(before.tenant, before.actor or "")
        if before.state is BreakerState.OPEN:
            return self._write(transitions.next_wave(before, moment, clients, empty=0))
        empty = 0 if before.wave_results else before.waves_without_result + 1
        if empty >= self._params.empty_waves:
            return self._write(transitions.reopen(before, moment, Cause.NO_PROBES))
        return self._write(transitions.next_wave(before, moment, clients, empty=empty))

    def _end_order(self, before: Breaker, moment: Moment) -> Breaker:
        person = before.forced.person if before.forced else None
        left = f": {len(before.holds)} rule(s) hold it" if before.holds else ""
        reason = f"the order of {person} has ended{left}"
        return self._transitions.arrive(before, moment, Cause.EXPIRED, holds=before.holds, reason=reason, person=person)

    # --- undo and state

    def begin(self) -> None:
        """Open a transaction: from here on changes can be taken back.

        Raises:
            RuntimeError: One is open already.
        """
        if self._undo is not None:
            raise RuntimeError("a transaction on the breakers is open already: commit or roll it back first")
        self._undo = {}
        self.virtual.begin()

    def commit(self) -> None:
        """Keep the changes made since :meth:`begin`."""
        self._undo = None
        self.virtual.commit()

    def rollback(self) -> None:
        """Take back every change made since :meth:`begin`."""
        undo, self._undo = self._undo or {}, None
        for key, before in undo.items():
            self._store(key, before)
        self.virtual.rollback()

    def changed(self) -> tuple[str, ...]:
        """The ids of the breakers changed or removed since :meth:`begin`, in order."""
        return tuple(sorted(self._undo or ()))

    def put(self, breaker: Breaker) -> None:
        """Set a breaker as it was written to the state log; its timer is its ``due``."""
        self._write(breaker)

    def discard(self, breaker_id: str) -> None:
        """Remove a breaker, if it is there."""
        self._remember(breaker_id)
        self._store(breaker_id, None)

    # --- storage

    def _held(self, target: Target, rule: str) -> tuple[Breaker | None, RuleHold | None]:
        before = self._rows.get(id_of(target))
        return before, None if before is None else before.hold_of(rule)

    def _note(self, before: Breaker, held: RuleHold, after: RuleHold) -> None:
        """Write what has been noted about a hold, which nobody is told."""
        if after is not held:
            holds: Iterable[RuleHold] = (after if hold is held else hold for hold in before.holds)
            self._write(self._transitions.timed(replace(before, holds=tuple(holds))))

    def _full(self, breaker: Breaker) -> bool:
        """Whether it would be one session more than may be held."""
        if breaker.scope is not Scope.SESSION or self._most_sessions is None:
            return False
        return breaker.state is BreakerState.CLOSED and self.alive(Scope.SESSION, breaker.tenant) >= self._most_sessions

    def _counts(self, breaker: Breaker, epoch: int) -> bool:
        if breaker.state is not BreakerState.HALF_OPEN:
            return False
        oldest = breaker.period if self._params.late_results else breaker.epoch
        return oldest <= epoch <= breaker.epoch

    def _write(self, breaker: Breaker) -> Breaker:
        self._remember(breaker.breaker_id)
        self._store(breaker.breaker_id, breaker)
        return breaker

    def _remember(self, key: str) -> None:
        if self._undo is not None and key not in self._undo:
            self._undo[key] = self._rows.get(key)

    def _store(self, key: str, breaker: Breaker | None) -> None:
        before = self._rows.get(key)
        if breaker is None:
            self._rows.pop(key, None)
        else:
            self._rows[key] = breaker
        known = breaker or before
        if known is not None:
            self._count(known, is_open=breaker is not None and breaker.state is not BreakerState.CLOSED)
        if breaker is None:
            return
        if breaker.due is not None:
            heapq.heappush(self._heap, (breaker.due, key))
            self._drop_stale_timers()

    def _count(self, breaker: Breaker, *, is_open: bool) -> None:
        key, group = breaker.breaker_id, (breaker.scope, breaker.tenant)
        if is_open == (key in self._open):
            return
        if is_open:
            self._open.add(key)
            self._alive[group] += 1
            return
        self._open.discard(key)
        self._alive[group] -= 1
        if not self._alive[group]:
            del self._alive[group]

    def _drop_stale_timers(self) -> None:
        # Each transition leaves the old timer behind, for up to a week: a breaker that keeps changing would fill the
        # heap. Rebuilding when more than half of it is stale costs a constant amount per transition.
        if len(self._heap) > 2 * len(self._rows) + _HEAP_SLACK:
            self._heap = [(row.due, key) for key, row in self._rows.items() if row.due is not None]
            heapq.heapify(self._heap)

    def _is_live(self, entry: tuple[int, str]) -> bool:
        row = self._rows.get(entry[1])
        return row is not None and row.due == entry[0]
