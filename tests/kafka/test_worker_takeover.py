"""Workers that die, freeze, come and go: nothing is lost, doubled or reordered, and successors are quick."""

from __future__ import annotations

import signal
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition

from fuseboard_streams.worker.clients import Clients
from fuseboard_streams.worker.errors import StateConflictError, WorkerError
from fuseboard_streams.worker.settings import WorkerSettings
from fuseboard_streams.worker.transaction import Contents, Outgoing, StateWrite, Transactions
from tests.support.brokers import create_topics, new_prefix
from tests.support.first_stage import ALONE
from tests.support.workers import (
    WorkerProcess,
    WorkerThread,
    calls,
    decisions,
    produce,
    read,
    run,
    until,
    with_bad,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fuseboard_schemas.topics import TopicNames
    from tests.support.brokers import KafkaServer

    Topics = Callable[..., TopicNames]

pytestmark = [pytest.mark.broker, pytest.mark.kafka]

SMALL: dict[str, Any] = {
    **ALONE,
    "batch_records": 100,
    "catch_up_records": 100,
    "checkpoint_min_bytes": 300,
    "checkpoint_slice_bytes": 1,
    "checkpoint_bytes_per_event": 1.0,
    "idle_after_s": 1000.0,
}


def assigned(worker: WorkerProcess) -> int:
    """How many shards a worker was given last."""
    lines = worker.lines("assigned")
    return len(lines[-1]["shards"]) if lines else 0


def processed(bootstrap: str, names: TopicNames, group: str) -> bool:
    """Whether the group has committed up to the end of the tool calls."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    try:
        partitions = [TopicPartition(names.tool_calls, number) for number in range(4)]
        try:
            done = {each.partition: each.offset for each in consumer.committed(partitions, timeout=1)}
        except KafkaException:
            return False  # a transaction has offsets pending
        ends = {each.partition: consumer.get_watermark_offsets(each, timeout=10)[1] for each in partitions}
    finally:
        consumer.close()
    return done == ends


@pytest.mark.parametrize(
    ("claim", "replaced_after"), [(True, "begin"), (False, "begin"), (False, "offsets"), (False, "before_commit")]
)
def test_a_writer_that_is_shut_out_says_so_wherever_it_finds_out(
    apache_kafka: str, topics: Topics, unique_prefix: str, claim: bool, replaced_after: str
) -> None:
    names = topics(apache_kafka, unique_prefix)
    clients = Clients(WorkerSettings(bootstrap=apache_kafka, prefix=unique_prefix))
    successor = clients.producer()

    def replaced(step: str) -> None:
        if step == replaced_after:
            successor.init_transactions(30)

    transactions = Transactions(clients, replaced)
    transactions.start()
    entry = Outgoing(names.state, 0, b"shard", b"entry", [])
    offsets = [TopicPartition(names.tool_calls, 0, 0)]
    with closing(Consumer({"bootstrap.servers": apache_kafka, "group.id": unique_prefix})) as member:
        contents = Contents(offsets, member.consumer_group_metadata(), [], [StateWrite([entry])], claim=claim)
        with pytest.raises(WorkerError, match="The broker has shut out this worker"):
            transactions.run(contents)


def test_a_writer_that_knows_it_is_shut_out_says_so_when_it_produces(
    apache_kafka: str, topics: Topics, unique_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = topics(apache_kafka, unique_prefix)
    clients = Clients(WorkerSettings(bootstrap=apache_kafka, prefix=unique_prefix))
    producer, successor = clients.producer(), clients.producer()
    monkeypatch.setattr(clients, "producer", lambda: producer)
    entry = Outgoing(names.state, 0, b"shard", b"entry", [])

    def replaced(step: str) -> None:
        if step == "begin":
            successor.init_transactions(30)
            producer.produce(entry.topic, entry.value, entry.key, entry.partition)
            with pytest.raises(KafkaException):
                producer.flush(30)

    transactions = Transactions(clients, replaced)
    transactions.start()
    with pytest.raises(WorkerError, match="The broker has shut out this worker while producing"):
        transactions.run(Contents([], None, [], [StateWrite([entry])], claim=True))


@pytest.mark.slow
@pytest.mark.parametrize("step", ["offsets", "outputs", "before_commit"])
def test_a_successor_decides_within_eight_seconds_of_a_kill_inside_a_transaction(
    apache_kafka: str, topics: Topics, unique_prefix: str, tmp_path: Path, step: str
) -> None:
    mixed = with_bad(calls(4000, actors=8))
    oracle = new_prefix("oracle")
    produce(apache_kafka, topics(apache_kafka, oracle).tool_calls, mixed)
    run(apache_kafka, oracle, **ALONE)
    expected = decisions(apache_kafka, oracle)
    names = topics(apache_kafka, unique_prefix)
    victim = WorkerProcess(apache_kafka, unique_prefix, tmp_path / "victim.log", kill_at=[step, 8], **SMALL)
    with victim, WorkerProcess(apache_kafka, unique_prefix, tmp_path / "successor.log", **SMALL) as successor:
        until(lambda: assigned(victim) == assigned(successor) == 2, "two shards each")
        lost = set(victim.lines("assigned")[-1]["shards"])
        produce(apache_kafka, names.tool_calls, mixed)
        assert victim.wait() == -signal.SIGKILL
        killed = time.monotonic()

        def decided() -> int:
            commands = read(apache_kafka, names.breaker_commands, settled=False)
            return len([each for each in commands if each.partition in lost])

        before = decided()
        assert before < len([row for row in expected["breaker-commands"] if row[0] in lost])
        until(lambda: decided() > before, "the successor's first command", 20)
        took = time.monotonic() - killed
        until(lambda: processed(apache_kafka, names, f"{unique_prefix}workers"), "the rest", 60)
        successor.signal(signal.SIGTERM)
        assert successor.wait() == 0
        assert successor.lines("fenced")
    assert decisions(apache_kafka, unique_prefix) == expected
    assert took < 8, f"the successor's first command came after {took:.1f} s"


@pytest.mark.slow
def test_a_worker_killed_inside_its_first_transaction_is_not_in_the_way(
    apache_kafka: str, topics: Topics, unique_prefix: str, tmp_path: Path
) -> None:
    mixed = with_bad(calls(1000, actors=4))
    oracle = new_prefix("oracle")
    produce(apache_kafka, topics(apache_kafka, oracle).tool_calls, mixed)
    run(apache_kafka, oracle, **ALONE)
    names = topics(apache_kafka, unique_prefix)
    produce(apache_kafka, names.tool_calls, mixed)
    with WorkerProcess(apache_kafka, unique_prefix, tmp_path / "victim.log", kill_at=["offsets", 1], **ALONE) as victim:
        assert victim.wait() == -signal.SIGKILL
    started = time.monotonic()

    log = run(apache_kafka, unique_prefix, **ALONE)

    assert {each["shard"] for each in log if each["event"] == "fenced"} != set()
    assert time.monotonic() - started < 12, "the successor waited for the broker instead of fencing"
    assert decisions(apache_kafka, unique_prefix) == decisions(apache_kafka, oracle)


@pytest.mark.slow
def test_a_broker_that_restarts_under_load_costs_nothing(own_kafka: KafkaServer, tmp_path: Path) -> None:
    bootstrap = own_kafka.bootstrap
    mixed = with_bad(calls(4000, actors=8))
    produce(bootstrap, create_topics(bootstrap, "oracle.").tool_calls, mixed)
    run(bootstrap, "oracle.", **ALONE)
    expected = decisions(bootstrap, "oracle.")
    names = create_topics(bootstrap, "restarted.")
    slow = {**SMALL, "batch_records": 20, "catch_up_records": 20}
    with WorkerProcess(bootstrap, "restarted.", tmp_path / "worker.log", **slow) as worker:
        until(lambda: assigned(worker) == 4, "an assignment")
        produce(bootstrap, names.tool_calls, mixed)
        until(lambda: bool(worker.lines("breaker_transition")), "some work done")
        own_kafka.kill()
        own_kafka.start()
        until(lambda: processed(bootstrap, names, "restarted.workers"), "the rest", 90)
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
    assert decisions(bootstrap, "restarted.") == expected


@pytest.mark.slow
def test_an_orderly_handover_fences_nobody(
    apache_kafka: str, topics: Topics, unique_prefix: str, tmp_path: Path
) -> None:
    mixed = with_bad(calls(4000, actors=8))
    oracle = new_prefix("oracle")
    produce(apache_kafka, topics(apache_kafka, oracle).tool_calls, mixed)
    run(apache_kafka, oracle, **ALONE)
    expected = decisions(apache_kafka, oracle)
    names = topics(apache_kafka, unique_prefix)
    group = f"{unique_prefix}workers"
    workers: list[WorkerProcess] = []
    try:
        chunk = len(mixed) // 5 + 1
        for turn in range(5):
            workers.append(WorkerProcess(apache_kafka, unique_prefix, tmp_path / f"worker-{turn}.log", **SMALL))
            produce(apache_kafka, names.tool_calls, mixed[turn * chunk : (turn + 1) * chunk])
            until(lambda: bool(workers[-1].lines("assigned")), "an assignment")
            if turn in (1, 3):
                # Also under load: the worker has an assignment, and much is left to do.
                workers[0].signal(signal.SIGTERM)
                assert workers.pop(0).wait() == 0
        until(lambda: processed(apache_kafka, names, group), "all of it", 60)
        for worker in workers:
            worker.signal(signal.SIGTERM)
        assert [worker.wait() for worker in workers] == [0] * len(workers)
    finally:
        for worker in workers:
            worker.__exit__(None, None, None)
    assert decisions(apache_kafka, unique_prefix) == expected
    logs = "".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert '"event": "fenced"' not in logs
    assert "Traceback" not in logs


@pytest.mark.slow
def test_a_worker_frozen_past_its_session_changes_nothing_when_it_wakes(
    apache_kafka: str, topics: Topics, unique_prefix: str, tmp_path: Path
) -> None:
    mixed = with_bad(calls(6000, actors=8))
    oracle = new_prefix("oracle")
    produce(apache_kafka, topics(apache_kafka, oracle).tool_calls, mixed)
    run(apache_kafka, oracle, **ALONE)
    expected = decisions(apache_kafka, oracle)
    names = topics(apache_kafka, unique_prefix)
    slow = {**SMALL, "batch_records": 20, "catch_up_records": 20}
    first = WorkerProcess(apache_kafka, unique_prefix, tmp_path / "first.log", **slow)
    with first, WorkerProcess(apache_kafka, unique_prefix, tmp_path / "second.log", **slow) as second:
        until(lambda: bool(first.lines("assigned") and second.lines("assigned")), "assignments")
        produce(apache_kafka, names.tool_calls, mixed)
        until(lambda: len(read(apache_kafka, names.signals, settled=False)) > 3, "some work done")
        first.signal(signal.SIGSTOP)
        until(lambda: second.lines("assigned")[-1]["shards"] == [0, 1, 2, 3], "the takeover", 20)
        first.signal(signal.SIGCONT)
        until(lambda: processed(apache_kafka, names, f"{unique_prefix}workers"), "all of it", 60)
        for worker in (first, second):
            worker.signal(signal.SIGTERM)
        assert second.wait() == 0
        # The frozen one was either fenced, which ends it loudly, or had nothing open and joined again.
        assert first.wait() in (0, 1)
    assert decisions(apache_kafka, unique_prefix) == expected
    assert "Traceback" not in first.log.read_text()


def test_a_shard_that_comes_right_back_is_not_restored(apache_kafka: str, topics: Topics, unique_prefix: str) -> None:
    names = topics(apache_kafka, unique_prefix)
    produce(apache_kafka, names.tool_calls, calls(500, actors=4))
    with WorkerThread(apache_kafka, unique_prefix, {"idle_after_s": 1000.0, **ALONE}) as first:
        until(lambda: processed(apache_kafka, names, f"{unique_prefix}workers"), "the work")
        with WorkerThread(apache_kafka, unique_prefix, {"idle_after_s": 1000.0, **ALONE}) as second:
            until(lambda: bool(second.events("assigned")), "the rebalance")
            until(lambda: bool(first.events("shard_kept")), "kept shards")
            others = set(range(4)) - set(first.events("assigned")[1]["shards"])
            until(lambda: second.events("shard_restored") != [], "the other's restore")
        assert second.failure is None
        until(lambda: {each["shard"] for each in first.events("shard_restored")} == others, "what the other one had")
    assert first.failure is None
    kept = {each["shard"] for each in first.events("shard_kept")}
    assert len(kept) >= 2


def test_offsets_that_somebody_reset_stop_the_worker(apache_kafka: str, topics: Topics, unique_prefix: str) -> None:
    names = topics(apache_kafka, unique_prefix)
    produce(apache_kafka, names.tool_calls, calls(200))
    run(apache_kafka, unique_prefix, **ALONE)
    group = f"{unique_prefix}workers"
    consumer = Consumer({"bootstrap.servers": apache_kafka, "group.id": group})
    consumer.commit(offsets=[TopicPartition(names.tool_calls, 1, 3)], asynchronous=False)
    consumer.close()
    with pytest.raises(StateConflictError, match=r"committed offset 3, but by the state log \d+ comes next"):
        run(apache_kafka, unique_prefix, **ALONE)


def test_input_that_was_deleted_unprocessed_is_named(apache_kafka: str, topics: Topics, unique_prefix: str) -> None:
    names = topics(apache_kafka, unique_prefix)
    produce(apache_kafka, names.tool_calls, calls(200))
    run(apache_kafka, unique_prefix, **ALONE)
    produce(apache_kafka, names.tool_calls, calls(200, seed=2))
    done = {each.partition: each.decoded("StateRecord") for each in read(apache_kafka, names.state)}
    want = next(each.next_offset for each in done[2].inputs if each.topic == "tool-calls")
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": apache_kafka})
    for future in admin.delete_records([TopicPartition(names.tool_calls, 2, want + 5)]).values():
        future.result(10)
    with pytest.raises(StateConflictError, match=f"offset {want} to {want + 4} were deleted"):
        run(apache_kafka, unique_prefix, **ALONE)
