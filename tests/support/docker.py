"""Servers as Docker containers, through the ``docker`` program: used where a daemon answers."""

from __future__ import annotations

import functools
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from fuseboard_schemas.errors import UnreachableError
from fuseboard_streams.embedded import free_ports
from tests.support.maven import KAFKA_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

_SETTINGS: dict[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "controller.quorum.voters": "1@localhost:9093",
    "listeners": "PLAINTEXT://0.0.0.0:9092,CONTROLLER://localhost:9093",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
}


@functools.cache
def available() -> bool:
    """Whether a Docker daemon answers."""
    if shutil.which("docker") is None:
        return False
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


class DockerKafka:
    """One Apache Kafka node in a container, with the methods of ``ApacheKafka``."""

    def __init__(self, *, properties: Mapping[str, str] | None = None, start_timeout_s: float = 120.0) -> None:
        self._properties = dict(properties or {})
        self._start_timeout_s = start_timeout_s
        self._port = free_ports(1)[0]
        self._container: str | None = None

    @property
    def bootstrap(self) -> str:
        """The address for ``bootstrap.servers``."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> Self:
        """Create the container the first time, start it, and wait until the broker answers."""
        if self._container is None:
            settings = {**_SETTINGS, "advertised.listeners": f"PLAINTEXT://{self.bootstrap}", **self._properties}
            variables = [
                part
                for key, value in settings.items()
                for part in ("-e", f"KAFKA_{key.upper().replace('.', '_')}={value}")
            ]
            image = f"apache/kafka:{KAFKA_VERSION}"
            self._container = docker("create", "-p", f"127.0.0.1:{self._port}:9092", *variables, image)
        docker("start", self._container)
        self._wait()
        return self

    def stop(self) -> None:
        """Remove the container and its data."""
        if self._container is not None:
            docker("rm", "-f", "-v", self._container)
            self._container = None

    def kill(self) -> None:
        """SIGKILL; ``start`` brings it back with the same data."""
        docker("kill", self._name())

    def restart(self) -> Self:
        """Stop it in order and start it on the same port and data."""
        docker("stop", self._name())
        return self.start()

    def suspend(self) -> None:
        """Freeze it: it stays connected and says nothing."""
        docker("pause", self._name())

    def resume(self) -> None:
        """Thaw it after ``suspend``."""
        docker("unpause", self._name())

    def _name(self) -> str:
        if self._container is None:
            raise UnreachableError("Apache Kafka's container has not been started: call start() first.")
        return self._container

    def _wait(self) -> None:
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        deadline = time.monotonic() + self._start_timeout_s
        while time.monotonic() < deadline:
            try:
                if admin.list_topics(timeout=1.0).brokers:
                    return
            except KafkaException:
                continue
        raise UnreachableError(f"Apache Kafka's container {self._container} does not answer at {self.bootstrap}.")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def docker(*arguments: str) -> str:
    """Run ``docker`` and return what it prints.

    Raises:
        UnreachableError: it fails; the message holds what it said.
    """
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnreachableError(f"docker {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout.strip()
