"""The benchmarks' events: what the SDK would have written, the same every time."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from benchmarks._encode import MessageEncoder, _long, _longs
from benchmarks._events import CALLS_PER_TASK, MAX_DISORDER_US, Events, Workload, generate, records
from fuseboard.envelope import Enveloper
from fuseboard_schemas.codec import Encoder
from fuseboard_schemas.keys import partition_for
from fuseboard_schemas.records import ToolCall
from fuseboard_schemas.topics import TopicNames

PARTITIONS = 8
WORKLOAD = Workload(events=5_000, actors=50, failure_rate=0.1)


def all_events(workload: Workload) -> Events:
    (events,) = generate(workload)
    return events


def test_a_message_is_byte_for_byte_what_the_sdk_writes() -> None:
    events = all_events(WORKLOAD)
    messages = MessageEncoder(WORKLOAD, PARTITIONS).encode(events)
    enveloper = Enveloper(TopicNames(), lambda name: Encoder(name))
    for row, fields in enumerate(records(WORKLOAD, events)):
        expected = enveloper.wrap(ToolCall(**fields))
        assert messages.values[row] == expected.value
        assert messages.keys[row] == expected.key
        assert tuple(messages.headers[row]) == expected.headers
        assert messages.partitions[row] == partition_for(expected.key, PARTITIONS)


def test_every_field_that_a_call_can_have_is_filled_somewhere() -> None:
    filled = {name for fields in records(WORKLOAD, all_events(WORKLOAD)) for name, value in fields.items() if value}
    assert set(ToolCall.__dataclass_fields__) - filled == {"compensates", "probe", "gate_breaker", "gate_epoch"}


def test_the_same_parameters_give_the_same_events() -> None:
    first, second = all_events(WORKLOAD), all_events(WORKLOAD)
    assert all(np.array_equal(getattr(first, name), getattr(second, name)) for name in Events.__slots__)


def test_another_seed_gives_other_events_and_other_ids() -> None:
    other = Workload(events=WORKLOAD.events, actors=WORKLOAD.actors, seed=2)
    mine, theirs = records(WORKLOAD, all_events(WORKLOAD)), records(other, all_events(other))
    assert not {fields["event_id"] for fields in mine} & {fields["event_id"] for fields in theirs}
    assert not {fields["client_id"] for fields in mine} & {fields["client_id"] for fields in theirs}


def test_sequence_numbers_run_from_one_without_a_gap_over_chunks() -> None:
    seen: dict[int, list[int]] = defaultdict(list)
    for events in generate(WORKLOAD, chunk=777):
        for actor, seq in zip(events.actor.tolist(), events.seq.tolist(), strict=True):
            seen[actor].append(seq)
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in seen.values())
    assert sum(len(numbers) for numbers in seen.values()) == WORKLOAD.events


def test_a_trace_is_one_actors_task_of_a_few_calls() -> None:
    fields = records(WORKLOAD, all_events(WORKLOAD))
    actors_of = defaultdict(set)
    for each in fields:
        actors_of[each["trace_id"]].add(each["actor"])
    assert all(len(actors) == 1 for actors in actors_of.values())
    assert max(Counter(each["trace_id"] for each in fields).values()) == CALLS_PER_TASK


def test_event_ids_are_unique() -> None:
    fields = records(WORKLOAD, all_events(WORKLOAD))
    assert len({each["event_id"] for each in fields}) == len({each["span_id"] for each in fields}) == WORKLOAD.events


def test_event_time_runs_at_the_rate_and_is_disordered_by_a_bounded_time() -> None:
    events = all_events(WORKLOAD)
    ideal = WORKLOAD.start_us + (np.arange(WORKLOAD.events) * 20).astype(np.int64)
    behind = ideal - events.ts
    assert behind.min() >= 0
    assert behind.max() < MAX_DISORDER_US
    assert (np.diff(events.ts) < 0).any()


def test_failures_are_spread_over_all_actors_and_tools() -> None:
    workload = Workload(events=50_000, actors=20, failure_rate=0.05)
    events = all_events(workload)
    failed = events.outcome > 0
    assert failed.mean() == pytest.approx(0.05, abs=0.005)
    for column, values in ((events.actor, workload.actors), (events.tool, workload.tools)):
        rates = np.bincount(column, failed, values) / np.bincount(column, minlength=values)
        assert rates == pytest.approx(0.05, abs=0.02)


def test_longs_are_what_avro_writes_at_every_width() -> None:
    values = [0, -1, 1, 63, 64, -64, -65, 8191, 8192, 2**31, -(2**31), 2**62, 2**63 - 1, -(2**63)]
    values += [sign * 2**shift for shift in range(62) for sign in (1, -1)]
    assert _longs(np.array(values, dtype=np.int64)) == [_long(value) for value in values]


@pytest.mark.parametrize(("actors", "tools"), [(1, 1), (2, 1), (30, 3), (100, 20), (1_000, 3)])
def test_a_sweep_visits_every_tool_of_every_actor_once(actors: int, tools: int) -> None:
    workload = Workload(events=actors * tools + 100, actors=actors, tools=tools, sweep=True)
    visited = [
        pair
        for events in generate(workload, chunk=999)
        for pair in zip(events.actor.tolist(), events.tool.tolist(), strict=True)
    ]
    assert len(set(visited[: workload.sweep_events])) == actors * tools
