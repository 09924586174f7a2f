"""The doctor against running brokers and a running registry."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from fuseboard_schemas import catalogue
from fuseboard_schemas.codec import Encoder
from fuseboard_schemas.errors import ConfigurationError
from fuseboard_schemas.records import Heartbeat
from fuseboard_schemas.topics import TOPICS, TopicNames
from fuseboard_streams import doctor
from fuseboard_streams.doctor import Check, examine, exit_code
from fuseboard_streams.embedded import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PARTITIONS = 2


@pytest.fixture
def names(broker: str, unique_prefix: str, topics: Callable[..., TopicNames]) -> TopicNames:
    return topics(broker, unique_prefix, PARTITIONS)


@pytest.fixture
def heart(broker: str, names: TopicNames) -> Iterator[None]:
    """Heartbeats of both shards, in quick succession, for the length of the test."""
    stop = threading.Event()
    encode = Encoder("Heartbeat").encode
    producer = Producer({"bootstrap.servers": broker, "linger.ms": 0, "log_level": 0})

    def beat() -> None:
        while not stop.wait(0.05):
            for shard in range(PARTITIONS):
                record = Heartbeat(
                    worker_id="w1",
                    group="workers",
                    shard=shard,
                    ts=time.time_ns() // 1000,
                    stream_time=0,
                    lag_s=0.5,
                    version="1",
                    rules_version="",
                )
                producer.produce(names.heartbeats, encode(record), key=b"w1", partition=shard)
            producer.poll(0)

    thread = threading.Thread(target=beat)
    thread.start()
    yield
    stop.set()
    thread.join()
    producer.flush(30)


def _by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_a_cluster_with_a_worker_that_keeps_up_is_fine(broker: str, names: TopicNames, heart: None) -> None:
    producer = Producer({"bootstrap.servers": broker, "log_level": 0})
    for _ in range(5):
        producer.produce(names.tool_calls, b"x", partition=0)
    assert producer.flush(30) == 0
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "workers", "log_level": 0})
    consumer.commit(offsets=[TopicPartition(names.tool_calls, 0, 2)], asynchronous=False)
    consumer.close()

    checks = examine({"bootstrap.servers": broker}, names.prefix, listen_s=30)

    assert [check.name for check in checks if check.status != "ok"] == ["schemas"]
    found = _by_name(checks)
    assert found["schemas"].status == "unchecked"
    assert "no registry is configured" in found["schemas"].detail
    assert found["partitions"].detail == "Every topic has 2 partitions."
    assert found["heartbeats"].detail == "All 2 shards are owned, by 1 worker(s)."
    assert "agree with the broker's clock" in found["clock"].detail
    assert found["lag"].detail.endswith("3 records in group workers.")
    assert exit_code(checks) == 0


def test_a_clock_that_is_off_is_noticed(broker: str, names: TopicNames, heart: None) -> None:
    checks = examine({"bootstrap.servers": broker}, names.prefix, listen_s=30, clock=lambda: time.time() + 100)
    assert _by_name(checks)["clock"].detail.startswith("This machine is ")
    assert not _by_name(checks)["clock"].ok


def test_no_topics_and_no_worker_are_said(broker: str, unique_prefix: str) -> None:
    checks = examine({"bootstrap.servers": broker}, unique_prefix)
    assert [check.name for check in checks if check.status == "failed"] == ["topics"]
    assert [check.name for check in checks if check.status == "ok"] == ["broker"]
    assert exit_code(checks) == 1


def test_no_worker_is_said(broker: str, names: TopicNames) -> None:
    checks = examine({"bootstrap.servers": broker}, names.prefix, listen_s=0.0)
    assert [check.name for check in checks if check.status == "failed"] == ["heartbeats"]
    assert [check.name for check in checks if check.status == "unchecked"] == ["schemas", "clock", "lag"]


def test_heartbeats_that_cannot_be_read_leave_the_other_findings(
    broker: str, names: TopicNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise ConfigurationError("no ACL for it")

    monkeypatch.setattr(doctor, "listen", refused)
    found = _by_name(examine({"bootstrap.servers": broker}, names.prefix))
    assert (found["topics"].status, found["heartbeats"].status, found["heartbeats"].exit_code) == ("ok", "failed", 2)
    assert (found["clock"].status, found["lag"].status) == ("unchecked", "unchecked")


def test_an_unreachable_broker_ends_the_examination_with_exit_code_3() -> None:
    (port,) = free_ports(1)
    checks = examine({"bootstrap.servers": f"127.0.0.1:{port}"}, "t.")
    assert [check.status for check in checks] == ["failed", *["unchecked"] * 7]
    assert checks[0].name == "broker"
    assert exit_code(checks) == 3


@pytest.mark.registry
def test_schemas_are_compared_with_the_registry(
    embedded: str, apicurio: str, unique_prefix: str, topics: Callable[..., TopicNames]
) -> None:
    names = topics(embedded, unique_prefix, 1)

    def schemas(url: str) -> Check:
        checks = examine({"bootstrap.servers": embedded}, names.prefix, registry={"url": url}, listen_s=0.0)
        return _by_name(checks)["schemas"]

    assert schemas(apicurio).detail.startswith("Not in the registry: ")
    with SchemaRegistryClient({"url": apicurio}) as client:
        for topic in TOPICS:
            release = catalogue.latest(topic.record)
            assert release is not None
            client.register_schema(names.subject(topic), Schema(release.path.read_text(), "AVRO"))
    assert schemas(apicurio).ok

    (port,) = free_ports(1)
    unreachable = schemas(f"http://127.0.0.1:{port}")
    assert (unreachable.ok, unreachable.exit_code) == (False, 3)
