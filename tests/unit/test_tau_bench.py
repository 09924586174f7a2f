"""Recorded calls of real agents through the core: nothing reaches the warn level until a fault is put in.

Two of the recording's tools fail in every second call or so, by the agents' own mistakes (a payment that does not add
up, a passenger too many). That is no outage: what these tools do from their first call on is their normal, and the
null of a tool without history is as high as a quantile of the whole population's rates.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from fuseboard_schemas.records import BreakerCommand, BreakerState, Outcome, Scope, Signal, SignalLevel
from fuseboard_streams.core.ruleset import RuleSet
from fuseboard_streams.core.settings import CoreSettings
from fuseboard_streams.core.shard import Output, Shard
from fuseboard_streams.demo.recording import load_recording
from fuseboard_streams.rules.compile import PACKAGED, compile_rules
from tests.support.calls import Call, fold, make_shard

OFTEN_FAILING = {"book_reservation": (0.5, 0.6), "update_reservation_flights": (0.35, 0.45)}
BROKEN = "get_reservation_details"


def recorded() -> list[Call]:
    """The tool calls of all actors, in the order of their time; an actor's traces follow each other."""
    recording = load_recording()
    calls: list[Call] = []
    for client, (actor, traces) in enumerate(recording.traces.items()):
        at, seq = 0.0, 0
        for number, trace in enumerate(traces):
            at += recording.pause_s
            for step in trace.steps:
                at += step.seconds
                if step.tool is not None:
                    outcome = Outcome.OK if step.error is None else Outcome.ERROR
                    calls.append(Call(at, outcome, actor, step.tool, trace=f"{actor}/{number}", client=client, seq=seq))
                    seq += 1
    return sorted(calls, key=lambda call: call.at)


def with_fault(calls: list[Call], actor: str, since: float, rate: float, seed: int) -> list[Call]:
    """The calls, with the broken tool failing for one actor from a time on."""
    rng = random.Random(seed)
    return [
        replace(call, outcome=Outcome.ERROR)
        if (call.actor, call.tool) == (actor, BROKEN) and call.at >= since and rng.random() < rate
        else call
        for call in calls
    ]


def run(calls: list[Call], cuts: list[int] | None = None) -> tuple[Shard, list[Output]]:
    shard = make_shard(CoreSettings())
    return shard, fold(shard, calls, cuts)


def test_the_recording_is_the_one_that_is_told_of() -> None:
    calls = recorded()
    assert (len(calls), len({call.actor for call in calls})) == (1164, 4)
    made, failed = Counter(c.tool for c in calls), Counter(c.tool for c in calls if c.outcome is Outcome.ERROR)
    assert sum(failed.values()) / len(calls) == pytest.approx(0.063, abs=0.001)
    for tool, (low, high) in OFTEN_FAILING.items():
        assert low < failed[tool] / made[tool] < high
    assert failed[BROKEN] == 0


def test_nothing_warns_without_a_fault() -> None:
    shard, outputs = run(recorded())
    assert outputs == []
    assert shard.counters.counted + shard.counters.capped == 1164


def test_the_evidence_stays_far_from_the_warn_level() -> None:
    """After every call: the highest evidence against any tool, and whose it is."""
    shard = make_shard(CoreSettings())
    calls, highest = recorded(), 0.0
    nulls: dict[str, list[float]] = {}
    for i, call in enumerate(calls):
        assert fold(shard, [call], first_offset=i) == []
        for evidence in shard.tool_evidence():
            highest = max(highest, evidence.mean)
            if evidence.tool in OFTEN_FAILING:
                nulls.setdefault(evidence.tool, []).append(evidence.null_p0)
    assert highest < CoreSettings().failure.warn / 10
    # None is called often enough by one actor to be known better than its prior, from the first call to the last.
    assert {round(p0, 3) for values in nulls.values() for p0 in values} == {0.268}


@pytest.mark.parametrize("actor", range(4))
@pytest.mark.parametrize("seed", range(5))
def test_a_fault_trips_the_one_key(actor: int, seed: int) -> None:
    """From a third of the recording on, four of five calls of one actor's tool fail."""
    calls = recorded()
    name = sorted({call.actor for call in calls})[actor]
    since = calls[len(calls) // 3].at
    _, outputs = run(with_fault(calls, name, since, 0.8, seed))
    trips = [o.record for o in outputs if isinstance(o.record, Signal) and o.record.level is SignalLevel.TRIP]
    assert [(t.scope, t.actor, t.tool) for t in trips] == [(Scope.ACTOR_TOOL, name, BROKEN)]
    opened = [o.record for o in outputs if isinstance(o.record, BreakerCommand) and o.record.state is BreakerState.OPEN]
    assert {command.breaker_id for command in opened} == {f"ACTOR_TOOL:default/{name.replace('/', '%2F')}/{BROKEN}"}


def test_batches_do_not_matter() -> None:
    calls = recorded()
    faulty = with_fault(calls, calls[0].actor, calls[300].at, 0.8, seed=1)
    assert run(faulty)[1] == run(faulty, list(range(0, 1164, 50)))[1]


def enforced() -> RuleSet:
    """The packaged rules, every one of them enforced."""
    text = PACKAGED.read_bytes().replace(b"mode: shadow", b"mode: enforce").replace(b"mode: warn", b"mode: enforce")
    return compile_rules(text, "the packaged rules, enforced").rules


def test_with_every_packaged_rule_enforced_only_first_uses_are_held() -> None:
    """Call by call: all four trips are an actor's first call of a tool that it had not used in 200 calls before."""
    calls = recorded()
    shard = make_shard(CoreSettings(), rules=enforced())
    trips = [
        output.record
        for output in fold(shard, calls)
        if isinstance(output.record, Signal) and output.record.level is SignalLevel.TRIP
    ]
    found = {((trip.actor or "").rpartition("/")[2], trip.tool) for trip in trips}
    assert found == {
        ("trial0", "send_certificate"),
        ("trial0", "update_reservation_passengers"),
        ("trial1", "send_certificate"),
        ("trial2", "send_certificate"),
    }
    for trip in trips:
        mine = [call.tool for call in calls if call.actor == trip.actor]
        assert trip.rule == "tool-first-use"
        assert mine.index(str(trip.tool)) >= 200
