"""Fixtures: the servers that tests run against, and topics of their own on them.

A server that cannot be had on this machine skips the tests that need it, naming what is missing; where the
environment variable CI is set it fails them instead, because a guarantee that is not tested there is tested nowhere.
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar, cast

import pytest
from confluent_kafka.admin import AdminClient

from fuseboard_streams.embedded import EmbeddedBroker
from tests.support import docker
from tests.support.apicurio_server import Apicurio
from tests.support.kafka_server import ApacheKafka
from tests.support.maven import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fuseboard_schemas.topics import TopicNames

_RUN = secrets.token_hex(3)
_COUNT = itertools.count()


class KafkaServer(Protocol):
    """An Apache Kafka that a test may stop and start."""

    @property
    def bootstrap(self) -> str:
        """The address for ``bootstrap.servers``; it stays the same over restarts."""

    def start(self) -> object:
        """Start it and wait until it answers."""

    def stop(self) -> None:
        """Stop it and remove its data."""

    def kill(self) -> None:
        """SIGKILL; ``start`` brings it back with the same data."""

    def restart(self) -> object:
        """Stop it in order and start it with the same data."""

    def suspend(self) -> None:
        """Freeze it."""

    def resume(self) -> None:
        """Thaw it."""


S = TypeVar("S", bound=KafkaServer)


def missing(what: str, reason: object) -> NoReturn:
    """Skip the test for want of a server, or fail it in CI."""
    message = f"{what} is not available: {reason}"
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def new_kafka(**properties: str) -> KafkaServer:
    """An Apache Kafka of one's own, not started: in Docker if a daemon answers, else from Maven Central.

    Args:
        properties: broker settings, with ``__`` for each dot.
    """
    settings = {key.replace("__", "."): value for key, value in properties.items()}
    if docker.available():
        return docker.DockerKafka(properties=settings)
    return ApacheKafka(properties=settings)


@contextmanager
def started(server: S) -> Iterator[S]:
    """A server that runs for the length of the block; where it cannot, the test is skipped, or fails in CI."""
    try:
        server.start()
    except Unavailable as reason:
        missing("Apache Kafka", reason)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def apache_kafka() -> Iterator[str]:
    """The bootstrap address of an Apache Kafka: FUSEBOARD_TEST_BOOTSTRAP's, else one started for this session."""
    given = os.environ.get("FUSEBOARD_TEST_BOOTSTRAP")
    if given:
        yield given
        return
    with started(new_kafka()) as server:
        yield server.bootstrap


@pytest.fixture
def own_kafka() -> Iterator[KafkaServer]:
    """A started Apache Kafka for one test, which may kill, suspend and restart it."""
    with started(new_kafka()) as server:
        yield server


@pytest.fixture(scope="session")
def embedded() -> Iterator[str]:
    """The bootstrap address of an embedded broker started for this session."""
    with EmbeddedBroker() as broker:
        yield broker.bootstrap


@pytest.fixture(
    scope="session",
    params=[
        pytest.param("embedded", marks=pytest.mark.broker),
        pytest.param("kafka", marks=[pytest.mark.broker, pytest.mark.kafka]),
    ],
)
def broker(request: pytest.FixtureRequest) -> str:
    """The bootstrap address of each broker there is: a test that uses it runs once on every one."""
    fixture = {"embedded": "embedded", "kafka": "apache_kafka"}[request.param]
    return cast("str", request.getfixturevalue(fixture))


@pytest.fixture(scope="session")
def apicurio() -> Iterator[str]:
    """The address of a schema registry's Confluent API, one for the session: use subjects of your own."""
    server = Apicurio()
    try:
        server.start()
    except Unavailable as reason:
        missing("Apicurio Registry", reason)
    try:
        yield server.url
    finally:
        server.stop()


def new_prefix(name: str = "t") -> str:
    """A topic prefix that nothing else uses, on this broker or in an earlier run."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]
    return f"{slug}-{_RUN}-{next(_COUNT)}."


@pytest.fixture
def unique_prefix(request: pytest.FixtureRequest) -> str:
    """A topic prefix of this test's own, with its name in it."""
    return new_prefix(request.node.name)


def create_topics(bootstrap: str, prefix: str, partitions: int = 4) -> TopicNames:
    """Create all topics under ``prefix`` as ``fuseboard topics apply`` does, and return their names."""
    from fuseboard_schemas.topics import TopicNames
    from fuseboard_streams import admin

    admin.apply(admin.Admin({"bootstrap.servers": bootstrap}), prefix, partitions=partitions, replication=1)
    return TopicNames(prefix)


def delete_topics(bootstrap: str, prefix: str) -> None:
    """Delete every topic whose name starts with ``prefix``."""
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    names = [name for name in client.list_topics(timeout=10).topics if name.startswith(prefix)]
    for future in client.delete_topics(names).values() if names else ():
        future.result(30)


@pytest.fixture
def topics() -> Iterator[Callable[..., TopicNames]]:
    """``topics(bootstrap, prefix, partitions=4)`` creates all topics and returns their names; the test's end deletes
    them."""
    made: list[tuple[str, str]] = []

    def make(bootstrap: str, prefix: str, partitions: int = 4) -> TopicNames:
        made.append((bootstrap, prefix))
        return create_topics(bootstrap, prefix, partitions)

    yield make
    for bootstrap, prefix in made:
        delete_topics(bootstrap, prefix)
