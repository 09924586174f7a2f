"""Apache Kafka as a child process: one KRaft node on loopback, for tests, kill tests and benchmarks.

>>> with ApacheKafka() as kafka:                # doctest: +SKIP
...     run(bootstrap=kafka.bootstrap)
...     kafka.kill()                            # SIGKILL
...     kafka.start()                           # same port, same data
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Self

from fuseboard_schemas.errors import UnreachableError
from fuseboard_streams.embedded import ServerProcess, free_ports, wait_until_answering
from tests.support.maven import java, kafka_jars

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

_LOGGING = """<Configuration status="ERROR">
  <Appenders><Console name="out"><PatternLayout pattern="%d{HH:mm:ss.SSS} %p %c{1} %m%n"/></Console></Appenders>
  <Loggers><Root level="WARN"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"""

_SINGLE_NODE: dict[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # The cleaner would take 128 MB of the heap; its work here is small.
    "log.cleaner.dedupe.buffer.size": "16777216",
}


_STORE_PASSWORD = "only-for-a-test"


class ApacheKafka:
    """One Apache Kafka node, broker and controller in one process, as a context manager.

    Args:
        heap_mb: the JVM's largest heap, in megabytes.
        properties: broker settings on top of the single-node ones.
        data_dir: where data and log live; kept if given, else a temporary folder that goes with ``stop``.
        start_timeout_s: how long it may take to answer.
        jvm: further options for the JVM.
        users: passwords by name; with any, there is a second listener that wants TLS and SASL/PLAIN.
    """

    def __init__(
        self,
        *,
        heap_mb: int = 1024,
        properties: Mapping[str, str] | None = None,
        data_dir: Path | None = None,
        start_timeout_s: float = 60.0,
        jvm: tuple[str, ...] = (),
        users: Mapping[str, str] | None = None,
    ) -> None:
        self._heap_mb = heap_mb
        self._properties = dict(properties or {})
        self._given_dir = data_dir
        self._start_timeout_s = start_timeout_s
        self._jvm = jvm
        self._users = dict(users or {})
        self._dir: Path | None = None
        self._ports: tuple[int, int, int] | None = None
        self._server: ServerProcess | None = None

    @property
    def bootstrap(self) -> str:
        """The address for ``bootstrap.servers``; known once started."""
        if self._ports is None:
            raise UnreachableError("Apache Kafka has not been started: call start() first.")
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def secure_bootstrap(self) -> str:
        """The address of the listener that wants TLS and a password; known once started."""
        assert self._ports is not None
        return f"127.0.0.1:{self._ports[2]}"

    @property
    def ca(self) -> Path:
        """The certificate that signs the listener's, as PEM."""
        return self._folder() / "ca.pem"

    @property
    def pid(self) -> int:
        """The broker's process id."""
        if self._server is None:
            raise UnreachableError("Apache Kafka is not running: call start() first.")
        return self._server.pid

    @property
    def log(self) -> Path:
        """The file with the broker's warnings and errors."""
        return self._folder() / "kafka.log"

    def start(self) -> Self:
        """Start it, formatting its storage the first time, and wait until it answers.

        Raises:
            tests.support.maven.Unavailable: no Java, or no jars and no Maven to fetch them.
            UnreachableError: it does not start; the message holds the end of its log.
        """
        if self._server is not None:
            return self
        java(), kafka_jars()
        folder = self._folder()
        if self._ports is None:
            ports = free_ports(3)
            self._ports = (ports[0], ports[1], ports[2])
            self._format(folder)
        server = ServerProcess(
            "Apache Kafka",
            [*self._java(), "kafka.Kafka", str(folder / "server.properties")],
            self.log,
            temporary=folder if self._given_dir is None else None,
        )
        try:
            wait_until_answering(server, self._ports[0], self._start_timeout_s)
        except BaseException:
            server.kill()
            raise
        self._server = server
        return self

    def stop(self) -> None:
        """Stop it in order and remove its temporary folder."""
        self._halt()
        if self._dir is not None and self._given_dir is None:
            shutil.rmtree(self._dir, ignore_errors=True)
            self._dir, self._ports = None, None

    def kill(self) -> None:
        """SIGKILL; ``start`` brings it back on the same port with the same data."""
        if self._server is not None:
            self._server.kill()
            self._server = None

    def restart(self) -> Self:
        """Stop it in order and start it on the same port and data."""
        self._halt()
        return self.start()

    def suspend(self) -> None:
        """SIGSTOP: it stays connected and says nothing."""
        if self._server is not None:
            self._server.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after ``suspend``."""
        if self._server is not None:
            self._server.signal(signal.SIGCONT)

    def _halt(self) -> None:
        if self._server is not None:
            self._server.stop(timeout_s=30.0)
            self._server = None

    def _folder(self) -> Path:
        if self._dir is None:
            self._dir = self._given_dir or Path(tempfile.mkdtemp(prefix="fuseboard-kafka-"))
            self._dir.mkdir(parents=True, exist_ok=True)
        return self._dir

    def _java(self) -> list[str]:
        # The collector's settings are those of Kafka's own start script.
        return [
            java(),
            f"-Xmx{self._heap_mb}m",
            "-XX:+UseG1GC",
            "-XX:MaxGCPauseMillis=20",
            "-XX:InitiatingHeapOccupancyPercent=35",
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={self._folder() / 'log4j2.xml'}",
            *self._jvm,
            "-cp",
            f"{kafka_jars()}{os.sep}*",
        ]

    def _format(self, folder: Path) -> None:
        assert self._ports is not None
        broker, controller, secure = self._ports
        settings = {
            **_SINGLE_NODE,
            "listeners": f"PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{broker}",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "log.dirs": str(folder / "data"),
            **(self._secure(folder, broker, controller, secure) if self._users else {}),
            **self._properties,
        }
        properties = folder / "server.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        (folder / "log4j2.xml").write_text(_LOGGING)
        cluster = uuid.uuid4().hex[:22]
        command = [*self._java(), "kafka.tools.StorageTool", "format", "--ignore-formatted"]
        done = subprocess.run(
            [*command, "-t", cluster, "-c", str(properties)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise UnreachableError(f"Apache Kafka's storage could not be formatted: {done.stdout}{done.stderr}")

    def _secure(self, folder: Path, broker: int, controller: int, secure: int) -> dict[str, str]:
        """The settings of a listener with a certificate of its own and passwords."""
        store = ["-keystore", str(folder / "keys.p12"), "-storetype", "PKCS12", "-storepass", _STORE_PASSWORD]
        names = ["-dname", "CN=127.0.0.1", "-ext", "SAN=IP:127.0.0.1", "-ext", "BC=ca:true", "-validity", "2"]
        for command in (
            ["-genkeypair", "-alias", "broker", "-keyalg", "RSA", "-keysize", "2048", *names, *store],
            ["-exportcert", "-alias", "broker", "-rfc", "-file", str(self.ca), *store],
        ):
            subprocess.run([str(Path(java()).with_name("keytool")), *command], check=True, capture_output=True)
        users = " ".join(f'user_{name}="{password}"' for name, password in self._users.items())
        listener = "listener.name.secure"
        return {
            "listeners": (
                f"PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller},SECURE://127.0.0.1:{secure}"
            ),
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{broker},SECURE://127.0.0.1:{secure}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL",
            f"{listener}.sasl.enabled.mechanisms": "PLAIN",
            f"{listener}.plain.sasl.jaas.config": (
                f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
            ),
            f"{listener}.ssl.keystore.location": str(folder / "keys.p12"),
            f"{listener}.ssl.keystore.type": "PKCS12",
            f"{listener}.ssl.keystore.password": _STORE_PASSWORD,
            f"{listener}.ssl.key.password": _STORE_PASSWORD,
        }

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
