"""The worker end to end, on every broker there is."""

from __future__ import annotations

import itertools
import json
import threading
import time
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from fuseboard_schemas import catalogue
from fuseboard_schemas.codec import Encoder
from fuseboard_schemas.errors import ConfigurationError, UnreachableError
from fuseboard_schemas.records import BreakerState, DeadLetterReason, StateKind, StateRecord
from fuseboard_schemas.registry import PackagedResolver
from fuseboard_streams.embedded import free_ports
from fuseboard_streams.worker.clients import Clients
from fuseboard_streams.worker.clock import Clock
from fuseboard_streams.worker.decoding import INPUTS
from fuseboard_streams.worker.errors import StateConflictError
from tests.support.brokers import new_prefix
from tests.support.first_stage import ALONE
from tests.support.workers import Bad, WorkerThread, calls, decisions, produce, read, run, until, with_bad

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_schemas.registry import Writer
    from fuseboard_schemas.topics import TopicNames

    Topics = Callable[..., TopicNames]

pytestmark = pytest.mark.broker


def test_trips_the_broken_tools_and_dead_letters_the_bad_records(
    broker: str, topics: Topics, unique_prefix: str
) -> None:
    names = topics(broker, unique_prefix)
    mixed = with_bad(calls(3000))
    produce(broker, names.tool_calls, mixed)

    log = run(broker, unique_prefix)

    commands = [each.decoded("BreakerCommand") for each in read(broker, names.breaker_commands)]
    opened = {each.breaker_id for each in commands if each.state is BreakerState.OPEN}
    assert len(opened) >= 8
    assert all("/tool-1" in each for each in opened)
    letters = [each.decoded("DeadLetter") for each in read(broker, names.dead_letters)]
    rejected = [each for each in mixed if isinstance(each, Bad) or each.tool == "" or each.ts == 5]
    assert len(letters) == len(rejected)
    assert {each.reason for each in letters} == {
        DeadLetterReason.TOMBSTONE,
        DeadLetterReason.NOT_WIRE_FORMAT,
        DeadLetterReason.UNKNOWN_SCHEMA,
        DeadLetterReason.WRONG_RECORD,
        DeadLetterReason.INVALID_FIELD,
        DeadLetterReason.ANCIENT,
    }
    source = {(each.partition, each.offset): each for each in read(broker, names.tool_calls)}
    for letter in letters:
        original = source[letter.partition, letter.offset]
        assert (letter.key, letter.payload) == (original.key, original.value)
    stopped = next(each for each in log if each["event"] == "worker_stopped")
    assert stopped["events"] + len([each for each in rejected if isinstance(each, Bad)]) == len(mixed)


def test_runs_that_stop_in_between_decide_what_one_run_decides(broker: str, topics: Topics, unique_prefix: str) -> None:
    mixed = with_bad(calls(3000))
    whole, parts = unique_prefix, new_prefix("parts")
    produce(broker, topics(broker, whole).tool_calls, mixed)
    run(broker, whole, **ALONE)
    inputs = topics(broker, parts).tool_calls
    for begin in range(0, len(mixed), 700):
        produce(broker, inputs, mixed[begin : begin + 700])
        run(
            broker,
            parts,
            batch_records=150,
            checkpoint_min_bytes=400,
            checkpoint_slice_bytes=1,
            checkpoint_bytes_per_event=1.0,
            **ALONE,
        )

    expected, found = decisions(broker, whole), decisions(broker, parts)

    assert found == expected
    assert len(expected["breaker-commands"]) > 24


def test_the_state_log_names_its_writer_and_every_input(broker: str, topics: Topics, unique_prefix: str) -> None:
    names = topics(broker, unique_prefix)
    produce(broker, names.tool_calls, calls(500))

    log = run(broker, unique_prefix, batch_records=100)

    writer = next(each["transactional_id"] for each in log if each["event"] == "worker_started")
    for shard in range(4):
        entries = [each.decoded("StateRecord") for each in read(broker, names.state) if each.partition == shard]
        assert entries[0].kind is StateKind.CLAIM
        assert [each.sequence for each in entries] == list(range(1, len(entries) + 1))
        assert {each.writer for each in entries} == {writer}
        position = {each.topic: each.next_offset for each in entries[0].inputs}
        assert set(position) == set(INPUTS)
        for entry in entries[1:]:
            for each in entry.inputs:
                assert each.from_offset == position[each.topic]
                position[each.topic] = each.next_offset
    done = {each.partition: each.offset + 1 for each in read(broker, names.tool_calls)}
    last = {each.partition: each.decoded("StateRecord") for each in read(broker, names.state)}
    next_ones = {shard: {each.topic: each.next_offset for each in entry.inputs} for shard, entry in last.items()}
    assert {shard: offsets["tool-calls"] for shard, offsets in next_ones.items()} == done


def test_two_workers_share_the_shards(broker: str, topics: Topics, unique_prefix: str) -> None:
    mixed = with_bad(calls(2000))
    alone, shared = unique_prefix, new_prefix("shared")
    produce(broker, topics(broker, alone).tool_calls, mixed)
    run(broker, alone, **ALONE)
    names = topics(broker, shared)
    more = {"idle_after_s": 1000.0, **ALONE}
    with WorkerThread(broker, shared, more) as first, WorkerThread(broker, shared, more) as second:

        def divided() -> bool:
            latest = [
                worker.events("assigned")[-1]["shards"] for worker in (first, second) if worker.events("assigned")
            ]
            return sorted(map(len, latest)) == [2, 2]

        until(divided, "two shards each")
        produce(broker, names.tool_calls, mixed)
        expected = decisions(broker, alone)["breaker-commands"]
        until(lambda: len(read(broker, names.breaker_commands, settled=False)) >= len(expected), "all commands")
        until(lambda: {each.partition for each in read(broker, names.heartbeats)} == {0, 1, 2, 3}, "heartbeats")
    assert first.failure is None
    assert second.failure is None
    found = decisions(broker, shared)
    assert found["breaker-commands"] == expected


def test_acknowledgements_are_taken_in(broker: str, topics: Topics, unique_prefix: str) -> None:
    names = topics(broker, unique_prefix)
    ack = {
        "breaker_id": "ACTOR_TOOL:default/agent-1/tool-1", "epoch": 17, "state": "OPEN", "tenant": "default",
        "actor": "agent-1", "client_id": 5, "enforcer": "sdk", "ts": 1, "command_ts": 1, "seq": 1,
    }  # fmt: skip
    produce(broker, names.enforcement_acks, [Bad(Encoder("EnforcementAck").encode(ack)), Bad(b"no ack")])

    log = run(broker, unique_prefix)

    received = [each for each in log if each["event"] == "ack_received"]
    assert [(each["breaker_id"], each["epoch"], each["client_id"]) for each in received] == [(ack["breaker_id"], 17, 5)]
    (letter,) = [each.decoded("DeadLetter") for each in read(broker, names.dead_letters)]
    assert (letter.topic, letter.reason) == ("enforcement-acks", DeadLetterReason.NOT_WIRE_FORMAT)


def test_an_idle_shard_follows_the_clock_and_says_so_in_the_journal(
    broker: str, topics: Topics, unique_prefix: str
) -> None:
    names = topics(broker, unique_prefix)
    produce(broker, names.tool_calls, calls(200, actors=4))
    with WorkerThread(broker, unique_prefix, {"idle_after_s": 0.2, "heartbeat_s": 0.2}):

        def advances() -> list[tuple[StateRecord, StateRecord]]:
            log = read(broker, names.state)
            journals = [[each.decoded("StateRecord") for each in log if each.partition == shard] for shard in range(4)]
            pairs = [pair for journal in journals for pair in itertools.pairwise(journal)]
            # A shard that has seen no event goes on from the time of the others.
            return [(before, entry) for before, entry in pairs if entry.advanced_us and before.stream_time]

        until(lambda: bool(advances()), "an advance in the journal")
    for before, entry in advances():
        assert entry.stream_time == before.stream_time + entry.advanced_us


def test_what_a_newer_checkpoint_replaces_is_deleted_and_never_missed(
    broker: str, topics: Topics, unique_prefix: str
) -> None:
    mixed = calls(4000, actors=4)
    whole, trimmed = unique_prefix, new_prefix("trimmed")
    produce(broker, topics(broker, whole).tool_calls, mixed)
    run(broker, whole, **ALONE)
    names = topics(broker, trimmed)
    produce(broker, names.tool_calls, mixed[:3000])
    admin = AdminClient({"bootstrap.servers": broker})

    def starts() -> list[int]:
        wanted = {TopicPartition(names.state, number): OffsetSpec.earliest() for number in range(4)}
        return [future.result().offset for future in admin.list_offsets(wanted).values()]

    small = {"batch_records": 5, "catch_up_records": 5, "idle_after_s": 1000.0, "trim_interval_s": 0.05, **ALONE}
    with WorkerThread(broker, trimmed, {**small, "checkpoint_min_bytes": 5_000, "checkpoint_slice_bytes": 1}) as worker:
        until(lambda: max(starts()) > 0, "something is deleted")
    assert worker.failure is None
    assert worker.events("trim_failed") == []
    produce(broker, names.tool_calls, mixed[3000:])

    run(broker, trimmed, **ALONE)

    found, expected = decisions(broker, trimmed), decisions(broker, whole)
    assert found["signals"] == expected["signals"]
    assert found["breaker-commands"] == expected["breaker-commands"]


def test_time_that_passes_while_the_broker_does_not_answer_is_not_idle_time(
    broker: str, topics: Topics, unique_prefix: str
) -> None:
    names = topics(broker, unique_prefix)
    produce(broker, names.tool_calls, calls(200, actors=4))
    away, passed = threading.Event(), [0.0]

    def advances() -> list[int]:
        entries = [each.decoded("StateRecord") for each in read(broker, names.state)]
        return [entry.advanced_us for entry in entries if entry.advanced_us]

    def outage(step: str) -> None:
        if step == "before_commit" and away.is_set():
            away.clear()
            passed[0] = 3_600.0

    clock = Clock(monotonic=lambda: time.monotonic() + passed[0])
    with WorkerThread(broker, unique_prefix, {"idle_after_s": 0.2, "heartbeat_s": 0.2}, outage, clock=clock):
        until(lambda: bool(advances()), "an advance")
        away.set()
        until(lambda: bool(passed[0]), "the outage")
        before = len(advances())
        until(lambda: len(advances()) > before + 8, "advances afterwards")
    assert max(advances()) < 600_000_000


def test_a_consumer_that_loses_a_broker_finds_out_anew_where_its_inputs_end(
    broker: str, topics: Topics, unique_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = topics(broker, unique_prefix)
    produce(broker, names.tool_calls, calls(200, actors=4))
    made: list[Clients] = []
    consumer = Clients.consumer

    def remembered(clients: Clients) -> Consumer:
        made.append(clients)
        return consumer(clients)

    monkeypatch.setattr(Clients, "consumer", remembered)

    def advances() -> int:
        return len([each for each in read(broker, names.state) if each.decoded("StateRecord").advanced_us])

    with WorkerThread(broker, unique_prefix, {"idle_after_s": 0.2, "heartbeat_s": 0.2}) as worker:
        until(lambda: advances() > 0, "an advance")
        assert worker.events("inputs_read_again") == []
        made[0]._consumer_error(KafkaError(KafkaError._TRANSPORT))
        until(lambda: bool(worker.events("inputs_read_again")), "reading again")
        before = advances()
        until(lambda: advances() > before, "advances afterwards")


def test_health_readiness_and_metrics(broker: str, topics: Topics, unique_prefix: str) -> None:
    names = topics(broker, unique_prefix)
    produce(broker, names.tool_calls, calls(100))
    with WorkerThread(broker, unique_prefix, {"http": True, "http_port": 0}) as worker:
        until(lambda: bool(worker.events("worker_started")), "the start")
        base = f"http://{worker.events('worker_started')[0]['http']}"

        def scraped() -> str:
            with urlopen(f"{base}/metrics") as answer:
                return str(answer.read().decode())

        until(lambda: "fuseboard_core_events_total 100.0" in scraped(), "all events counted")
        with urlopen(f"{base}/readyz") as answer:
            said = json.load(answer)
        assert said["ready"]
        assert set(said["shards"].values()) == {"ready"}
        with urlopen(f"{base}/healthz") as answer:
            assert answer.status == 200
        text = scraped()
        assert 'fuseboard_records_total{topic="tool-calls"} 100.0' in text
        assert 'fuseboard_shards{state="ready"} 4.0' in text


class ShakyRegistry:
    """A registry that cannot be asked about foreign ids until it is back."""

    def __init__(self) -> None:
        self.back = threading.Event()

    def resolve(self, schema_id: int) -> Writer | None:
        known = PackagedResolver().resolve(schema_id)
        if known is not None:
            return known
        if not self.back.is_set():
            raise UnreachableError("The schema registry is away.")
        return PackagedResolver().resolve(catalogue.packaged_id("ToolCall")) if schema_id == 77 else None


def test_an_unreachable_registry_makes_the_worker_wait_and_dead_letters_nothing(
    broker: str, topics: Topics, unique_prefix: str
) -> None:
    names = topics(broker, unique_prefix)
    foreign = [Bad(Encoder("ToolCall", 77).encode(call), b"default/agent-1") for call in calls(50, actors=2)]
    foreign = [each for each, call in zip(foreign, calls(50, actors=2), strict=True) if call.actor == "agent-1"]
    produce(broker, names.tool_calls, [*calls(20), *foreign])
    registry = ShakyRegistry()
    with WorkerThread(broker, unique_prefix, resolver=registry) as worker:
        until(lambda: bool(worker.events("schema_registry_unreachable")), "the wait")
        assert read(broker, names.dead_letters) == []
        registry.back.set()
        done = 20 + len(foreign)

        def processed() -> int:
            last = {each.partition: each.decoded("StateRecord") for each in read(broker, names.state)}
            positions = [each for entry in last.values() for each in entry.inputs if each.topic == "tool-calls"]
            return sum(each.next_offset for each in positions)

        until(lambda: processed() == done, "every record")
    assert worker.failure is None
    assert read(broker, names.dead_letters) == []


def test_a_missing_topic_names_the_command_that_creates_it(broker: str, unique_prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="fuseboard topics apply") as caught:
        run(broker, unique_prefix)
    assert caught.value.exit_code == 2


def test_unequal_partition_counts_are_refused(broker: str, topics: Topics, unique_prefix: str) -> None:
    names = topics(broker, unique_prefix)
    admin = AdminClient({"bootstrap.servers": broker})
    for future in admin.delete_topics([names.enforcement_acks]).values():
        future.result(10)
    until(lambda: names.enforcement_acks not in admin.list_topics(timeout=5).topics, "the deletion")
    from confluent_kafka.admin import NewTopic

    for future in admin.create_topics([NewTopic(names.enforcement_acks, 2, 1)]).values():
        future.result(10)
    with pytest.raises(ConfigurationError, match="same number of partitions"):
        run(broker, unique_prefix)


def test_the_state_of_another_group_is_refused(broker: str, topics: Topics, unique_prefix: str) -> None:
    names = topics(broker, unique_prefix)
    produce(broker, names.tool_calls, calls(50))
    run(broker, unique_prefix)
    with pytest.raises(StateConflictError, match="Two groups cannot share one state"):
        run(broker, unique_prefix, group=f"{unique_prefix}others")


def test_an_unreachable_broker_is_named() -> None:
    (port,) = free_ports(1)
    with pytest.raises(UnreachableError, match=f"127.0.0.1:{port}") as caught:
        run(f"127.0.0.1:{port}", "nowhere.", connect_timeout_s=1.0)
    assert caught.value.exit_code == 3
