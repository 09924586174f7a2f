"""Several holds on one breaker: their join, ladders, and what releases each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fuseboard_schemas.keys import Target
from fuseboard_schemas.records import Action, BreakerCommand, BreakerState, Cause, Hold, Recovery, Scope, Severity
from fuseboard_streams.core.breaker import Breaker, Evidence, Moment, decode, encode
from fuseboard_streams.core.breaker_params import BreakerParams
from fuseboard_streams.core.breakers import Breakers, Outcome
from fuseboard_streams.core.commands import to_command
from fuseboard_streams.core.ruleset import RecoveryPlan, Response, Rung
from tests.unit.breakers.scenes import NOON, SECOND, at, clients, evidence

ACTOR = Target(Scope.ACTOR, "default", "agent")
ID = "ACTOR:default/agent"
SESSION = Target(Scope.SESSION, "default", "agent", trace_id="0af7")
PARAMS = BreakerParams()
QUIET = RecoveryPlan(Recovery.CLEAR, quiet_us=60 * SECOND)
FAILING = Response("failing", (Rung(Action.READ_ONLY),), runbook="docs/failing.md", rules_version="v7")
COST = Response(
    "cost",
    (Rung(Action.FAST_MODEL_ONLY), Rung(Action.HALT, Severity.PAGE, after_us=600 * SECOND)),
    recovery=QUIET,
)
BURST = Response("burst", (Rung(Action.FAST_MODEL_ONLY), Rung(Action.READ_ONLY), Rung(Action.HALT)), recovery=QUIET)
CAP = Response("cap", (Rung(Action.READ_ONLY, Severity.PAGE),), recovery=RecoveryPlan(Recovery.WINDOW))
FORBIDDEN = Response("forbidden", (Rung(Action.REQUIRE_APPROVAL, Severity.CRITICAL),))


class Scene:
    """One machine, and all that it published."""

    def __init__(self, params: BreakerParams = PARAMS) -> None:
        self.machine = Breakers(params)
        self.log: list[Breaker] = []

    def fire(self, response: Response, seconds: float, target: Target = ACTOR, until_s: float | None = None) -> Outcome:
        until = None if until_s is None else NOON + round(until_s * SECOND)
        fired = self.machine.fire(target, at(seconds), response, evidence(), until_us=until)
        self.log += fired.changed
        return fired.outcome

    def wait(self, until_s: int) -> list[tuple[BreakerState, Cause]]:
        """What time does until so many seconds after noon."""
        done = self.machine.tick(NOON + until_s * SECOND, clients(1))
        self.log += done
        return [(b.state, b.cause) for b in done]

    @property
    def now(self) -> Breaker:
        breaker = self.machine.get(ID)
        assert breaker is not None
        return breaker

    @property
    def command(self) -> BreakerCommand:
        made = to_command(self.now, PARAMS)
        assert made is not None
        return made

    def probe(self, times: int, ok: bool = True) -> None:
        for _ in range(times):
            moment = Moment(self.now.decided_at + SECOND)
            self.log += self.machine.probe(ID, self.now.epoch, ok, moment)


def test_two_rules_hold_and_the_join_is_enforced() -> None:
    scene = Scene()
    assert scene.fire(COST, 0) is Outcome.TRIPPED
    assert scene.fire(FAILING, 10) is Outcome.TRIPPED
    command = scene.command
    assert (command.model, command.writes, command.tool_access, command.run) == ("FAST_ONLY", "REFUSED", "ON", "ON")
    assert (command.action, command.rule, command.cause) == (Action.READ_ONLY, "failing", Cause.TRIP)
    assert command.holds == (
        Hold(rule="cost", action=Action.FAST_MODEL_ONLY, since=NOON, recovery=Recovery.CLEAR),
        Hold(rule="failing", action=Action.READ_ONLY, since=NOON + 10 * SECOND, recovery=Recovery.PROBE),
    )
    assert (command.since, command.runbook, command.rules_version) == (NOON, "docs/failing.md", "v7")
    assert command.retry_at is None, "probes wait for the other hold"
    assert decode(encode(scene.now)) == scene.now


def test_the_hardest_severity_counts_and_critical_waits_for_a_person() -> None:
    scene = Scene()
    scene.fire(FAILING, 0)
    scene.fire(FORBIDDEN, 1)
    assert (scene.command.severity, scene.command.action) == (Severity.CRITICAL, Action.READ_ONLY)
    assert [hold.recovery for hold in scene.command.holds] == [Recovery.PROBE, Recovery.PERSON]
    assert scene.wait(10**6) == []


def test_firing_again_changes_nothing() -> None:
    scene = Scene()
    scene.fire(FAILING, 0)
    before = scene.now
    assert scene.fire(FAILING, 3) is Outcome.NOTHING
    assert scene.now is before
    assert len(scene.log) == 1


def test_probes_wait_for_the_other_hold_and_begin_when_it_is_released() -> None:
    scene = Scene()
    scene.fire(FAILING, 0)
    scene.fire(CAP, 1, until_s=120)
    assert scene.wait(119) == []
    assert scene.wait(120) == [
        (BreakerState.OPEN, Cause.CONDITION_CLEARED),
        (BreakerState.HALF_OPEN, Cause.COOLDOWN_OVER),
    ]
    assert [b.decided_at for b in scene.log[-2:]] == [NOON + 120 * SECOND] * 2
    scene.probe(14)
    assert (scene.now.state, scene.now.cause) == (BreakerState.CLOSED, Cause.PROBES_PASSED)


def test_another_hold_ends_the_probing() -> None:
    scene = Scene()
    scene.fire(FAILING, 0)
    scene.wait(30)
    assert scene.now.state is BreakerState.HALF_OPEN
    scene.fire(COST, 31)
    assert (scene.now.state, scene.now.wave, scene.now.quota) == (BreakerState.OPEN, 0, 0)
    epoch = scene.log[-2].epoch
    assert scene.machine.probe(ID, epoch, True, at(32)) == ()


def test_one_period_for_all_probing_holds_tests_the_largest_baseline() -> None:
    scene = Scene()
    for i, p0 in enumerate((0.01, 0.5, 0.1)):
        response = Response(f"r{i}", (Rung(Action.READ_ONLY),), recovery=RecoveryPlan(probes=8 - i))
        scene.machine.fire(ACTOR, at(i), response, Evidence(6.0, p0, 9, 8, NOON))
    scene.wait(40)
    test = scene.now.test
    assert test is not None
    assert (test.p0, test.p1, scene.now.quota) == (0.5, pytest.approx(16 / 17), 6)
    scene.probe(3)
    assert (scene.now.state, scene.now.holds) == (BreakerState.CLOSED, ())


def test_a_rung_is_climbed_after_the_acknowledgement_or_five_seconds() -> None:
    early, late = Scene(), Scene()
    for scene in (early, late):
        scene.fire(BURST, 0)
    early.machine.acknowledge(ID, early.now.epoch, at(1))
    early.machine.acknowledge(ID, early.now.epoch, at(4))
    assert early.fire(BURST, 1) is Outcome.NOTHING, "the call was made before"
    assert early.fire(BURST, 1.5) is Outcome.CLIMBED
    assert late.fire(BURST, 5) is Outcome.NOTHING
    assert late.fire(BURST, 5.001) is Outcome.CLIMBED
    assert late.fire(BURST, 6) is Outcome.NOTHING, "the new rung has to be applied first"
    assert late.fire(BURST, 11) is Outcome.CLIMBED
    assert late.fire(BURST, 99) is Outcome.NOTHING, "nothing is above HALT"
    assert [b.action for b in late.log] == [Action.FAST_MODEL_ONLY, Action.READ_ONLY, Action.HALT]


def test_a_cooldown_below_the_shortest_is_published_as_what_it_is() -> None:
    plan = RecoveryPlan(cooldown_us=2 * SECOND, max_cooldown_us=4 * SECOND)
    scene = Scene()
    scene.fire(replace(FAILING, recovery=plan), 0)
    assert scene.command.cooldown_ms == 15_000
    assert scene.command.retry_at == NOON + 15 * SECOND
    assert scene.wait(14) == []
    assert scene.wait(15) == [(BreakerState.HALF_OPEN, Cause.COOLDOWN_OVER)]


def test_what_was_made_before_the_rung_shows_nothing_about_it_however_late_it_is_decided() -> None:
    scene = Scene()
    scene.fire(BURST, 0)
    older = replace(at(60), made_us=NOON + 5 * SECOND)
    assert scene.machine.fire(ACTOR, older, BURST, evidence()).outcome is Outcome.NOTHING
    newer = replace(at(61), made_us=NOON + 5 * SECOND + 1)
    assert scene.machine.fire(ACTOR, newer, BURST, evidence()).outcome is Outcome.CLIMBED
    ahead = replace(at(62), made_us=NOON + 3_600 * SECOND)
    assert scene.machine.fire(ACTOR, ahead, BURST, evidence()).outcome is Outcome.NOTHING, "not before it is decided"


def test_an_acknowledgement_of_an_older_rung_or_a_future_epoch_does_not_count() -> None:
    scene = Scene()
    scene.fire(BURST, 0)
    first = scene.now.epoch
    scene.fire(BURST, 6)
    scene.machine.acknowledge(ID, first, at(7))
    scene.machine.acknowledge(ID, scene.now.epoch + 1, at(7))
    assert scene.fire(BURST, 8) is Outcome.NOTHING


def test_climbing_takes_nothing_back() -> None:
    """READ_ONLY alone would give the slow models back; HALT contains everything."""
    scene = Scene()
    scene.fire(BURST, 0)
    scene.fire(BURST, 6)
    assert (scene.command.model, scene.command.writes, scene.command.action) == ("FAST_ONLY", "REFUSED", "READ_ONLY")
    scene.fire(BURST, 12)
    assert (scene.command.model, scene.command.writes, scene.command.run) == ("ANY", "FREE", "HALT")


def test_nothing_is_above_a_tool_that_is_off() -> None:
    scene = Scene()
    response = Response("r", (Rung(Action.DISABLE_TOOL), Rung(Action.HALT), Rung(Action.HALT, after_us=SECOND)))
    scene.fire(response, 0)
    assert scene.fire(response, 10) is Outcome.NOTHING
    assert not scene.now.holds[0].listens


def test_a_timed_rung_is_climbed_by_time_only() -> None:
    scene = Scene()
    scene.fire(COST, 0.5)
    scene.machine.burning(ACTOR, "cost", at(1))
    assert scene.fire(COST, 100) is Outcome.NOTHING
    assert scene.wait(600) == []
    assert scene.wait(601) == [(BreakerState.OPEN, Cause.TRIP)]
    assert (scene.command.action, scene.command.severity) == (Action.HALT, Severity.PAGE)
    assert scene.command.reason == "cost still holds after 600 s of FAST_MODEL_ONLY: HALT from now on"


def test_a_timed_rung_is_not_climbed_once_the_condition_has_cleared() -> None:
    scene = Scene()
    plan = RecoveryPlan(Recovery.CLEAR, quiet_us=2_000 * SECOND)
    scene.fire(Response("r", COST.ladder, recovery=plan), 0)
    scene.machine.burning(ACTOR, "r", at(500))
    scene.machine.cleared(ACTOR, "r", at(599))
    assert scene.wait(900) == []
    scene.machine.burning(ACTOR, "r", at(900))
    assert scene.wait(915) == [(BreakerState.OPEN, Cause.TRIP)], "as soon as a timer may be due"


def test_quiet_releases() -> None:
    scene = Scene()
    scene.fire(COST, 0.25)
    scene.fire(COST, 30.25)
    assert scene.wait(90) == []
    assert scene.wait(91) == [(BreakerState.CLOSED, Cause.CONDITION_CLEARED)]
    assert scene.command.reason == "the condition of cost has been gone for 60 s"


def test_a_condition_that_is_on_does_not_run_the_quiet_clock() -> None:
    scene = Scene()
    scene.fire(COST, 0)
    scene.machine.burning(ACTOR, "cost", at(10))
    before = scene.now
    scene.machine.burning(ACTOR, "cost", at(11))
    assert scene.now is before, "nothing is written every second"
    assert scene.wait(400) == []
    scene.machine.cleared(ACTOR, "cost", at(400))
    scene.machine.cleared(ACTOR, "cost", at(430))
    assert scene.wait(459) == []
    assert scene.wait(460) == [(BreakerState.CLOSED, Cause.CONDITION_CLEARED)]


def test_a_ladder_is_left_one_rung_at_a_time() -> None:
    scene = Scene()
    for seconds in (0, 6, 12):
        scene.fire(BURST, seconds)
    assert scene.wait(72) == [(BreakerState.OPEN, Cause.CONDITION_CLEARED)]
    assert scene.command.action is Action.READ_ONLY
    assert scene.wait(131) == []
    assert scene.wait(132) == [(BreakerState.OPEN, Cause.CONDITION_CLEARED)]
    assert scene.command.action is Action.FAST_MODEL_ONLY
    assert scene.wait(192) == [(BreakerState.CLOSED, Cause.CONDITION_CLEARED)]


def test_a_probed_ladder_is_left_one_rung_per_period() -> None:
    scene = Scene()
    response = Response("r", (Rung(Action.REQUIRE_APPROVAL), Rung(Action.READ_ONLY)))
    scene.fire(response, 0)
    scene.fire(response, 6)
    scene.wait(40)
    scene.probe(14)
    assert (scene.now.state, scene.now.action) == (BreakerState.OPEN, Action.REQUIRE_APPROVAL)
    assert scene.command.reason.startswith("14 of 14 probes of agent succeeded; REQUIRE_APPROVAL remains; next probes")
    scene.wait(100)
    scene.probe(14)
    assert scene.now.state is BreakerState.CLOSED


def test_a_window_ends_and_a_later_one_extends_it() -> None:
    scene = Scene()
    scene.fire(CAP, 0, until_s=100)
    assert scene.fire(CAP, 50, until_s=200.5) is Outcome.NOTHING
    scene.fire(CAP, 60, until_s=150)
    assert scene.wait(200) == []
    assert scene.wait(201) == [(BreakerState.CLOSED, Cause.CONDITION_CLEARED)]
    assert scene.command.reason == "the window of cap is over"


def test_a_window_needs_an_end_except_on_a_session() -> None:
    scene = Scene()
    with pytest.raises(ValueError, match="until_us"):
        scene.fire(CAP, 0)
    assert scene.fire(CAP, 0, SESSION) is Outcome.TRIPPED


@pytest.mark.parametrize("response", [CAP, FORBIDDEN, COST])
def test_a_session_is_held_for_an_hour_at_most(response: Response) -> None:
    scene = Scene()
    scene.fire(response, 0.5, SESSION)
    scene.machine.burning(SESSION, response.rule, at(1))
    assert BreakerState.CLOSED not in [state for state, _ in scene.wait(3600)]
    assert scene.wait(3601) == [(BreakerState.CLOSED, Cause.EXPIRED)]


@pytest.mark.parametrize(("again_s", "cooldown_s"), [(59, 30), (60, 15)])
def test_flapping_goes_on_doubling(again_s: int, cooldown_s: int) -> None:
    """Within twice the last cooldown of 30 s after probes let it in."""
    scene = Scene()
    scene.fire(FAILING, 0)
    scene.wait(40)
    scene.probe(14)
    closed_s = (scene.now.decided_at - NOON) / SECOND
    scene.fire(FAILING, closed_s + again_s)
    assert cooldown_s * SECOND <= scene.now.cooldown_us < 2 * cooldown_s * SECOND
    assert scene.now.reopenings == 0


def gone(scene: Scene, rule: str, at_s: float) -> tuple[Breaker, ...]:
    return scene.machine.release_where(lambda _, each, __: each == rule, at(at_s))


def test_a_removed_rule_lets_go_but_not_of_what_waits_for_a_person() -> None:
    scene = Scene()
    scene.fire(FAILING, 0)
    scene.fire(FORBIDDEN, 1)
    assert [b.cause for b in gone(scene, "failing", 2)] == [Cause.RULE_REMOVED]
    assert gone(scene, "forbidden", 3) == ()
    assert [hold.rule for hold in scene.now.holds] == ["forbidden"]


def test_a_trip_that_another_explains_is_released() -> None:
    scene = Scene()
    scene.fire(FAILING, 0)
    (released,) = scene.machine.release(ACTOR, "failing", at(1), Cause.ATTRIBUTED, "the tool fails for everybody")
    assert (released.state, released.cause) == (BreakerState.CLOSED, Cause.ATTRIBUTED)
    assert scene.command.reason == "the tool fails for everybody"
    assert scene.machine.release(ACTOR, "failing", at(1), Cause.ATTRIBUTED, "x") == ()


def test_a_change_of_settings_moves_timers_and_harms_nothing() -> None:
    """A state written under shorter times is due later now, and is looked at again then."""
    scene = Scene()
    scene.fire(FAILING, 0)
    scene.wait(40)
    successor = Breakers(BreakerParams(wave_us=90 * SECOND))
    successor.put(decode(encode(scene.now)))
    begun = scene.now.decided_at
    assert successor.tick(begun + 60 * SECOND, clients(1)) == ()
    assert successor.next_due() == begun + 90 * SECOND
    assert len(successor.tick(begun + 90 * SECOND, clients(1))) == 1
