"""Events that are no tool calls: what is refused, what counts once, what is late, and whom they are told."""

from __future__ import annotations

from typing import Any

import pytest

from fuseboard_schemas.records import BreakerCommand, BreakerState, DeadLetterReason, Decision, Outcome, StepKind
from fuseboard_streams.core.events import DECISIONS, REQUESTS, TRACES
from fuseboard_streams.core.inputs import TOOL_CALLS, Inputs
from fuseboard_streams.core.prepare import NO_COST
from fuseboard_streams.core.rulebook import Rulebook
from fuseboard_streams.core.settings import CoreSettings
from fuseboard_streams.core.shard import Shard
from fuseboard_streams.core.state import ShardState
from fuseboard_streams.core.times import Times
from tests.support.calls import SEEDS, T0, Call, fold, home, make_shard
from tests.support.calls import prepared as prepared_calls
from tests.support.events import TOPICS, Remembering, give, made, prepared

DOLLAR = 1_000_000


def watched(settings: CoreSettings | None = None, partitions: int = 1) -> tuple[Shard, Remembering]:
    follower = Remembering()
    return Shard(0, partitions, settings or CoreSettings(), SEEDS, follower=follower), follower


@pytest.mark.parametrize("topic", TOPICS)
def test_a_follower_is_told_every_event_once_and_in_order(topic: str) -> None:
    shard, told = watched()
    records = [made(topic, at, client_id=7, seq=seq) for at, seq in ((0, 0), (1, 1), (2, 1), (3, 2), (4, 0), (5, None))]
    give(shard, prepared(topic, records, first_offset=10))
    assert told.ids == ["e0", "e1", "e3", "e5"]
    assert [each["offset"] for each in told.events] == [10, 11, 13, 15]
    assert {each["topic"] for each in told.events} == {topic}
    assert (shard.counters.events, shard.counters.duplicates, shard.stream_time) == (6, 2, T0 + 5_000_000)
    assert (shard.keys["actors"], shard.keys["tools"]) == (1, 0)


def test_the_numbers_of_each_topic_are_told() -> None:
    shard, told = watched()
    give(shard, prepared(TRACES, [
        made(TRACES, 0, kind=StepKind.LLM_CALL, outcome=Outcome.TIMEOUT, cost_usd_micros=1_500),
        made(TRACES, 1, kind=StepKind.PLAN, outcome=Outcome.OK),
    ]))  # fmt: skip
    give(shard, prepared(DECISIONS, [made(DECISIONS, 2, decision=Decision.DENY)]))
    give(shard, prepared(REQUESTS, [made(REQUESTS, 3, accepted=True), made(REQUESTS, 4, accepted=False)]))
    steps, decision, requests = told.events[:2], told.events[2], told.events[3:]
    assert [(each["kind"], each["outcome"], each["cost"]) for each in steps] == [
        (list(StepKind).index(StepKind.LLM_CALL), list(Outcome).index(Outcome.TIMEOUT), 1_500),
        (list(StepKind).index(StepKind.PLAN), list(Outcome).index(Outcome.OK), NO_COST),
    ]
    assert decision["decision"] == list(Decision).index(Decision.DENY)
    assert {"mode", "severity", "effect"} < set(decision)
    assert [each["accepted"] for each in requests] == [True, False]


def test_the_order_of_topics_in_a_batch_is_fixed() -> None:
    shard, told = watched()
    batch = Inputs()
    for topic in (TRACES, DECISIONS, REQUESTS):
        batch.events |= prepared(topic, [made(topic, 1)]).events
    give(shard, batch)
    assert [each["topic"] for each in told.events] == [REQUESTS, DECISIONS, TRACES]


def test_every_topic_has_replay_windows_of_its_own() -> None:
    """A client numbers its events per topic: the same number in two topics is no repeat."""
    shard, told = watched()
    for topic in TOPICS:
        give(shard, prepared(topic, [made(topic, 0, client_id=7, seq=3)]))
        give(shard, prepared(topic, [made(topic, 1, client_id=7, seq=3)]))
    fold(shard, [Call(2, client=7, seq=3), Call(3, client=7, seq=3)])
    assert (len(told.events), shard.counters.duplicates, shard.counters.counted) == (3, 4, 1)
    assert shard.keys["clients"] == 4


def test_clients_of_other_topics_are_no_enforcers() -> None:
    """The quota of probes is divided among those who call tools."""
    shard, _ = watched()
    give(shard, prepared(TRACES, [made(TRACES, 0, client_id=client, seq=0) for client in range(5)]))
    fold(shard, [Call(1, client=7, seq=0)])
    row = shard._identities.find_actor("default", "a")
    assert row is not None
    assert shard._state.clients_seen(row, T0) == 1


@pytest.mark.parametrize(
    ("topic", "wrong", "reason", "detail"),
    [
        (TRACES, {"cost_usd_micros": -1}, DeadLetterReason.INVALID_FIELD, "cost_usd_micros is -1: a cost is never"),
        (TRACES, {"cost_usd_micros": -(2**63)}, DeadLetterReason.INVALID_FIELD, f"is {-(2**63)}"),
        (TRACES, {"cost_usd_micros": 10_001 * DOLLAR}, DeadLetterReason.INVALID_FIELD, "10001 dollars"),
        (TRACES, {"cost_usd_micros": 2**63 - 1}, DeadLetterReason.INVALID_FIELD, "at most 10000 dollars"),
        (REQUESTS, {"actor": ""}, DeadLetterReason.INVALID_FIELD, "actor is empty"),
        (DECISIONS, {"tenant": "a\0b"}, DeadLetterReason.INVALID_FIELD, "NUL"),
        (DECISIONS, {"actor": "é" * 129}, DeadLetterReason.INVALID_FIELD, "longer than 256 bytes"),
        (TRACES, {"ts": 5}, DeadLetterReason.ANCIENT, "before 2000"),
        (TRACES, {"event_id": "e" * 257}, DeadLetterReason.INVALID_FIELD, "event_id is longer than 256 bytes"),
        (DECISIONS, {"trace_id": "0" * 300}, DeadLetterReason.INVALID_FIELD, "trace_id is longer than 256 bytes"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_event_is_refused_alone(topic: str, wrong: dict[str, Any], reason: DeadLetterReason, detail: str) -> None:
    """With its topic, offset and a reason; its neighbours are told, and it leaves no key behind."""
    shard, told = watched()
    records = [made(topic, 0), made(topic, 1, **wrong), made(topic, 2)]
    give(shard, prepared(topic, records, first_offset=41, arrival_s=2))
    (refusal,) = shard.take_rejected()
    assert (refusal.topic, refusal.offset, refusal.reason) == (topic, 42, reason)
    assert detail in refusal.detail
    assert told.ids == ["e0", "e2"]
    assert (shard.counters.rejected, shard.keys["actors"], shard.stream_time) == (1, 1, T0 + 2_000_000)


def test_what_an_event_may_cost_is_a_setting_and_zero_is_a_cost() -> None:
    shard, told = watched(CoreSettings(max_event_usd=1))
    give(shard, prepared(TRACES, [made(TRACES, at, cost_usd_micros=cost) for at, cost in ((0, 0), (1, DOLLAR))]))
    give(shard, prepared(TRACES, [made(TRACES, 2, cost_usd_micros=DOLLAR + 1)]))
    assert [each["cost"] for each in told.events] == [0, DOLLAR]
    assert [each.reason for each in shard.take_rejected()] == [DeadLetterReason.INVALID_FIELD]


@pytest.mark.parametrize("cost", [-1, -(2**63), 10_000 * DOLLAR + 1])
def test_a_tool_call_of_an_impossible_cost_is_refused_alone(cost: int) -> None:
    shard = make_shard()
    fold(shard, [Call(0, cost=5), Call(1, cost=cost), Call(2), Call(3, cost=10_000 * DOLLAR)], first_offset=5)
    (refusal,) = shard.take_rejected()
    assert (refusal.topic, refusal.offset, refusal.reason) == (TOOL_CALLS, 6, DeadLetterReason.INVALID_FIELD)
    assert f"cost_usd_micros is {cost}" in refusal.detail
    assert shard.counters.counted == 3


def test_an_unknown_cost_of_a_call_is_none_and_not_nothing() -> None:
    calls = prepared_calls([Call(0), Call(1, cost=0), Call(2, cost=7)])
    assert calls.cost.tolist() == [NO_COST, 0, 7]


def test_an_event_of_another_partition_is_misplaced() -> None:
    shard, told = watched(partitions=6)
    here = next(name for name in map(str, range(99)) if home(name, 6) == 0)
    there = next(name for name in map(str, range(99)) if home(name, 6) == 4)
    give(shard, prepared(TRACES, [made(TRACES, 0, actor=there), made(TRACES, 1, actor=here)]))
    (refusal,) = shard.take_rejected()
    assert (refusal.offset, refusal.reason) == (0, DeadLetterReason.MISPLACED)
    assert f"default/{there} belong to partition 4 of 6" in refusal.detail
    assert told.ids == ["e1"]


def test_new_actors_beyond_the_limit_are_refused() -> None:
    shard, told = watched(CoreSettings(max_actors=2))
    give(shard, prepared(TRACES, [made(TRACES, at, actor=name) for at, name in enumerate("abacbc")]))
    assert told.ids == ["e0", "e1", "e2", "e4"]
    assert [(each.offset, each.reason) for each in shard.take_rejected()] == [
        (3, DeadLetterReason.KEY_LIMIT),
        (5, DeadLetterReason.KEY_LIMIT),
    ]


def test_the_future_is_set_back_to_the_arrival() -> None:
    shard, told = watched()
    give(shard, prepared(TRACES, [made(TRACES, 86_400), made(TRACES, 6)], arrival_s=2))
    give(shard, prepared(TRACES, [made(TRACES, 7)], arrival_s=2))
    assert [each["ts"] - T0 for each in told.events] == [2_000_000, 6_000_000, 7_000_000]
    assert (shard.counters.clamped, shard.stream_time) == (1, T0 + 7_000_000)


def test_an_event_is_late_behind_its_own_topic_only() -> None:
    """How far another topic has been read decides nothing about this one."""
    shard, told = watched()
    give(shard, prepared(REQUESTS, [made(REQUESTS, 10_000)]))
    fold(shard, [Call(9_000), Call(8_700), Call(8_699)])
    assert (shard.counters.counted, shard.counters.late) == (2, 1)
    give(shard, prepared(TRACES, [made(TRACES, at) for at in (500, 200, 199, 501)]))
    assert [each["late"] for each in told.events] == [False, False, False, True, False]
    assert {each["stream"] for each in told.events} == {T0 + 10_000_000_000}
    assert shard.counters.late == 2


def test_idle_time_passes_for_every_topic() -> None:
    shard, told = watched()
    fold(shard, [Call(0)])
    shard.begin()
    shard.advance(T0 + 1_000_000_000)
    shard.commit()
    give(shard, prepared(TRACES, [made(TRACES, 699), made(TRACES, 700)]))
    assert [each["late"] for each in told.events] == [True, False]


def test_timers_run_before_an_event_is_told() -> None:
    """A breaker's cooldown ends by the time of whatever topic comes."""
    shard, told = watched()
    states: list[BreakerState] = []

    def note(*_: object) -> None:
        records = [each.record for each in shard.take_outputs()]
        states.extend(each.state for each in records if isinstance(each, BreakerCommand))

    fold(shard, [Call(at, Outcome.ERROR) for at in range(12)])
    assert shard.open_breakers()
    told._take = note  # type: ignore[method-assign]
    shard.begin()
    shard.fold(prepared(TRACES, [made(TRACES, 12), made(TRACES, 60), made(TRACES, 61)]))
    assert states[0] is BreakerState.HALF_OPEN
    shard.commit()


def test_an_actor_that_only_takes_steps_is_not_forgotten() -> None:
    """Any event of an actor keeps it, and one after seven days starts it anew."""
    day = 86_400
    shard, _ = watched()
    fold(shard, [Call(at, Outcome.ERROR if at % 9 == 0 else Outcome.OK) for at in range(30)])
    row = shard._identities.find_actor("default", "a")
    assert row is not None
    for at in (4 * day, 8 * day):
        give(shard, prepared(TRACES, [made(TRACES, at)]))
    assert shard._state.actors["pending_calls"][row] + shard._state.actors["successes"][row] > 0
    give(shard, prepared(TRACES, [made(TRACES, 16 * day)]))
    assert shard._state.actors["pending_calls"][row] + shard._state.actors["successes"][row] == 0


def test_state_of_before_there_were_other_topics_names_the_newest_call() -> None:
    """It was measured against stream time, which only calls moved."""
    settings = CoreSettings()
    book = Rulebook(settings)
    old, new = ShardState(settings, book), ShardState(settings, book)
    shard = make_shard()
    old.begin()
    old.record(Times(stream=T0), {}, shard._breakers, {})
    new.apply(old.encode_changes(256).block)
    assert new.finish_restore(shard._identities, shard._breakers) == Times(T0, {TOOL_CALLS: T0})
