"""Topics are planned, created and compared with their declaration, on each broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import NewTopic

from fuseboard_schemas.errors import ConfigurationError, FuseboardError, UnreachableError
from fuseboard_schemas.topics import TOPICS, TopicNames
from fuseboard_streams.admin import Admin, Change, ChangeKind, apply, observe, plan, wait_until_usable
from fuseboard_streams.embedded import free_ports
from tests.support.brokers import delete_topics

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def prefix(broker: str, unique_prefix: str) -> Iterator[str]:
    yield unique_prefix
    delete_topics(broker, unique_prefix)


def _connect(broker: str) -> Admin:
    return Admin({"bootstrap.servers": broker})


def _make(admin: Admin, name: str, partitions: int, config: dict[str, str]) -> None:
    admin.client.create_topics([NewTopic(name, partitions, 1, config=config)], operation_timeout=30)[name].result(30)
    wait_until_usable(admin, [name])


def test_every_topic_is_planned_then_created_then_as_declared(broker: str, prefix: str) -> None:
    admin, names = _connect(broker), TopicNames(prefix)
    planned = plan(admin, prefix, partitions=3)
    assert [(change.kind, change.topic) for change in planned] == [(ChangeKind.CREATE, names.of(t)) for t in TOPICS]
    assert observe(admin, names) == {}

    applied = apply(admin, prefix, partitions=3)

    assert [change.done for change in applied] == [True] * len(TOPICS)
    assert plan(admin, prefix, partitions=3) == []
    assert plan(admin, prefix) == []
    found = observe(admin, names)
    assert {state.partitions for state in found.values()} == {3}
    assert {state.config["message.timestamp.type"] for state in found.values()} == {"LogAppendTime"}
    assert apply(admin, prefix, partitions=3) == []


def test_missing_topics_get_the_partition_count_of_those_that_exist(broker: str, prefix: str) -> None:
    admin, names = _connect(broker), TopicNames(prefix)
    tool_calls = TOPICS[0]
    _make(admin, names.of(tool_calls), 5, tool_calls.config)
    apply(admin, prefix)
    assert {state.partitions for state in observe(admin, names).values()} == {5}


def test_a_different_partition_count_is_reported_and_left_alone(broker: str, prefix: str) -> None:
    admin, names = _connect(broker), TopicNames(prefix)
    tool_calls = TOPICS[0]
    _make(admin, names.of(tool_calls), 2, tool_calls.config)
    (change,) = [each for each in apply(admin, prefix, partitions=3, alter=True) if each.kind is ChangeKind.PARTITIONS]
    assert (change.topic, change.done) == (names.tool_calls, False)
    assert change.detail == "has 2 partitions where 3 were expected"
    assert "migrate" in change.todo
    assert observe(admin, names)[names.tool_calls].partitions == 2


def test_different_settings_are_altered_only_when_asked(broker: str, prefix: str) -> None:
    admin, names = _connect(broker), TopicNames(prefix)
    _make(admin, names.state, 3, {"retention.ms": "60000"})

    def differing(changes: list[Change]) -> dict[str, tuple[str, str]]:
        return {
            setting.name: (setting.current, setting.wanted)
            for change in changes
            if change.kind is ChangeKind.CONFIG
            for setting in change.settings
        }

    first = differing(apply(admin, prefix))
    assert first["retention.ms"] == ("60000", "-1")
    assert first["message.timestamp.type"] == ("CreateTime", "LogAppendTime")
    assert set(first) <= {"retention.ms", "message.timestamp.type", "max.message.bytes"}
    assert differing(plan(admin, prefix)) == first
    apply(admin, prefix, alter=True)
    assert plan(admin, prefix) == []


def test_a_replication_factor_beyond_the_brokers_is_refused_with_the_topic_named(
    apache_kafka: str, unique_prefix: str
) -> None:
    with pytest.raises(FuseboardError, match=f"while creating {unique_prefix}"):
        plan(_connect(apache_kafka), unique_prefix, partitions=1, replication=99)


def test_an_unreachable_broker_is_named_in_one_paragraph() -> None:
    (port,) = free_ports(1)
    with pytest.raises(UnreachableError, match=rf"127\.0\.0\.1:{port}.*Connection refused.*--bootstrap") as raised:
        Admin({"bootstrap.servers": f"127.0.0.1:{port}"}, timeout_s=1.0)
    assert "\n" not in str(raised.value)


def test_an_unknown_setting_is_named_and_a_secret_is_not() -> None:
    with pytest.raises(ConfigurationError, match=r'"no\.such"'):
        Admin({"bootstrap.servers": "localhost:1", "no.such": "1"})
    secret = {"security.protocol": "SSL", "ssl.key.pem": "-----hush-----"}
    with pytest.raises(ConfigurationError) as raised:
        Admin({"bootstrap.servers": "localhost:1", **secret})
    assert "hush" not in str(raised.value)
