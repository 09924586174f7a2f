"""What the demo runs on: a broker, the topics, and a worker process."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaException

from fuseboard_schemas.errors import FuseboardError
from fuseboard_schemas.topics import PREFIX, TOPICS, TopicNames
from fuseboard_streams import admin
from fuseboard_streams.cli.config import Connection, connect
from fuseboard_streams.embedded import EmbeddedBroker, ServerProcess
from fuseboard_streams.rules.compile import PACKAGED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fuseboard_streams.core.settings import CoreSettings

PARTITIONS: Final = 4
_WORKER: Final = "from fuseboard_streams.cli import main; main()"
_TAIL_S: Final = 0.05
_DELETE_S: Final = 20.0


class WorkerDiedError(FuseboardError):
    """The worker process has ended although nobody stopped it."""


@dataclass(slots=True)
class Servers:
    """A running broker and worker."""

    connection: Connection
    names: TopicNames
    group: str
    worker: ServerProcess
    embedded: bool

    @property
    def broker(self) -> str:
        """What to call the broker."""
        return "embedded" if self.embedded else self.connection.bootstrap

    def check(self) -> None:
        """Raise if the worker has ended.

        Raises:
            WorkerDiedError: With the end of its log.
        """
        if not self.worker.running:
            raise WorkerDiedError(
                f"The worker (process {self.worker.pid}) ended in the middle of the demo, which it never should. Its "
                f"log ends with:\n{self.worker.log_tail()}"
            )


@contextlib.contextmanager
def running(bootstrap: str | None, core: CoreSettings, tell: Callable[[str], None]) -> Iterator[Servers]:
    """Start all that is needed, and take it away again at the end.

    On brokers that are not ours the topics get a prefix of their own and are deleted at the end.

    Args:
        bootstrap: Brokers to use; None starts an embedded one.
        core: The worker's settings of detection and breakers that differ from the defaults.
        tell: Takes a word about what is being started.

    Raises:
        FuseboardError: Something does not start, or the broker cannot be reached.
    """
    with contextlib.ExitStack() as stack:
        # The last to go, so that logs are there to be shown until everything has stopped.
        folder = Path(tempfile.mkdtemp(prefix="fuseboard-demo-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        token = secrets.token_hex(3)
        if bootstrap is None:
            tell("starting an embedded broker")
            address = stack.enter_context(EmbeddedBroker()).bootstrap
            connection = Connection(bootstrap=address)
        else:
            connection = connect(bootstrap, f"{PREFIX}demo-{token}.", (), {})
        names, group = TopicNames(connection.prefix), f"fuseboard-demo-{token}"
        tell("creating the topics")
        client = admin.Admin(connection.client_settings())
        if bootstrap is not None:
            stack.callback(_remove, client, names, group)
        admin.apply(client, connection.prefix, PARTITIONS)
        tell("starting a worker")
        worker = _start_worker(connection, group, core, folder)
        stack.callback(worker.stop)
        yield Servers(connection, names, group, worker, bootstrap is None)


def demo_rules(cooldown_us: int) -> str:
    """The packaged rules with another cooldown."""
    usual = "cooldown: 30s,"
    text = PACKAGED.read_text(encoding="utf-8")
    if usual not in text:
        raise AssertionError("the packaged rules name no cooldown")
    return text.replace(usual, f"cooldown: {cooldown_us // 1_000}ms,")


def _start_worker(connection: Connection, group: str, core: CoreSettings, folder: Path) -> ServerProcess:
    settings = folder / "fuseboard.toml"
    rules = folder / "fuseboard.yaml"
    rules.write_text(demo_rules(core.breaker.base_cooldown_us))
    settings.write_text(
        "[kafka]\n" + "".join(f"{json.dumps(key)} = {json.dumps(value)}\n" for key, value in connection.kafka.items())
    )
    # Client settings may hold a password.
    settings.chmod(0o600)
    command = [
        *(sys.executable, "-c", _WORKER, "worker", "--config", str(settings)),
        *("--bootstrap", connection.bootstrap, "--prefix", connection.prefix),
        *("--group", group, "--instance-id", f"{group}-1", "--worker-id", "demo-worker"),
        *("--rules", str(rules), "--http-port", "0", "--log-format", "json", "--log-level", "debug"),
    ]
    # What is set for the workers of this machine is not meant for this one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FUSEBOARD_")}
    return ServerProcess("The worker", command, folder / "worker.log", env=environment, temporary=folder)


def _remove(client: admin.Admin, names: TopicNames, group: str) -> None:
    topics = [names.of(topic) for topic in TOPICS]
    futures = list(client.client.delete_topics(topics, operation_timeout=_DELETE_S).values())
    futures += list(client.client.delete_consumer_groups([group], request_timeout=_DELETE_S).values())
    for future in futures:
        with contextlib.suppress(KafkaException):
            future.result(_DELETE_S)


class LogReader:
    """Follows the worker's structured log on a thread.

    Args:
        path: The log.
        take: Takes each entry, on the thread.
    """

    def __init__(self, path: Path, take: Callable[[dict[str, Any]], None]) -> None:
        self._path = path
        self._take = take
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker-log", daemon=True)

    def __enter__(self) -> LogReader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with self._path.open(encoding="utf-8", errors="replace") as log:
            rest = ""
            while not self._stop.is_set():
                rest += log.read()
                *lines, rest = rest.split("\n")
                for line in lines:
                    self._line(line)
                self._stop.wait(_TAIL_S)

    def _line(self, line: str) -> None:
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                self._take(entry)
