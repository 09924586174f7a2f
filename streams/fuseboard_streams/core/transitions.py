"""What each event makes of a breaker: pure functions from one state to the next. `Breakers` keeps the states."""

from __future__ import annotations

from dataclasses import replace
from enum import IntEnum
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from fuseboard_detectors.probes import ProbeTest
from fuseboard_schemas.records import BreakerState, Cause, Recovery, Scope, Severity
from fuseboard_streams.core.holds import Condition, Evidence, RuleHold, ceil_second, cooldown_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuseboard_streams.core.breaker import Breaker, Forced, Moment
    from fuseboard_streams.core.breaker_params import BreakerParams
    from fuseboard_streams.core.ruleset import Response, Rung

__all__ = ["ACKNOWLEDGED_AFTER_US", "SESSION_US", "Timer", "Transitions", "What"]

ACKNOWLEDGED_AFTER_US = 5_000_000
"""A rung that nobody has acknowledged counts as applied so long after it was decided."""
SESSION_US = 3_600_000_000
"""A hold on a session ends after so long at the latest: by then the session is over."""
_SEVERITIES = tuple(Severity)


class What(IntEnum):
    """What a timer does; those due at the same time run in this order."""

    FORGET = 0
    END_ORDER = 1
    RELEASE = 2
    CLIMB = 3
    PROBE = 4


class Timer(NamedTuple):
    """The next thing that time does to a breaker."""

    due: int
    """A whole second, microseconds."""
    what: What
    hold: int = 0
    """Which hold, by its place."""


class Transitions:
    """All transitions under some settings.

    Whatever follows from a call, ``fire`` and the results of probes, starts no timer that is due within
    ``BreakerParams.min_cooldown_us``; an order of a person or a condition told at a tick may start one that is due at
    once.
    """

    def __init__(self, params: BreakerParams) -> None:
        self._params = params

    # --- time

    def timer(self, breaker: Breaker) -> Timer | None:
        """The next thing that time does to a breaker; None if it waits for an event or a person."""
        if breaker.state is BreakerState.CLOSED:
            kept = self._params.forget_after_us
            if breaker.scope is Scope.SESSION:
                kept = min(kept, self._params.forget_session_us)
            return Timer(ceil_second(breaker.decided_at + kept), What.FORGET)
        timers = []
        if breaker.forced is not None and breaker.forced.expires_at is not None:
            timers.append(Timer(ceil_second(breaker.forced.expires_at), What.END_ORDER))
        for i, hold in enumerate(breaker.holds):
            released = self.release_at(hold)
            if released is not None:
                timers.append(Timer(released, What.RELEASE, i))
            # Under a bypass no rung is in force, so that none of them can have proved too weak.
            if hold.climb_at is not None and hold.condition is not Condition.CLEARED and not breaker.bypassed:
                timers.append(Timer(hold.climb_at, What.CLIMB, i))
        if breaker.state is BreakerState.HALF_OPEN:
            timers.append(Timer(ceil_second(breaker.decided_at + self._params.wave_us), What.PROBE))
        elif breaker.retry_at is not None:
            timers.append(Timer(breaker.retry_at, What.PROBE))
        return min(timers, default=None)

    def timed(self, breaker: Breaker) -> Breaker:
        """The breaker with its ``due``."""
        timer = self.timer(breaker)
        return replace(breaker, due=None if timer is None else timer.due)

    def release_at(self, hold: RuleHold) -> int | None:
        """When a hold is released, or goes down a rung, if nothing else happens."""
        ends = [] if hold.expires_at is None else [hold.expires_at]
        if hold.recovery is Recovery.WINDOW and hold.until is not None:
            ends.append(hold.until)
        if hold.recovery is Recovery.CLEAR and hold.condition is not Condition.ON:
            ends.append(self._after(hold.last_on, hold.plan.quiet_us))
        return min(ends, default=None)

    def _after(self, time_us: int, wait_us: int) -> int:
        """A timer's time: a whole second, and never sooner than promised."""
        return ceil_second(time_us + max(wait_us, self._params.min_cooldown_us))

    # --- every transition

    def arrive(
        self,
        before: Breaker,
        moment: Moment,
        cause: Cause,
        *,
        holds: tuple[RuleHold, ...],
        about: RuleHold | None = None,
        reason: str = "",
        forced: Forced | None = None,
        person: str | None = None,
    ) -> Breaker:
        """The breaker after a transition to whatever state its holds and the order in force make.

        Args:
            before: The state before.
            moment: When, and by which event.
            cause: Why.
            holds: All holds from now on.
            about: The hold that the transition is about; None: an order of a person.
            reason: In one line; empty: made from the evidence.
            forced: The order in force from now on.
            person: Who caused it, if that is not who gave that order.
        """
        epoch = self.next_epoch(before, moment.time_us)
        if before.bypassed and (forced is None or forced.opens):
            holds = tuple(self._in_force_anew(hold, epoch, moment.time_us) for hold in holds)
        closed = not holds and forced is None
        left = before.state is BreakerState.CLOSED and not closed
        after = replace(
            before,
            state=_state(holds, forced),
            epoch=epoch,
            holds=holds,
            forced=forced,
            cause=cause,
            severity=max((h.severity for h in holds), key=_SEVERITIES.index, default=before.severity),
            reason=reason,
            since=moment.time_us if left else before.since,
            decided_at=moment.time_us,
            event_id=moment.event_id,
            offset=moment.offset,
            person=person or (forced.person if forced else None),
            expires_at=forced.expires_at if forced else None,
            acknowledged_by=None if left else before.acknowledged_by,
            acknowledged_at=None if left else before.acknowledged_at,
            reopenings=0 if closed else before.reopenings,
            test=None if left else before.test,
            wave=0, waves_without_result=0, wave_results=0, quota=0, clients_in_wave=0, period=0,
        )  # fmt: skip
        return self.timed(_about(after, about))

    @staticmethod
    def next_epoch(before: Breaker, time_us: int) -> int:
        """Above the last one, and at least the stream time in milliseconds, so that it grows even over lost state."""
        return max(before.epoch + 1, time_us // 1000)

    def _in_force_anew(self, hold: RuleHold, epoch: int, time_us: int) -> RuleHold:
        climb_at = self._climb_at(hold.above, time_us)
        return replace(hold, epoch=epoch, applied_at=time_us + ACKNOWLEDGED_AFTER_US, climb_at=climb_at)

    # --- holds: they begin, climb, step down and end

    def begin_hold(
        self,
        before: Breaker,
        moment: Moment,
        response: Response,
        evidence: Evidence,
        reason: str,
        until_us: int | None,
    ) -> Breaker:
        """A rule that does not hold yet has fired.

        Raises:
            ValueError: The evidence's baseline cannot be tested, or a rule that recovers by its window gives no end.
        """
        now = moment.time_us
        hold = RuleHold(
            rule=response.rule,
            rules_version=response.rules_version,
            ladder=response.ladder,
            plan=response.recovery,
            runbook=response.runbook,
            evidence=evidence,
            reason=reason,
            first_since=now,
            since=now,
            epoch=self.next_epoch(before, now),
            applied_at=now + ACKNOWLEDGED_AFTER_US,
            last_on=now,
            until=None if until_us is None else self._after(now, until_us - now),
            expires_at=self._after(now, SESSION_US) if before.scope is Scope.SESSION else None,
            event_id=moment.event_id,
            offset=moment.offset,
            backoff=before.backoff if now < before.calm_at else 0,
        )
        hold = replace(hold, climb_at=self._climb_at(hold.above, now))
        if hold.probes:
            self.new_test(hold.baseline)  # a baseline that cannot be tested is refused here, not at a later tick
        if hold.recovery is Recovery.WINDOW and until_us is None and hold.expires_at is None:
            raise ValueError(f"rule {hold.rule} recovers by its window: say with until_us when that is over")
        hold = self._cool_down(hold, before, now)
        holds = (*before.holds, hold)
        return self.arrive(before, moment, Cause.TRIP, holds=holds, about=hold, reason=reason, forced=before.forced)

    def climb(
        self, before: Breaker, place: int, moment: Moment, evidence: Evidence | None = None, reason: str = ""
    ) -> Breaker:
        """A hold goes up one rung: because its rule fired again, with its evidence, or by time."""
        hold, now = before.holds[place], moment.time_us
        fired = evidence is not None
        higher = replace(
            hold,
            rung=hold.rung + 1,
            since=now,
            epoch=self.next_epoch(before, now),
            applied_at=now + ACKNOWLEDGED_AFTER_US,
            condition=Condition.FIRED if fired and hold.condition is Condition.CLEARED else hold.condition,
            last_on=now if fired else hold.last_on,
            evidence=hold.evidence if evidence is None else evidence,
            reason=reason if fired else hold.reason,
            event_id=moment.event_id,
            offset=moment.offset,
        )
        higher = self._cool_down(replace(higher, climb_at=self._climb_at(higher.above, now)), before, now)
        if not fired:
            held_s = (now - hold.since) // 1_000_000
            reason = f"{hold.rule} still holds after {held_s} s of {hold.action}: {higher.action} from now on"
        holds = _with(before.holds, place, higher)
        return self.arrive(before, moment, Cause.TRIP, holds=holds, about=higher, reason=reason, forced=before.forced)

    def fire_again(self, hold: RuleHold, now: int, until_us: int | None) -> RuleHold:
        """A rule has fired that holds already and does not climb: its condition is on, and a window may end later."""
        after = hold
        if hold.condition is Condition.CLEARED:
            after = self._on_again(hold, now, Condition.FIRED)
        if after.recovery is Recovery.CLEAR and after.condition is Condition.FIRED:
            after = replace(after, last_on=now)
        if until_us is not None and after.recovery is Recovery.WINDOW:
            until = max(after.until or 0, self._after(now, until_us - now))
            # A session's hold ends an hour after it was made, however long it goes on looping.
            after = replace(after, until=until if after.expires_at is None else min(until, after.expires_at))
        return hold if after == hold else after

    def burning(self, hold: RuleHold, now: int) -> RuleHold:
        """The condition is on."""
        return hold if hold.condition is Condition.ON else self._on_again(hold, now, Condition.ON)

    def cleared(self, hold: RuleHold, now: int) -> RuleHold:
        """The condition is gone."""
        if hold.condition is Condition.CLEARED:
            return hold
        # Only fired: it was on at that moment, and the quiet clock runs from there.
        last_on = now if hold.condition is Condition.ON else hold.last_on
        return replace(hold, condition=Condition.CLEARED, last_on=last_on)

    def step_down(self, before: Breaker, place: int, moment: Moment, cause: Cause, reason: str) -> Breaker:
        """A hold goes down one rung; from the lowest it is released."""
        hold = before.holds[place]
        if hold.rung == 0:
            return self.release(before, place, moment, cause, reason)
        holds = _with(before.holds, place, self._lower(hold, before, moment))
        about = holds[place]
        return self.arrive(before, moment, cause, holds=holds, about=about, reason=reason, forced=before.forced)

    def release(self, before: Breaker, place: int, moment: Moment, cause: Cause, reason: str) -> Breaker:
        """A hold ends, whatever its rung."""
        holds = _with(before.holds, place, None)
        about = before.holds[place]
        return self.arrive(before, moment, cause, holds=holds, about=about, reason=reason, forced=before.forced)

    def on_release_timer(self, before: Breaker, place: int, moment: Moment) -> Breaker:
        """The time of a hold has come: its session or window is over, or it has been quiet for long enough."""
        hold = before.holds[place]
        if hold.expires_at is not None and hold.expires_at <= moment.time_us:
            reason = f"{hold.rule} held the session for an hour, its longest time"
            return self.release(before, place, moment, Cause.EXPIRED, reason)
        if hold.recovery is Recovery.WINDOW:
            reason = f"the window of {hold.rule} is over"
            return self.release(before, place, moment, Cause.CONDITION_CLEARED, reason)
        quiet_s = (moment.time_us - hold.last_on) // 1_000_000
        reason = f"the condition of {hold.rule} has been gone for {quiet_s} s"
        return self.step_down(before, place, moment, Cause.CONDITION_CLEARED, reason)

    def _lower(self, hold: RuleHold, before: Breaker, moment: Moment) -> RuleHold:
        now = moment.time_us
        lower = replace(
            hold,
            rung=hold.rung - 1,
            since=now,
            epoch=self.next_epoch(before, now),
            applied_at=now + ACKNOWLEDGED_AFTER_US,
            condition=Condition.CLEARED,
            last_on=now,
            backoff=0,
            event_id=moment.event_id,
            offset=moment.offset,
        )
        return self._cool_down(replace(lower, climb_at=self._climb_at(lower.above, now)), before, now)

    def _on_again(self, hold: RuleHold, now: int, condition: Condition) -> RuleHold:
        climb_at = hold.climb_at
        if climb_at is not None and hold.condition is Condition.CLEARED:
            climb_at = max(climb_at, self._after(now, 0))
        return replace(hold, condition=condition, climb_at=climb_at, last_on=max(hold.last_on, now))

    def _climb_at(self, above: Rung | None, now: int) -> int | None:
        return None if above is None or above.after_us is None else self._after(now, above.after_us)

    def _cool_down(self, hold: RuleHold, before: Breaker, now: int) -> RuleHold:
        if not hold.probes:
            return replace(hold, cooldown_us=0, probe_at=None)
        half = cooldown_of(hold.plan, hold.backoff) // 2
        jittered = half + _fraction_of(half, before.breaker_id, self.next_epoch(before, now))
        # What is published is what is waited for.
        cooldown = max(jittered, self._params.min_cooldown_us)
        return replace(hold, cooldown_us=cooldown, probe_at=self._after(now, cooldown))

    # --- probes

    def next_wave(self, before: Breaker, moment: Moment, clients: int, *, empty: int) -> Breaker:
        """A wave of probes begins."""
        epoch = self.next_epoch(before, moment.time_us)
        # The most careful rule says how many calls may be risked.
        probes = min(hold.plan.probes for hold in before.holds)
        wave = replace(
            before,
            state=BreakerState.HALF_OPEN,
            cause=Cause.NEXT_WAVE if before.wave else Cause.COOLDOWN_OVER,
            epoch=epoch,
            period=before.period or epoch,
            test=before.test if before.wave else self.new_test(_lead(before.holds).baseline),
            decided_at=moment.time_us,
            event_id=moment.event_id,
            offset=moment.offset,
            person=None,
            expires_at=None,
            reason="",
            wave=before.wave + 1,
            waves_without_result=empty,
            wave_results=0,
            clients_in_wave=max(1, clients),
            quota=max(1, probes // max(1, clients)),
        )
        return self.timed(_about(wave, _lead(before.holds)))

    def pass_probes(self, before: Breaker, moment: Moment) -> Breaker:
        """Every hold goes down one rung; from the lowest it is released."""
        doubled = max(hold.backoff for hold in before.holds) + 1
        longest = max(cooldown_of(hold.plan, hold.backoff) for hold in before.holds)
        holds = tuple(self._lower(hold, before, moment) for hold in before.holds if hold.rung > 0)
        before = replace(before, backoff=doubled, calm_at=moment.time_us + 2 * longest)
        return self.arrive(before, moment, Cause.PROBES_PASSED, holds=holds, about=_lead(before.holds))

    def reopen(self, before: Breaker, moment: Moment, cause: Cause) -> Breaker:
        """Every hold cools down again, for twice as long."""
        now = moment.time_us
        holds = []
        for hold in before.holds:
            # Waves without a result say nothing about the condition.
            if cause is not Cause.NO_PROBES and hold.condition is Condition.CLEARED:
                hold = self._on_again(hold, now, Condition.FIRED)
            holds.append(self._cool_down(replace(hold, backoff=hold.backoff + 1), before, now))
        again = replace(before, reopenings=before.reopenings + 1)
        return self.arrive(again, moment, cause, holds=tuple(holds), about=_lead(before.holds))

    def new_test(self, null_p0: float) -> ProbeTest:
        """The probe test of a baseline.

        Raises:
            ValueError: It cannot be tested.
        """
        params = self._params
        return ProbeTest.start(
            null_p0, floor=params.p1_floor, odds=params.odds, error=params.error, limit=params.max_probes
        )


def _state(holds: Sequence[RuleHold], forced: Forced | None) -> BreakerState:
    if forced is not None:
        return BreakerState.FORCED_OPEN if forced.opens else BreakerState.FORCED_CLOSED
    return BreakerState.OPEN if holds else BreakerState.CLOSED


def _about(breaker: Breaker, hold: RuleHold | None) -> Breaker:
    """The breaker with what its last transition was about; None: an order of a person."""
    if hold is None:
        return replace(breaker, rule="manual", rules_version="", runbook=None, evidence=Evidence())
    return replace(
        breaker, rule=hold.rule, rules_version=hold.rules_version, runbook=hold.runbook, evidence=hold.evidence
    )


def _lead(holds: Sequence[RuleHold]) -> RuleHold:
    """The hold that probes are held against: the one with the largest baseline, of equals the first."""
    return max(holds, key=lambda hold: hold.baseline)


def _with(holds: tuple[RuleHold, ...], place: int, hold: RuleHold | None) -> tuple[RuleHold, ...]:
    return (*holds[:place], *(() if hold is None else (hold,)), *holds[place + 1 :])


def _fraction_of(span: int, breaker_id: str, epoch: int) -> int:
    """A number in [0, span), evenly spread over ids and epochs and fixed for each of them."""
    digest = blake2b(f"{breaker_id}\0{epoch}".encode(), digest_size=8).digest()
    return span * int.from_bytes(digest, "big") >> 64
