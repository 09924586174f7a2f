"""From raw batches to each shard's work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.codec import Encoder
from fuseboard_schemas.columnar import Values
from fuseboard_schemas.records import (
    DeadLetterReason,
    Override,
    OverrideKind,
    Pane,
    PaneKind,
    Scope,
    Signal,
    SignalLevel,
)
from fuseboard_schemas.registry import PackagedResolver
from fuseboard_schemas.topics import TOPICS, by_name
from fuseboard_streams.core.identity import Rejected
from fuseboard_streams.core.inputs import ACKS, OVERRIDES, PANES, SIGNALS, TOOL_CALLS
from fuseboard_streams.worker.decoding import INPUTS, Batch, Decoding, rejected_records
from fuseboard_streams.worker.rules_source import packaged
from fuseboard_streams.worker.source import Arrived, RawBatch, runs_of
from tests.support.calls import SEEDS
from tests.support.events import TOPICS as EVENTS
from tests.support.events import made
from tests.support.workers import calls


def arrived(topic: str, values: list[bytes | None], partitions: list[int] | None = None, first: int = 5) -> Arrived:
    n = len(values)
    partition = np.array(partitions or [2] * n, np.int32)
    return Arrived(
        topic=topic,
        keys=[b"t/a"] * n,
        values=Values.of(values),
        partition=partition,
        offset=np.arange(first, first + n),
        arrival=np.arange(n, dtype=np.int64),
        runs=runs_of(partition),
    )


def decoded(*several: Arrived) -> Batch:
    return Decoding(PackagedResolver(), SEEDS).decode(RawBatch(1, list(several)), packaged(FailureParams()))


def signal(source: str) -> Signal:
    return Signal(
        signal_id="s", ts=1, source=source, tenant="t", scope=Scope.TENANT, level=SignalLevel.INFO, metric="m"
    )


def pane() -> Pane:
    return Pane(tenant="t", kind=PaneKind.MARKER, ts=1, source_shard=0, from_offset=0, next_offset=0, rules_version="v")


def a_record(topic: str) -> Any:
    if topic in EVENTS:
        return made(topic, 1)
    if topic == SIGNALS:
        return signal("judge")
    if topic == OVERRIDES:
        return Override(
            override_id="o", ts=1, tenant="t", scope=Scope.TENANT, kind=OverrideKind.RESET, person="p", reason="r"
        )
    if topic == PANES:
        return pane()
    if topic == ACKS:
        return {
            "breaker_id": "ACTOR:t/a", "epoch": 17, "state": "OPEN", "tenant": "t", "actor": "a", "client_id": 5,
            "enforcer": "sdk", "ts": 1, "command_ts": 1, "seq": 1,
        }  # fmt: skip
    return calls(1)[0]


def value(topic: str) -> bytes:
    declared = by_name(topic)
    assert declared is not None
    return Encoder(declared.record).encode(a_record(topic))


def offsets(batch: Batch, shard: int, topic: str) -> list[int]:
    inputs = batch.work[shard].inputs
    single: dict[str, list[Any]] = {
        SIGNALS: inputs.signals, OVERRIDES: inputs.overrides, ACKS: inputs.acks, PANES: inputs.panes
    }  # fmt: skip
    if topic in single:
        return [each.offset for each in single[topic]]
    columns = inputs.calls if topic == TOOL_CALLS else inputs.events.get(topic)
    return columns.offset.tolist() if columns is not None else []


def test_every_topic_that_a_shard_consists_of_is_an_input() -> None:
    assert set(INPUTS) == {topic.name for topic in TOPICS if topic.is_input}


@pytest.mark.parametrize("topic", INPUTS)
def test_the_records_of_every_topic_come_to_their_shards_and_bad_ones_are_kept(topic: str) -> None:
    good = value(topic)
    batch = decoded(arrived(topic, [good, good, b"no record", None, good, good], [2, 1, 2, 1, 1, 2]))
    assert {shard: offsets(batch, shard, topic) for shard in (1, 2)} == {1: [6, 9], 2: [5, 10]}
    assert {shard: len(batch.work[shard].inputs) for shard in (1, 2)} == {1: 2, 2: 2}
    assert {shard: batch.work[shard].next for shard in (1, 2)} == {1: {topic: 10}, 2: {topic: 11}}
    assert {shard: batch.work[shard].arrivals for shard in (1, 2)} == {1: {topic: 4}, 2: {topic: 5}}
    assert [(bad.topic, bad.offset, bad.reason) for bad in (*batch.work[1].bad, *batch.work[2].bad)] == [
        (topic, 8, DeadLetterReason.TOMBSTONE),
        (topic, 7, DeadLetterReason.NOT_WIRE_FORMAT),
    ]


@pytest.mark.parametrize("topic", INPUTS)
def test_what_was_processed_already_is_dropped(topic: str) -> None:
    other = TOOL_CALLS if topic != TOOL_CALLS else SIGNALS
    batch = decoded(arrived(topic, [value(topic), b"", value(topic), b""]), arrived(other, [value(other)]))
    position = dict.fromkeys(INPUTS, 5)
    rest = batch.work[2].after(position | {topic: 7})
    assert offsets(Batch(1, 0, {2: rest}, [], batch.rules), 2, topic) == [7]
    assert [bad.offset for bad in rest.bad] == [8]
    assert rest.next == {topic: 9, other: 6}
    nothing = batch.work[2].after(position | {topic: 9, other: 6})
    assert (len(nothing.inputs), nothing.bad, nothing.next, nothing.arrivals) == (0, [], {}, {})


def test_a_batch_of_nothing_but_bad_records_gives_dead_letters() -> None:
    work = decoded(arrived(TOOL_CALLS, [b"no record", None])).work[2]
    assert work.inputs.calls is None
    assert work.next == {TOOL_CALLS: 7}
    assert [(bad.offset, bad.reason) for bad in work.bad] == [
        (5, DeadLetterReason.NOT_WIRE_FORMAT),
        (6, DeadLetterReason.TOMBSTONE),
    ]


def test_what_the_field_rules_refuse_is_found_by_topic_and_offset() -> None:
    steps = [value("traces"), value("traces")]
    batch = decoded(arrived(TOOL_CALLS, [value(TOOL_CALLS)] * 3, [1, 2, 1]), arrived("traces", steps, [1, 2], first=6))
    reason = DeadLetterReason.INVALID_FIELD
    found = rejected_records(
        batch.work[1],
        1,
        [Rejected(7, reason, "a call"), Rejected(6, reason, "a step", "traces"), Rejected(5, reason, "b")],
    )
    assert [(bad.topic, bad.partition, bad.offset, bad.detail, bad.value) for bad in found] == [
        (TOOL_CALLS, 1, 7, "a call", value(TOOL_CALLS)),
        (TOOL_CALLS, 1, 5, "b", value(TOOL_CALLS)),
        ("traces", 1, 6, "a step", value("traces")),
    ]


def test_signals_of_the_shards_themselves_are_no_sign_of_life() -> None:
    """Else a shard whose idle clock makes it publish one would never be idle."""
    encode = Encoder("Signal").encode
    own, foreign = encode(signal("fuseboard/tool-failing")), encode(signal("judge"))
    acks = arrived(ACKS, [value(ACKS)])
    assert decoded(arrived(SIGNALS, [own, own])).work[2].goes_on() == []
    assert decoded(arrived(SIGNALS, [own, foreign])).work[2].goes_on() == [SIGNALS]
    assert decoded(arrived(SIGNALS, [own, b"bad"])).work[2].goes_on() == [SIGNALS]
    assert decoded(arrived(SIGNALS, [own]), acks).work[2].goes_on() == [ACKS]
    assert decoded(arrived(PANES, [value(PANES)]), acks).work[2].goes_on() == [ACKS]
    assert decoded(arrived(PANES, [value(PANES)])).work[2].goes_on() == []
