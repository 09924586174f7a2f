"""The story and the summary from recorded moments."""

from __future__ import annotations

import json

import pytest

from fuseboard_schemas.records import BreakerState, Cause
from fuseboard_streams.demo.moments import Applied, Attempt, Committed, Moment
from fuseboard_streams.demo.screen import failing
from fuseboard_streams.demo.story import Act, Story, percent, power, short
from tests.unit.demo.moments import (
    ACTOR,
    ENDED,
    OTHER,
    START,
    TOOL,
    command,
    enforcement,
    recovery,
    refusal,
    target,
    trip,
    warning,
)


def told(moments: list[Moment]) -> tuple[Story, list[Act]]:
    story = Story(ACTOR, TOOL)
    story.begin_outage(START)
    return story, [act for moment in moments for act in story.take(moment)]


def test_a_whole_run_tells_each_act_once_and_in_order() -> None:
    story, acts = told(enforcement() + recovery())

    assert [act.label for act in acts] == [
        *("warn", "TRIP", "enforced", "confirmed", "refused"),
        *("cooled down", "probe", "probe", "probe", "closed", "recovered"),
    ]
    assert "18 of 22 calls failed, evidence 10^6.1 against a normal of at most 26.8%; cooldown 7.1 s" in acts[1].text
    assert acts[1].at_us == ENDED
    assert "18 ms" in acts[2].text
    assert acts[2].at_us == ENDED + 18_000
    assert "41 ms" in acts[3].text
    assert "retry_after=6.8" in acts[4].text
    assert acts[5].text.startswith("2 calls refused meanwhile")
    assert story.succeeded
    assert failing(story) == "nothing"


def test_the_summary_holds_the_figures() -> None:
    story, _ = told(enforcement() + recovery())

    summary = json.loads(json.dumps(story.summary()))

    assert summary["latency_ms"] == {"event_to_command": 13.0, "event_to_gate": 18.0, "event_to_ack": 41.0}
    assert summary["trip"] == {
        "actor": ACTOR,
        "tool": TOOL,
        "action": "DISABLE_TOOL",
        "calls_seen": 22,
        "failures_seen": 18,
        "evidence": 1_318_000.0,
        "evidence_log10": 6.12,
        "null_p0": 0.2684,
        "event_id": "e" * 32,
        "breaker_id": target(),
    }
    assert summary["refused_calls"] == 2
    assert summary["recovered"] is True
    assert summary["false_trips"] == []
    assert summary["calls_before_gate"] == 1
    assert summary["probes"] == {"ok": 3, "failed": 0}
    assert summary["other_actors"] == {"calls": 1, "failures": 0, "refused": 0}


@pytest.mark.parametrize("stranger", [{"actor": OTHER}, {"tool": "book_reservation"}], ids=["actor", "tool"])
def test_a_trip_of_anything_else_is_a_false_trip(stranger: dict[str, str]) -> None:
    story, acts = told([*enforcement(), *recovery(), trip(**stranger)])

    assert acts[-1].label == "FALSE TRIP"
    assert not story.succeeded
    assert [each["breaker_id"] for each in story.summary()["false_trips"]] == [target(**stranger)]
    assert "tripped without a cause" in failing(story)


def test_a_trip_before_the_outage_is_a_false_trip() -> None:
    story = Story(ACTOR, TOOL)

    story.take(trip())

    assert story.trip is None
    assert len(story.strangers) == 1


def test_a_second_trip_after_the_recovery_is_a_false_trip() -> None:
    story, _ = told([*enforcement(), *recovery(), trip()])

    assert len(story.strangers) == 1
    assert not story.succeeded


def test_a_refusal_of_somebody_else_spoils_it() -> None:
    story, _ = told([*enforcement(), *recovery(), refusal(ENDED, actor=OTHER)])

    assert len(story.refusals) == 2
    assert story.summary()["other_actors"]["refused"] == 1
    assert not story.succeeded


def test_a_warning_about_something_else_is_told_and_counted() -> None:
    story, acts = told([warning(OTHER, "book_reservation")])

    assert [act.label for act in acts] == ["warning"]
    assert story.summary()["warnings_elsewhere"] == 1


def test_without_a_trip_nothing_is_measured() -> None:
    story, acts = told([Attempt(ACTOR, TOOL, START + 1, ok=False), Applied(target(), 100, START + 2)])

    assert acts == []
    assert set(story.latency_ms.values()) == {None}
    assert story.summary()["trip"] is None
    assert not story.succeeded
    assert "did not trip in time" in failing(story)


@pytest.mark.parametrize("missing", [5, 8], ids=["gate", "acknowledgement"])
def test_it_is_not_enforced_until_gate_and_acknowledgement_are_seen(missing: int) -> None:
    moments = enforcement()
    del moments[missing]

    story, _ = told(moments)

    assert not story.enforced
    assert "not measured: event_to_" in failing(story)


def test_closed_is_not_yet_recovered() -> None:
    moments = recovery()

    story, _ = told([*enforcement(), *moments[:-1]])

    assert story.closed is not None
    assert not story.recovered
    assert "did not come back" in failing(story)


def test_a_reopening_is_told_and_counted() -> None:
    again = command(BreakerState.OPEN, Cause.PROBES_FAILED, 250, reason="2 of 2 probes failed")

    story, acts = told([*enforcement(), *recovery()[:2], Committed(again, ENDED + 9_000_000), *recovery()])

    assert [act.label for act in acts].count("reopened") == 1
    assert story.summary()["reopenings"] == 1


def test_words_for_figures() -> None:
    assert short(ACTOR) == "trial0"
    assert (power(6.12), power(None)) == ("10^6.1", "unknown")
    assert (percent(0.2684), percent(0.8), percent(None)) == ("26.8%", "80%", "unknown")
