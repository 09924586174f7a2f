"""The topics as they should be and as they are: ``fuseboard topics plan`` and ``apply``.

The declaration is ``fuseboard_schemas.topics``. Nothing else in Fuseboard creates a topic.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from fuseboard_schemas.errors import FuseboardError, UnreachableError
from fuseboard_schemas.topics import TOPICS, Topic, TopicNames
from fuseboard_streams.kafka_errors import BrokerErrors, explain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from confluent_kafka import KafkaError
    from confluent_kafka.admin import ClusterMetadata

DEFAULT_PARTITIONS: Final = 12
BROKER_DEFAULT: Final = -1
"""As a replication factor: the broker's ``default.replication.factor``."""
_REQUEST_S: Final = 30.0
_SETTLE_S: Final = 5.0
_POLL_S: Final = 0.05


class ChangeKind(StrEnum):
    """In what a topic differs from its declaration."""

    CREATE = "create"
    CONFIG = "config"
    PARTITIONS = "partitions"


@dataclass(frozen=True, slots=True)
class Setting:
    """A topic setting that differs."""

    name: str
    current: str
    wanted: str


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between a topic and its declaration, and what became of it."""

    kind: ChangeKind
    topic: str
    """Full name."""
    detail: str
    """What differs, as a sentence."""
    settings: tuple[Setting, ...] = ()
    """For ``CONFIG``: each differing setting."""
    todo: str = ""
    """What a person has to do, if ``apply`` does not do it."""
    done: bool = False
    """Whether ``apply`` has made it so."""


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as the broker has it."""

    partitions: int
    replication: int
    config: Mapping[str, str]


class Admin:
    """An administrator's connection: confluent-kafka's client, with errors a person can use.

    Args:
        settings: librdkafka settings, ``bootstrap.servers`` among them.
        timeout_s: how long the broker may take to answer the first request.

    Raises:
        ConfigurationError: a setting is unusable, or the broker refuses the credentials or the TLS handshake.
        UnreachableError: no broker answers in time.
    """

    def __init__(self, settings: Mapping[str, Any], timeout_s: float = 5.0) -> None:
        self.settings = dict(settings)
        self._errors = BrokerErrors()
        try:
            config: dict[str, Any] = {"log_level": 0, **self.settings, "error_cb": self._errors}
            self.client = AdminClient(config)
        except KafkaException as error:
            raise self.explain(error, "while making a client") from error
        self._connect(timeout_s)

    def explain(self, error: Exception, doing: str) -> FuseboardError:
        """One of our errors for one of Kafka's."""
        return explain(error, doing, self.settings, self._errors.last)

    def metadata(self, timeout_s: float = _REQUEST_S) -> ClusterMetadata:
        """Brokers, topics and partitions.

        Raises:
            UnreachableError: no answer in time.
        """
        try:
            return self.client.list_topics(timeout=timeout_s)
        except KafkaException as error:
            raise self.explain(error, "while asking for metadata") from error

    def _connect(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self.client.list_topics(timeout=min(0.5, timeout_s))
            except KafkaException as error:
                # Refused credentials stay refused; anything else may be a broker that is still starting.
                self.client.poll(0)
                if self._errors.refused or time.monotonic() >= deadline:
                    raise self.explain(error, "while connecting") from error
            else:
                return


def observe(admin: Admin, names: TopicNames) -> dict[str, TopicState]:
    """The topics of a prefix that exist, by full name.

    Raises:
        FuseboardError: the broker does not say.
    """
    metadata = admin.metadata().topics
    found = [name for name in map(names.of, TOPICS) if name in metadata]
    configs = _configs(admin, found)
    return {
        name: TopicState(
            partitions=len(metadata[name].partitions),
            replication=min((len(p.replicas) for p in metadata[name].partitions.values()), default=0),
            config=configs[name],
        )
        for name in found
    }


def differences(names: TopicNames, found: Mapping[str, TopicState], partitions: int | None = None) -> list[Change]:
    """What differs from the declaration, in its order; pure.

    Args:
        names: the topics' full names.
        found: the topics that exist.
        partitions: the partition count all topics are to have; None means that of the topics that exist (the most
            frequent one), and 12 if there is none.
    """
    count = partitions or common_partitions(found) or DEFAULT_PARTITIONS
    changes: list[Change] = []
    for topic in TOPICS:
        name = names.of(topic)
        state = found.get(name)
        if state is None:
            changes.append(Change(ChangeKind.CREATE, name, f"does not exist; to be created with {count} partitions"))
            continue
        if state.partitions != count:
            changes.append(_partition_change(name, state.partitions, count))
        changes += _config_change(topic, name, state)
    return changes


def common_partitions(found: Mapping[str, TopicState]) -> int | None:
    """The partition count that most of the topics have (the larger one of two equally frequent); None without any."""
    counts = Counter(state.partitions for state in found.values())
    return max(counts, key=lambda count: (counts[count], count), default=None)


def plan(admin: Admin, prefix: str, partitions: int | None = None, replication: int = BROKER_DEFAULT) -> list[Change]:
    """What ``apply`` would do, and what it would leave to a person; changes nothing.

    Args:
        admin: the connection.
        prefix: what all topic names start with.
        partitions: see ``differences``.
        replication: copies of each partition of a topic to be created; checked by the broker.

    Raises:
        FuseboardError: the broker does not answer, or would refuse to create a topic as it is declared.
    """
    names = TopicNames(prefix)
    found = observe(admin, names)
    changes = differences(names, found, partitions)
    count = partitions or common_partitions(found) or DEFAULT_PARTITIONS
    _create(admin, names, _missing(names, changes), count, replication, dry_run=True)
    return changes


def apply(
    admin: Admin,
    prefix: str,
    partitions: int | None = None,
    replication: int = BROKER_DEFAULT,
    *,
    alter: bool = False,
) -> list[Change]:
    """Create the missing topics and, where asked, set differing settings; never touches a partition count.

    Args:
        admin: the connection.
        prefix: what all topic names start with.
        partitions: see ``differences``.
        replication: copies of each partition of a created topic.
        alter: also set the settings that differ.

    Returns:
        Every difference there was, with ``done`` set on those that are none any more.

    Raises:
        FuseboardError: the broker does not answer, or refuses.
    """
    names = TopicNames(prefix)
    found = observe(admin, names)
    changes = differences(names, found, partitions)
    missing = _missing(names, changes)
    count = partitions or common_partitions(found) or DEFAULT_PARTITIONS
    _create(admin, names, missing, count, replication)
    wait_until_usable(admin, [names.of(topic) for topic in missing])
    altered = [change for change in changes if change.kind is ChangeKind.CONFIG] if alter else []
    _alter(admin, altered)
    left = _left(admin, names, count, {change.topic for change in altered}) if changes else []
    # Somebody else may have created a topic meanwhile, in another way: that is a difference of its own.
    new = [change for change in left if change.topic in {names.of(topic) for topic in missing}]
    undone = {(change.topic, change.kind) for change in left}
    done = [(change, (change.topic, change.kind) not in undone) for change in changes]
    return [replace(change, done=True, todo="") if is_done else change for change, is_done in done] + new


def migration_advice(topic: str, current: int, wanted: int) -> str:
    """How to get from one partition count to another: a key's home must not move while state about it exists."""
    return (
        f"Every topic needs the same partition count, and it never changes once workers have state, because each "
        f"actor's home partition would move. If {topic} holds nothing yet, delete it and run `fuseboard topics apply` "
        f"again. Otherwise either keep {current} (--partitions {current}) or migrate: create all topics with {wanted} "
        "partitions under a new --prefix, start a worker there, move the agents over, and stop the old worker once its "
        "lag is 0."
    )


def _partition_change(name: str, current: int, wanted: int) -> Change:
    return Change(
        ChangeKind.PARTITIONS,
        name,
        f"has {current} partitions where {wanted} were expected",
        todo=migration_advice(name, current, wanted),
    )


def _config_change(topic: Topic, name: str, state: TopicState) -> list[Change]:
    settings = tuple(
        Setting(key, state.config.get(key, "(not reported)"), wanted)
        for key, wanted in topic.config.items()
        if not _same(key, state.config.get(key), wanted)
    )
    if not settings:
        return []
    detail = ", ".join(f"{each.name} is {each.current} instead of {each.wanted}" for each in settings)
    return [Change(ChangeKind.CONFIG, name, detail, settings, todo="Run `fuseboard topics apply --alter`.")]


def _same(key: str, current: str | None, wanted: str) -> bool:
    if key == "cleanup.policy" and current is not None:
        return set(current.replace(" ", "").split(",")) == set(wanted.split(","))
    return current == wanted


def _missing(names: TopicNames, changes: Iterable[Change]) -> list[Topic]:
    wanted = {change.topic for change in changes if change.kind is ChangeKind.CREATE}
    return [topic for topic in TOPICS if names.of(topic) in wanted]


def _configs(admin: Admin, topics: Sequence[str]) -> dict[str, dict[str, str]]:
    if not topics:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in topics]
    futures = admin.client.describe_configs(resources, request_timeout=_REQUEST_S)
    configs: dict[str, dict[str, str]] = {}
    for resource, future in futures.items():
        try:
            entries = future.result(_REQUEST_S)
        except KafkaException as error:
            raise admin.explain(error, f"while reading the settings of {resource.name}") from error
        configs[resource.name] = {key: str(entry.value) for key, entry in entries.items()}
    return configs


def _create(
    admin: Admin,
    names: TopicNames,
    topics: Sequence[Topic],
    partitions: int,
    replication: int,
    *,
    dry_run: bool = False,
) -> None:
    if not topics:
        return
    new = [
        NewTopic(names.of(topic), num_partitions=partitions, replication_factor=replication, config=topic.config)
        for topic in topics
    ]
    futures = admin.client.create_topics(
        new, operation_timeout=_REQUEST_S, request_timeout=_REQUEST_S, validate_only=dry_run
    )
    for name, future in futures.items():
        try:
            future.result(_REQUEST_S)
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            # Another `apply` at the same time is not an error.
            if reason.name() != "TOPIC_ALREADY_EXISTS":
                raise admin.explain(error, f"while creating {name}") from error


def wait_until_usable(admin: Admin, topics: Iterable[str]) -> None:
    """Wait until clients can read and write new topics.

    The controller confirms a creation before the broker has heard of it, and the broker names a leader before that
    leader has opened its log; a client that comes in between gets errors that look like a missing topic.

    Raises:
        UnreachableError: a partition has no working leader after 30 s.
    """
    deadline = time.monotonic() + _REQUEST_S
    waiting = list(topics)
    while waiting:
        waiting = _unusable(admin, waiting)
        if waiting and time.monotonic() > deadline:
            raise UnreachableError(
                f"Created, but without a leader after {_REQUEST_S:.0f} s: {', '.join(waiting)}. The cluster is "
                "probably short of live brokers: check them and run `fuseboard topics plan`."
            )
        if waiting:
            time.sleep(_POLL_S)


def _unusable(admin: Admin, topics: Sequence[str]) -> list[str]:
    metadata = admin.metadata().topics
    partitions = {name: list(metadata[name].partitions) if name in metadata else [] for name in topics}
    asked = {
        TopicPartition(name, number): OffsetSpec.latest() for name, numbers in partitions.items() for number in numbers
    }
    answers = admin.client.list_offsets(asked, request_timeout=_REQUEST_S) if asked else {}
    failed = {name for name, numbers in partitions.items() if not numbers}
    for partition, future in answers.items():
        try:
            future.result(_REQUEST_S)
        except KafkaException:
            failed.add(partition.topic)
    return [name for name in topics if name in failed]


def _left(admin: Admin, names: TopicNames, partitions: int, altered: set[str]) -> list[Change]:
    """What still differs, once the broker we ask has heard of the settings that the controller has confirmed."""
    deadline = time.monotonic() + _SETTLE_S
    while True:
        left = differences(names, observe(admin, names), partitions)
        waiting = any(change.kind is ChangeKind.CONFIG and change.topic in altered for change in left)
        if not waiting or time.monotonic() > deadline:
            return left
        time.sleep(_POLL_S)


def _alter(admin: Admin, changes: Sequence[Change]) -> None:
    if not changes:
        return
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            change.topic,
            incremental_configs=[
                ConfigEntry(each.name, each.wanted, incremental_operation=AlterConfigOpType.SET)
                for each in change.settings
            ],
        )
        for change in changes
    ]
    futures = admin.client.incremental_alter_configs(resources, request_timeout=_REQUEST_S)
    for resource, future in futures.items():
        try:
            future.result(_REQUEST_S)
        except KafkaException as error:
            raise admin.explain(error, f"while setting the configuration of {resource.name}") from error
