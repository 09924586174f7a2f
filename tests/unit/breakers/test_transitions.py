"""One test per transition of a breaker's life."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fuseboard_schemas.records import Action, BreakerState, Cause, Recovery, Severity
from fuseboard_streams.core.breaker_params import BreakerParams
from fuseboard_streams.core.breakers import Breakers, ceil_second
from fuseboard_streams.core.ruleset import RecoveryPlan, Response, Rung
from tests.unit.breakers.scenes import (
    ID,
    NOON,
    SECOND,
    TARGET,
    at,
    clients,
    evidence,
    half_open,
    now,
    probe,
    to_half_open,
    trip,
)


def test_trip_opens() -> None:
    breakers = Breakers(BreakerParams())
    opened = trip(breakers, 0.25)
    assert (opened.state, opened.cause, opened.action) == (BreakerState.OPEN, Cause.TRIP, Action.DISABLE_TOOL)
    assert opened.breaker_id == ID
    assert opened.since == opened.decided_at == NOON + SECOND // 4
    assert opened.epoch == (NOON + SECOND // 4) // 1000
    assert 15 * SECOND <= opened.cooldown_us < 30 * SECOND
    assert opened.due == ceil_second(opened.decided_at + opened.cooldown_us) == breakers.next_due()
    assert (opened.event_id, opened.offset, opened.reopenings) == ("e1", 7, 0)
    assert breakers.get(ID) is opened
    assert breakers.open_ids() == (ID,)


def test_trip_of_an_open_breaker_changes_nothing() -> None:
    breakers = Breakers(BreakerParams())
    opened = trip(breakers)
    assert trip(breakers, 3) is opened
    wave = to_half_open(breakers)
    assert trip(breakers, 100) is wave
    assert now(breakers) is wave


def test_trip_with_a_baseline_that_cannot_be_tested_is_refused_at_once() -> None:
    breakers = Breakers(BreakerParams())
    with pytest.raises(ValueError, match="p0"):
        trip(breakers, p0=1.0)
    assert breakers.get(ID) is None


@pytest.mark.parametrize(
    ("severity", "recovery"), [(Severity.CRITICAL, Recovery.PROBE), (Severity.PAGE, Recovery.PERSON)]
)
def test_what_waits_for_a_person_starts_no_timer(severity: Severity, recovery: Recovery) -> None:
    breakers = Breakers(BreakerParams())
    response = Response("r", (Rung(Action.HALT, severity),), recovery=RecoveryPlan(recovery))
    (opened,) = breakers.fire(TARGET, at(0), response, evidence()).changed
    assert (opened.due, opened.cooldown_us, breakers.next_due()) == (None, 0, None)
    assert opened.holds[0].recovery is Recovery.PERSON
    assert breakers.tick(NOON + 10**12, clients(1)) == ()


def test_cooldown_over_opens_the_first_wave() -> None:
    breakers = Breakers(BreakerParams())
    opened = trip(breakers)
    assert opened.due is not None
    assert breakers.tick(opened.due - SECOND, clients(1)) == ()
    (wave,) = breakers.tick(opened.due, clients(1))
    assert (wave.state, wave.cause, wave.wave, wave.quota) == (BreakerState.HALF_OPEN, Cause.COOLDOWN_OVER, 1, 10)
    assert (wave.decided_at, wave.due) == (opened.due, opened.due + 30 * SECOND)
    assert wave.epoch == opened.due // 1000 == wave.period
    assert (wave.event_id, wave.offset) == (None, None)
    assert wave.test is not None
    assert (wave.test.p0, wave.test.results) == (0.005, 0)


@pytest.mark.parametrize(("seen", "quota"), [(0, 10), (1, 10), (2, 5), (3, 3), (6, 1), (10, 1), (11, 1), (1000, 1)])
def test_clients_share_a_wave(seen: int, quota: int) -> None:
    assert now(half_open(number_of_clients=seen)).quota == quota


def test_results_of_the_quota_open_the_next_wave() -> None:
    breakers = half_open()
    first = now(breakers)
    for _ in range(9):
        assert probe(breakers, ok=True) == ()
    (second,) = probe(breakers, ok=True)
    assert (second.state, second.cause, second.wave) == (BreakerState.HALF_OPEN, Cause.NEXT_WAVE, 2)
    assert second.epoch == first.decided_at // 1000 + 1000
    assert (second.wave_results, second.waves_without_result, second.period) == (0, 0, first.period)
    assert second.test is not None
    assert second.test.ok == 10
    assert (second.event_id, second.offset) == ("e2", 8)
    assert second.due == first.decided_at + 31 * SECOND


def test_wave_of_several_clients_waits_for_all_their_results() -> None:
    breakers = half_open(number_of_clients=4)
    assert [bool(probe(breakers, ok=True)) for _ in range(8)] == [False] * 7 + [True]


def test_time_opens_the_next_wave_and_counts_clients_anew() -> None:
    breakers = half_open()
    first = now(breakers)
    probe(breakers, ok=True)
    assert first.due is not None
    (second,) = breakers.tick(first.due, clients(5))
    assert (second.wave, second.quota, second.cause) == (2, 2, Cause.NEXT_WAVE)
    assert (second.waves_without_result, second.epoch) == (0, first.due // 1000)


def test_fourteen_clean_probes_close() -> None:
    breakers = half_open()
    published = [probe(breakers, ok=True) for _ in range(14)]
    (closed,) = published[-1]
    assert [len(p) for p in published] == [0] * 9 + [1] + [0] * 3 + [1]
    assert (closed.state, closed.cause, closed.reopenings) == (BreakerState.CLOSED, Cause.PROBES_PASSED, 0)
    assert (closed.wave, closed.quota, closed.cooldown_us, closed.period) == (0, 0, 0, 0)
    assert closed.due == closed.decided_at + 7 * 86_400 * SECOND
    assert breakers.open_ids() == ()


def test_two_failed_probes_reopen_with_back_off() -> None:
    breakers = half_open()
    assert probe(breakers, ok=False) == ()
    (reopened,) = probe(breakers, ok=False)
    assert (reopened.state, reopened.cause, reopened.reopenings) == (BreakerState.OPEN, Cause.PROBES_FAILED, 1)
    assert 30 * SECOND <= reopened.cooldown_us < 60 * SECOND
    assert reopened.since == NOON


def test_back_off_doubles_up_to_the_maximum_and_closing_forgets_it() -> None:
    breakers = half_open()
    cooldowns = []
    for _ in range(6):
        probe(breakers, ok=False)
        (reopened,) = probe(breakers, ok=False)
        cooldowns.append(reopened.cooldown_us // SECOND)
        to_half_open(breakers)
    for low, got in zip((30, 60, 120, 150, 150, 150), cooldowns, strict=True):
        assert low <= got < 2 * low
    for _ in range(14):
        probe(breakers, ok=True)
    again = trip(breakers, 7200)
    assert (again.reopenings, again.since) == (0, NOON + 7200 * SECOND)
    assert again.cooldown_us < 30 * SECOND


def test_forty_undecided_results_reopen() -> None:
    breakers = half_open(p0=0.9)
    published = [probe(breakers, ok=False) for _ in range(40)]
    (reopened,) = published[-1]
    assert (reopened.state, reopened.cause, reopened.reopenings) == (BreakerState.OPEN, Cause.PROBES_UNDECIDED, 1)
    assert [b.wave for p in published[:-1] for b in p] == [2, 3, 4]


def test_forty_counts_within_one_period_only() -> None:
    breakers = half_open(p0=0.9)
    for _ in range(40):
        probe(breakers, ok=False)
    test = to_half_open(breakers).test
    assert test is not None
    assert test.results == 0


def test_three_waves_without_a_result_reopen() -> None:
    breakers = half_open()
    assert [to_half_open(breakers).waves_without_result for _ in range(2)] == [1, 2]
    due = breakers.next_due()
    assert due is not None
    (reopened,) = breakers.tick(due, clients(1))
    assert (reopened.state, reopened.cause, reopened.reopenings) == (BreakerState.OPEN, Cause.NO_PROBES, 1)
    assert reopened.waves_without_result == 0


def test_a_result_starts_the_count_of_empty_waves_anew() -> None:
    breakers = half_open()
    to_half_open(breakers)
    to_half_open(breakers)
    probe(breakers, ok=True)
    assert to_half_open(breakers).waves_without_result == 0
    assert to_half_open(breakers).waves_without_result == 1


@pytest.mark.parametrize("shift", [-1, 1])
def test_result_of_another_epoch_is_ignored(shift: int) -> None:
    breakers = half_open()
    before = now(breakers)
    assert breakers.probe(ID, before.epoch + shift, False, at(60)) == ()
    assert now(breakers) is before


@pytest.mark.parametrize("late_results", [False, True])
def test_late_result_of_an_earlier_wave(late_results: bool) -> None:
    breakers = half_open(BreakerParams(late_results=late_results))
    first = now(breakers)
    to_half_open(breakers)
    breakers.probe(ID, first.epoch, False, at(100))
    reopened = breakers.probe(ID, first.epoch, False, at(101))
    assert [b.cause for b in reopened] == [Cause.PROBES_FAILED] * late_results


def test_late_result_of_an_earlier_period_is_ignored_in_any_case() -> None:
    breakers = half_open(BreakerParams(late_results=True))
    first = now(breakers)
    probe(breakers, ok=False)
    probe(breakers, ok=False)
    wave = to_half_open(breakers)
    assert breakers.probe(ID, first.epoch, True, at(200)) == ()
    assert now(breakers) is wave


def test_result_for_an_open_a_closed_or_an_unknown_breaker_is_ignored() -> None:
    breakers = Breakers(BreakerParams())
    assert breakers.probe(ID, 1, True, at(0)) == ()
    opened = trip(breakers)
    assert breakers.probe(ID, opened.epoch, True, at(1)) == ()
    to_half_open(breakers)
    for _ in range(14):
        probe(breakers, ok=True)
    closed = now(breakers)
    assert breakers.probe(ID, closed.epoch, True, at(99)) == ()
    assert now(breakers) is closed


def test_closed_breaker_is_forgotten_after_a_week() -> None:
    breakers = half_open()
    for _ in range(14):
        probe(breakers, ok=True)
    due = breakers.next_due()
    assert due == now(breakers).decided_at + 7 * 86_400 * SECOND
    (gone,) = breakers.tick(due, clients(1))
    assert (gone.forgotten, gone.breaker_id) == (True, ID)
    assert (breakers.get(ID), breakers.next_due(), len(breakers)) == (None, None, 0)


def test_trip_before_the_week_is_over_keeps_the_breaker() -> None:
    breakers = half_open()
    for _ in range(14):
        probe(breakers, ok=True)
    forget = breakers.next_due()
    closed = now(breakers)
    assert forget is not None
    opened = trip(breakers, 86_400)
    assert opened.epoch > closed.epoch
    assert breakers.next_due() == opened.due
    for _ in range(3):
        to_half_open(breakers)
    assert breakers.get(ID) is not None


def test_epoch_grows_within_one_millisecond_and_over_lost_state() -> None:
    breakers = half_open()
    wave = now(breakers)
    for _ in range(9):
        probe(breakers, ok=True, after_s=0)
    (second,) = probe(breakers, ok=True, after_s=0)
    assert second.epoch == wave.epoch + 1
    assert trip(Breakers(BreakerParams()), 3600).epoch > second.epoch


def test_timers_run_in_order_of_time_then_id() -> None:
    breakers = Breakers(BreakerParams())
    opened = [trip(breakers, i / 100, replace(TARGET, tool=f"tool{i}")) for i in range(60)]
    ran = breakers.tick(NOON + 60 * SECOND, clients(1))[:60]
    expected = sorted((b.due or 0, b.breaker_id) for b in opened)
    first_waves = [(b.decided_at, b.breaker_id) for b in ran if b.wave == 1]
    assert first_waves == [e for e in expected if e in first_waves]
    assert len({due for due, _ in expected}) < 60


def test_tick_off_the_second_is_refused() -> None:
    with pytest.raises(ValueError, match="whole seconds"):
        Breakers(BreakerParams()).tick(NOON + 1, clients(1))


def test_jitter_spreads_evenly_and_repeats() -> None:
    cooldowns = []
    for i in range(400):
        target = replace(TARGET, actor=f"agent{i}")
        first, second = (trip(Breakers(BreakerParams()), target=target) for _ in range(2))
        assert first == second
        cooldowns.append((first.cooldown_us - 15 * SECOND) / (15 * SECOND))
    assert all(0 <= u < 1 for u in cooldowns)
    deciles = [sum(1 for u in cooldowns if int(u * 10) == d) for d in range(10)]
    assert min(deciles) >= 20  # 40 expected, standard deviation 6
    assert max(deciles) <= 60
