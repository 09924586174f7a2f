"""The recording in the package, and what the detector makes of it."""

from __future__ import annotations

import math

import pytest

from fuseboard_schemas.codec import Encoder
from fuseboard_schemas.keys import actor_key, partition_for
from fuseboard_schemas.records import DeniedBy, Effect, Outcome, ToolCall
from fuseboard_streams.demo.airline import EFFECTS, Outage
from fuseboard_streams.demo.evidence import Rerun, rerun
from fuseboard_streams.demo.recording import Recording, load_recording, read_recording
from fuseboard_streams.demo.run import ACTOR, CORE, RATE, SEED, TOOL
from fuseboard_streams.demo.topics import Stored

PARTITIONS = 4


@pytest.fixture(scope="module")
def recording() -> Recording:
    return load_recording()


def stored(recording: Recording, *, laps: int = 1, outage: Outage | None = None) -> list[Stored]:
    """The recorded calls as they would lie in the topic; with an outage one more lap, by its actor alone."""
    encoder = Encoder("ToolCall")
    records: list[Stored] = []
    offsets = [0] * PARTITIONS
    clock = 1_790_000_000_000_000
    rounds = [(lap, actor) for lap in range(laps) for actor in recording.traces]
    if outage is not None:
        rounds.append((laps, outage.actor))
        outage.begin()
    for lap, actor in rounds:
        partition = partition_for(actor_key("default", actor), PARTITIONS)
        for number, trace in enumerate(recording.traces[actor]):
            for step in trace.steps:
                if step.tool is None:
                    continue
                clock += 1_000
                down = outage is not None and lap == laps and outage.strikes(actor, step.tool)
                call = ToolCall(
                    event_id=f"{clock}",
                    ts=clock,
                    tenant="default",
                    actor=actor,
                    client_id=1,
                    trace_id=f"{lap}-{number}",
                    span_id=f"{clock}",
                    tool=step.tool,
                    effect=EFFECTS.get(step.tool, Effect.READ),
                    outcome=Outcome.ERROR if down or step.error is not None else Outcome.OK,
                    denied_by=DeniedBy.NONE,
                )
                records.append(Stored(partition, offsets[partition], clock, encoder.encode(call)))
                offsets[partition] += 1
    return sorted(records, key=lambda each: (each.partition, each.offset))


def test_it_is_the_recording_that_the_readme_describes(recording: Recording) -> None:
    failures = sum(
        step.error is not None for traces in recording.traces.values() for trace in traces for step in trace.steps
    )

    assert [actor.rsplit("/", 1)[1] for actor in recording.traces] == ["trial0", "trial1", "trial2", "trial3"]
    assert [len(traces) for traces in recording.traces.values()] == [50, 50, 50, 50]
    assert (recording.tool_calls, failures) == (1_164, 73)
    assert recording.calls_of(TOOL) == (377, 0)
    assert recording.calls_of("book_reservation") == (53, 30)
    assert recording.calls_of("update_reservation_flights") == (104, 42)


def test_steps_keep_their_times_and_errors() -> None:
    def row(ts: int, kind: str, tool: str | None = None, error: str | None = None) -> dict[str, object]:
        same = {"actor": "a", "trace_id": "t", "task": "x"}
        return {**same, "ts": ts, "kind": kind, "tool": tool, "ok": error is None, "error": error}

    rows = [row(1_000, "llm_call"), row(1_200, "tool_call", "book", "no"), row(1_201, "final")]

    (trace,) = read_recording(rows).traces["a"]

    assert [(step.tool, step.error, step.seconds) for step in trace.steps] == [(None, None, 0.0), ("book", "no", 0.2)]
    assert trace.solved
    assert trace.tool_calls == 1


def test_nothing_in_the_recording_reaches_the_warn_level(recording: Recording) -> None:
    found = rerun(stored(recording), PARTITIONS, CORE)

    assert found.calls == 1_164
    assert found.trips == ()
    assert sum(peak.calls for peak in found.peaks) == 1_164
    assert max(peak.log10 for peak in found.peaks) < math.log10(CORE.failure.warn)
    failing = {peak.tool for peak in found.peaks if peak.log10 > 2}
    assert failing == {"book_reservation", "update_reservation_flights"}


def test_nor_when_the_agents_begin_anew(recording: Recording) -> None:
    found = rerun(stored(recording, laps=2), PARTITIONS, CORE)

    assert found.trips == ()
    assert max(peak.log10 for peak in found.peaks) < math.log10(CORE.failure.warn)


def test_the_outage_trips_the_broken_tool_and_nothing_else(recording: Recording) -> None:
    found: Rerun = rerun(stored(recording, outage=Outage(TOOL, ACTOR, RATE, SEED)), PARTITIONS, CORE)

    (command,) = found.trips
    assert (command.actor, command.tool) == (ACTOR, TOOL)
    peak = next(each for each in found.peaks if (each.actor, each.tool) == (ACTOR, TOOL))
    assert peak.log10 >= 6
    others = [each for each in found.peaks if each is not peak]
    assert max(each.log10 for each in others) < math.log10(CORE.failure.warn)


def test_an_outage_strikes_only_its_own_and_only_while_it_lasts() -> None:
    outage = Outage(TOOL, ACTOR, 0.8, seed=1)
    assert not any(outage.strikes(ACTOR, TOOL) for _ in range(50))

    outage.begin()
    struck = sum(outage.strikes(ACTOR, TOOL) for _ in range(1_000))

    assert 750 < struck < 850
    assert not any(outage.strikes("another", TOOL) or outage.strikes(ACTOR, "book_reservation") for _ in range(50))
    outage.end()
    assert not any(outage.strikes(ACTOR, TOOL) for _ in range(50))
