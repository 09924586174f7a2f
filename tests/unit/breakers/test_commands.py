"""The record that enforcers obey, and the lines that people read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fuseboard_schemas.keys import Target
from fuseboard_schemas.records import (
    Action,
    BreakerCommand,
    BreakerState,
    Hold,
    Mode,
    Recovery,
    Scope,
    ToolAccess,
)
from fuseboard_streams.core.breaker_params import BreakerParams
from fuseboard_streams.core.breakers import Breakers
from fuseboard_streams.core.commands import describe_evidence, describe_reason, to_command
from tests.unit.breakers.scenes import (
    NOON,
    SECOND,
    TARGET,
    clients,
    evidence,
    half_open,
    now,
    probe,
    to_half_open,
    trip,
)

if TYPE_CHECKING:
    from fuseboard_streams.core.breaker import Breaker

PARAMS = BreakerParams()


def command(breaker: Breaker) -> BreakerCommand:
    record = to_command(breaker, PARAMS)
    assert record is not None
    return record


def test_trip() -> None:
    opened = trip(Breakers(PARAMS))
    record = command(opened)
    assert (record.breaker_id, record.epoch, record.ts) == (opened.breaker_id, opened.epoch, NOON)
    assert (record.tool_access, record.writes, record.model, record.run) == ("OFF", "FREE", "ANY", "ON")
    assert (record.mode, record.action, record.rule) == (Mode.ENFORCE, Action.DISABLE_TOOL, "tool-failing")
    assert (record.retry_at, record.cooldown_ms) == (opened.due, opened.cooldown_us // 1000)
    assert record.holds == (Hold(rule="tool-failing", action=Action.DISABLE_TOOL, since=NOON, recovery=Recovery.PROBE),)
    assert (record.calls_seen, record.failures_seen, record.null_p0) == (9, 8, 0.005)
    assert (record.event_id, record.source_offset, record.runbook) == ("e1", 7, "docs/runbooks/tool-failing.md")
    assert record.reason == (
        "billing.refund failed in 8 of 9 calls since 11:59:04Z (evidence 10^6.2 against a baseline of at most 0.5%)"
    )


def test_half_open_keeps_the_axes_and_gives_a_quota() -> None:
    record = command(now(half_open(number_of_clients=5)))
    assert (record.state, record.tool_access) == (BreakerState.HALF_OPEN, ToolAccess.OFF)
    assert (record.wave, record.probe_quota, record.retry_at, record.cooldown_ms) == (1, 2, None, None)
    assert record.event_id is None
    assert record.reason == (
        "probing billing.refund: wave 1, up to 2 from each of 5 clients; so far 0 succeeded and 0 failed"
    )


def test_closed_restricts_nothing() -> None:
    breakers = half_open()
    for _ in range(14):
        probe(breakers, ok=True)
    record = command(now(breakers))
    assert (record.state, record.action, record.holds) == (BreakerState.CLOSED, Action.NONE, ())
    assert (record.tool_access, record.writes, record.model, record.run) == ("ON", "FREE", "ANY", "ON")
    assert (record.since, record.retry_at) == (record.ts, None)
    assert (record.probes_ok, record.probes_failed) == (14, 0)
    assert record.reason == "14 of 14 probes of billing.refund succeeded"


def test_reopened() -> None:
    breakers = half_open()
    probe(breakers, ok=False)
    (reopened,) = probe(breakers, ok=False)
    record = command(reopened)
    assert record.since == NOON
    assert record.retry_at is not None
    assert record.reason.startswith("2 of 2 probes of billing.refund failed; next probes at 12:0")


def test_no_probes_and_undecided_say_so() -> None:
    breakers = half_open()
    for _ in range(2):
        to_half_open(breakers)
    (empty,) = breakers.tick(breakers.next_due() or 0, clients(1))
    assert command(empty).reason.startswith("3 waves of probes of billing.refund in a row brought no result; next")
    breakers = half_open(p0=0.9)
    for _ in range(40):
        probe(breakers, ok=False)
    assert command(now(breakers)).reason.startswith("40 probes of billing.refund did not decide, 40 of them failed;")


def test_forgotten_is_a_tombstone() -> None:
    assert to_command(replace(now(half_open()), forgotten=True), PARAMS) is None


@pytest.mark.parametrize(
    ("target", "subject"),
    [
        (Target(Scope.ACTOR, "t", actor="agent"), "agent"),
        (Target(Scope.TENANT, "t"), "t"),
        (Target(Scope.TOOL, "t", tool="x"), "x"),
        (Target(Scope.SESSION, "t", actor="agent", trace_id="0af7"), "0af7"),
    ],
)
def test_reason_names_the_target(target: Target, subject: str) -> None:
    assert describe_reason(trip(Breakers(PARAMS), target=target), PARAMS).startswith(f"{subject} failed in 8 of 9")


def test_given_reason_wins() -> None:
    breaker = replace(trip(Breakers(PARAMS)), reason="because")
    assert describe_reason(breaker, PARAMS) == "because"


def test_reason_stays_one_short_line_whatever_the_name() -> None:
    line = describe_reason(trip(Breakers(PARAMS), target=replace(TARGET, tool="a\nb\x00" + "x" * 900_000)), PARAMS)
    assert "\n" not in line
    assert "\x00" not in line
    assert len(line) < 250


@pytest.mark.parametrize(
    ("since_us", "text"),
    [(NOON - SECOND, "11:59:59Z "), (NOON - 86_400 * SECOND, "2026-11-22 12:00:00Z "), (2**63 - 1, "294247-01-10 ")],
)
def test_time_has_a_date_on_another_day_and_no_end(since_us: int, text: str) -> None:
    assert f"since {text}" in describe_evidence("x", replace(evidence(), since_us=since_us), NOON)
