"""The worker's other inputs beside tool calls, on every broker there is."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from fuseboard_schemas.codec import Encoder
from fuseboard_schemas.keys import actor_key
from fuseboard_schemas.records import (
    DeadLetterReason,
    Override,
    OverrideKind,
    Scope,
    SessionRequest,
    Signal,
    SignalLevel,
    StateKind,
)
from fuseboard_streams.worker import loop
from fuseboard_streams.worker.decoding import INPUTS
from tests.support.events import TOPICS as EVENTS
from tests.support.events import made
from tests.support.workers import T0_US, Bad, calls, produce, read, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_schemas.topics import TopicNames

    Topics = Callable[..., TopicNames]

pytestmark = pytest.mark.broker


def write(broker: str, topic: str, *records: Any) -> None:
    """Records with their actors as keys, and bytes as they are."""
    rows = []
    for each in records:
        if isinstance(each, bytes):
            rows.append(Bad(each))
            continue
        key = actor_key(each.tenant, each.actor).encode()
        rows.append(Bad(Encoder(type(each).__name__).encode(each), key))
    produce(broker, topic, rows)


def event(topic: str, number: int, **fields: Any) -> Any:
    record = made(topic, 0, **{"actor": f"agent-{number % 12}", "client_id": 1, "seq": number, **fields})
    return replace(record, ts=T0_US + number * 1_000_000)


def signal(number: int, **fields: Any) -> Signal:
    given: dict[str, Any] = {"scope": Scope.ACTOR, "actor": f"agent-{number % 12}", **fields}
    return Signal(
        signal_id=f"s{number}", ts=T0_US, source="judge", tenant="default", level=SignalLevel.WARN, metric="m",
        client_id=9, seq=number, **given,
    )  # fmt: skip


def order(number: int) -> Override:
    return Override(
        override_id=f"o{number}", ts=T0_US, tenant="default", scope=Scope.ACTOR, actor=f"agent-{number % 12}",
        kind=OverrideKind.RESET, person="somebody", reason="because",
    )  # fmt: skip


def test_every_input_is_read_and_what_is_bad_in_it_is_a_dead_letter(
    broker: str, topics: Topics, unique_prefix: str
) -> None:
    names = topics(broker, unique_prefix)
    produce(broker, names.tool_calls, calls(60))
    for topic in EVENTS:
        rows = [event(topic, number) for number in range(40)]
        write(broker, names.prefix + topic, *rows, rows[-1], b"no event", event(topic, 41, actor=""))
    write(broker, names.traces, event("traces", 42, cost_usd_micros=-5), event("traces", 43, cost_usd_micros=10**12))
    # A signal is about an actor that is known: the events come first.
    first = run(broker, unique_prefix, batch_records=17)
    write(broker, names.signals, *map(signal, range(30)), b"no signal", signal(31, value=float("nan")))
    write(broker, names.signals, signal(32, scope=Scope.ACTOR_TOOL))
    write(broker, names.overrides, *map(order, range(5)), b"no order")

    log = run(broker, unique_prefix, batch_records=17)

    letters = [each.decoded("DeadLetter") for each in read(broker, names.dead_letters)]
    invalid, foreign = DeadLetterReason.INVALID_FIELD, DeadLetterReason.NOT_WIRE_FORMAT
    assert Counter((each.topic, each.reason) for each in letters) == {
        **{(topic, reason): 1 for topic in EVENTS for reason in (invalid, foreign)},
        ("traces", invalid): 3,
        ("signals", invalid): 2,
        ("signals", foreign): 1,
        ("overrides", foreign): 1,
    }
    for topic in {each.topic for each in letters}:
        source = {(each.partition, each.offset): each for each in read(broker, names.prefix + topic)}
        for each in letters:
            if each.topic == topic:
                original = source[each.partition, each.offset]
                assert (each.key, each.payload) == (original.key, original.value)
    ends = [each for each in (*first, *log) if each["event"] == "worker_stopped"]
    counted = [sum(each.get(name, 0) for each in ends) for name in ("events", "signals", "duplicates", "rejected")]
    assert counted == [60 + 3 * 42 + 2 + 32, 32, 3, 7]


def test_inputs_that_are_new_since_the_state_was_written_are_read_from_their_start(
    broker: str, topics: Topics, unique_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """State of a version with fewer inputs does not name them; what is in them waits since before."""
    names = topics(broker, unique_prefix)
    produce(broker, names.tool_calls, calls(200))
    write(broker, names.traces, *[event("traces", number) for number in range(80)])
    write(broker, names.session_requests, *[event("session-requests", number) for number in range(20)])
    first = {each.partition for each in read(broker, names.traces)}
    cut = [TopicPartition(names.traces, number, 3) for number in first]
    admin = AdminClient({"bootstrap.servers": broker})
    for future in admin.delete_records(cut).values():
        future.result(10)
    with monkeypatch.context() as older:
        older.setattr(loop, "INPUTS", ("tool-calls", "enforcement-acks"))
        run(broker, unique_prefix)
    old = {each.partition: each.offset for each in read(broker, names.state)}
    produce(broker, names.tool_calls, calls(50, seed=2))

    log = run(broker, unique_prefix)

    written = [each for each in read(broker, names.state) if each.offset > old[each.partition]]
    for shard in range(4):
        entries = [each.decoded("StateRecord") for each in written if each.partition == shard]
        assert entries[0].kind is StateKind.CLAIM
        position = {each.topic: each.from_offset for each in entries[0].inputs}
        assert set(position) == set(INPUTS)
        assert position["traces"] == (3 if shard in first else 0)
        assert position["session-requests"] == 0
        assert position["tool-calls"] > 0
    remaining = len(read(broker, names.traces))
    stopped = next(each for each in log if each["event"] == "worker_stopped")
    assert stopped["events"] == 50 + 20 + remaining
    assert 0 < remaining < 80
    run(broker, unique_prefix)


def test_a_record_of_another_topic_s_kind_is_a_dead_letter(broker: str, topics: Topics, unique_prefix: str) -> None:
    names = topics(broker, unique_prefix)
    request = SessionRequest(event_id="r", ts=T0_US, actor="agent-1", session_id="s", accepted=True)
    write(broker, names.session_requests, event("traces", 1))
    write(broker, names.traces, request, event("traces", 2))

    run(broker, unique_prefix)

    letters = [each.decoded("DeadLetter") for each in read(broker, names.dead_letters)]
    assert Counter((each.topic, each.reason) for each in letters) == {
        ("session-requests", DeadLetterReason.WRONG_RECORD): 1,
        ("traces", DeadLetterReason.WRONG_RECORD): 1,
    }
