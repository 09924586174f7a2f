"""A worker that has fallen behind reads its inputs side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from fuseboard_schemas.codec import Encoder
from fuseboard_schemas.topics import TopicNames
from fuseboard_streams.worker.decoding import INPUTS
from tests.support.brokers import new_kafka, started
from tests.support.events import made
from tests.support.journal_replay import Inputs, state_log
from tests.support.oracle_input import InputRecord
from tests.support.oracle_kills import Writer, topics_for
from tests.support.workers import T0_US, calls, run

pytestmark = [pytest.mark.broker, pytest.mark.kafka]

_HOUR_MS = 3_600_000
_COUNT = 3_000
_BATCH = 50
OWN = ("signals", "panes")
"""Inputs that workers write to themselves, in transactions: their offsets have gaps."""


def backlog() -> Iterator[InputRecord]:
    """An hour of calls and of steps, each topic written by itself, and some policy decisions in its first minute."""
    call, step, decision = (Encoder(name).encode for name in ("ToolCall", "TraceStep", "PolicyDecision"))
    everybody = calls(_COUNT, actors=3, minutes=60.0)
    for i, each in enumerate(everybody):
        yield InputRecord("tool-calls", 0, b"k", call(each), T0_US // 1000 + i * _HOUR_MS // _COUNT)
    for i, each in enumerate(everybody):
        record = replace(made("traces", 0, actor=each.actor), ts=each.ts)
        yield InputRecord("traces", 0, b"k", step(record), T0_US // 1000 + i * _HOUR_MS // _COUNT)
    for i, each in enumerate(everybody[:20]):
        record = replace(made("policy-decisions", 0, actor=each.actor), ts=each.ts)
        yield InputRecord("policy-decisions", 0, b"k", decision(record), T0_US // 1000 + i * 1_000)


@pytest.fixture(scope="module")
def filled() -> Iterator[tuple[str, Callable[[str], TopicNames]]]:
    with started(new_kafka()) as server:

        def fill(prefix: str) -> TopicNames:
            topics_for(server.bootstrap, prefix, 1)
            Writer(server.bootstrap, prefix).write(backlog())
            return TopicNames(prefix)

        yield server.bootstrap, fill


def furthest_apart(bootstrap: str, prefix: str) -> float:
    """By how many seconds of arrival an input with records left was behind another that was read from, at most."""
    inputs = Inputs.of(bootstrap, prefix, 1)
    arrivals = {topic: [each.timestamp_ms for each in inputs.after(topic, 0, 0)] for topic in INPUTS}
    position = dict.fromkeys(INPUTS, 0)
    apart = 0
    for _, entry in state_log(bootstrap, prefix, 1)[0]:
        moved = [each for each in entry.inputs if each.next_offset > each.from_offset and arrivals[each.topic]]
        for each in moved:
            position[each.topic] = each.next_offset
        waiting = [arrivals[topic][at] for topic, at in position.items() if at < len(arrivals[topic])]
        reached = [arrivals[each.topic][each.next_offset - 1] for each in moved if each.topic not in OWN]
        if waiting and reached:
            apart = max(apart, max(reached) - min(waiting))
    return apart / 1_000


def test_topics_of_a_backlog_are_read_side_by_side(filled: tuple[str, Callable[[str], TopicNames]]) -> None:
    """No input runs further ahead than the setting and what was decoded ahead; nothing is lost or read twice."""
    bootstrap, fill = filled
    more = {"batch_records": _BATCH, "catch_up_records": _BATCH, "trim_interval_s": 1e9}
    counted = []
    for prefix, sync_s in (("together.", 60.0), ("apart.", 1e6)):
        fill(prefix)
        log = run(bootstrap, prefix, **more, sync_s=sync_s)
        counted.append(next(each["events"] for each in log if each["event"] == "worker_stopped"))
    per_record = 3_600 / _COUNT
    assert furthest_apart(bootstrap, "apart.") > 1_000
    assert furthest_apart(bootstrap, "together.") < 60 + 3 * _BATCH * per_record
    assert counted == [2 * _COUNT + 20] * 2
