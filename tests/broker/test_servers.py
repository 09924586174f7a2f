"""The servers that the tests rest on do what the tests rest on."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from confluent_kafka import Consumer, IsolationLevel, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from fuseboard_streams.embedded import EmbeddedBroker
from tests.support.brokers import delete_topics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.brokers import KafkaServer

QUIET = {"log_level": 0}


@pytest.fixture
def topic(broker: str, unique_prefix: str) -> Iterator[str]:
    name = f"{unique_prefix}events"
    admin = AdminClient({"bootstrap.servers": broker, **QUIET})
    admin.create_topics([NewTopic(name, 2, 1, config={"message.timestamp.type": "LogAppendTime"})])[name].result(30)
    yield name
    delete_topics(broker, unique_prefix)


def _producer(broker: str, transactional_id: str) -> Producer:
    producer = Producer({"bootstrap.servers": broker, "transactional.id": transactional_id, **QUIET})
    producer.init_transactions(30)
    return producer


def _send(producer: Producer, topic: str, value: bytes) -> None:
    for partition in (0, 1):
        producer.produce(topic, value, key=b"k", partition=partition)


def _read_to_end(broker: str, topic: str, isolation: str) -> list[bytes | None]:
    settings = {"bootstrap.servers": broker, "group.id": "reader", "enable.auto.commit": False}
    consumer = Consumer({**settings, "isolation.level": isolation, "enable.partition.eof": True, **QUIET})
    consumer.assign([TopicPartition(topic, 0, 0)])
    values: list[bytes | None] = []
    while True:
        message = consumer.poll(30)
        assert message is not None
        if message.error():
            consumer.close()
            return values
        values.append(message.value())


def _end(broker: str, topic: str, isolation: IsolationLevel) -> int:
    admin = AdminClient({"bootstrap.servers": broker, **QUIET})
    partition = TopicPartition(topic, 0)
    found = admin.list_offsets({partition: OffsetSpec.latest()}, isolation_level=isolation)
    return int(found[partition].result(30).offset)


def test_only_committed_transactions_are_read_committed(broker: str, topic: str) -> None:
    producer = _producer(broker, f"{topic}-writer")
    for value, finish in ((b"1", producer.commit_transaction), (b"2", producer.abort_transaction)):
        producer.begin_transaction()
        _send(producer, topic, value)
        producer.flush(30)
        finish(30)
    assert _read_to_end(broker, topic, "read_committed") == [b"1"]
    assert _read_to_end(broker, topic, "read_uncommitted") == [b"1", b"2"]


def test_an_open_transaction_holds_the_stable_offset_until_its_writer_is_fenced(broker: str, topic: str) -> None:
    first = _producer(broker, f"{topic}-writer")
    first.begin_transaction()
    _send(first, topic, b"open")
    assert first.flush(30) == 0
    assert _end(broker, topic, IsolationLevel.READ_COMMITTED) == 0
    assert _end(broker, topic, IsolationLevel.READ_UNCOMMITTED) == 1

    _producer(broker, f"{topic}-writer")

    end = _end(broker, topic, IsolationLevel.READ_UNCOMMITTED)
    assert end == _end(broker, topic, IsolationLevel.READ_COMMITTED) > 1
    with pytest.raises(KafkaException, match="fenced"):
        first.commit_transaction(30)


@pytest.mark.registry
def test_the_registry_answers_the_confluent_api(apicurio: str) -> None:
    with urllib.request.urlopen(f"{apicurio}/subjects", timeout=30) as answer:
        assert isinstance(json.load(answer), list)


def test_the_embedded_broker_finds_its_data_again_after_a_restart(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as server:
        producer = _producer(server.bootstrap, "writer")
        admin = AdminClient({"bootstrap.servers": server.bootstrap, **QUIET})
        admin.create_topics([NewTopic("kept", 2, 1)])["kept"].result(30)
        producer.begin_transaction()
        _send(producer, "kept", b"1")
        producer.commit_transaction(30)
        before = server.bootstrap
        server.restart()
        assert server.bootstrap == before
        assert _read_to_end(server.bootstrap, "kept", "read_committed") == [b"1"]


def test_no_server_outlives_an_owner_that_was_killed() -> None:
    program = (
        "import sys; from fuseboard_streams.embedded import EmbeddedBroker\n"
        "with EmbeddedBroker() as broker:\n"
        "    print(broker.pid, broker.log.parent, flush=True); sys.stdin.read()\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdout is not None
        pid, folder = owner.stdout.readline().split()
        server, started = psutil.Process(int(pid)), psutil.Process(owner.pid).children()
        assert server in started
        assert Path(folder).is_dir()
        owner.kill()
    _, left = psutil.wait_procs(started, timeout=30)
    assert not left
    assert not Path(folder).exists()


@pytest.mark.kafka
def test_a_kafka_of_ones_own_keeps_its_address_and_data_over_a_restart(own_kafka: KafkaServer) -> None:
    producer = _producer(own_kafka.bootstrap, "writer")
    admin = AdminClient({"bootstrap.servers": own_kafka.bootstrap, **QUIET})
    admin.create_topics([NewTopic("kept", 2, 1)])["kept"].result(30)
    producer.begin_transaction()
    _send(producer, "kept", b"1")
    producer.commit_transaction(30)
    before = own_kafka.bootstrap
    own_kafka.suspend()
    own_kafka.resume()
    own_kafka.restart()
    assert own_kafka.bootstrap == before
    assert _read_to_end(own_kafka.bootstrap, "kept", "read_committed") == [b"1"]
