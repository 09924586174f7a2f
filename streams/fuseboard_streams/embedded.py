"""The embedded broker: a Kafka that needs neither Docker nor a JVM, for the demo, for development and for tests.

It is ``noida-db`` (MIT licence, extra ``demo``), one binary that speaks the Kafka protocol on loopback and keeps its
data in a folder. The code that runs against it is the code that runs against Apache Kafka; only the address differs.

What it does as Apache Kafka does (tried with 0.2.3): several partitions, murmur2 placement by the client,
transactions over several partitions with ``read_committed`` and ``read_uncommitted`` consumers, ``list_offsets`` under
either isolation level (an open transaction holds the stable offset back), fencing of an older producer with the same
transactional id (its open transaction is aborted), offsets inside a transaction, classic consumer groups with the
``range`` assignor and static membership, ``LogAppendTime``, ``create_topics`` with checked configuration names,
``describe_configs`` and ``incremental_alter_configs``, ``delete_records``, ``max.message.bytes`` per topic.

Where it differs, and what therefore only Apache Kafka can prove:

- A member of a group that dies without leaving (SIGKILL) is never expelled, ``session.timeout.ms`` or not: its
  partitions stay unread. A member restarted with the same ``group.instance.id`` takes its place at once, so workers on
  this broker should have one (``--instance-id``).
- ``transaction.timeout.ms`` is not enforced: a transaction left open by a dead producer stays open, and holds
  ``read_committed`` readers back, until a producer with the same transactional id calls ``init_transactions``.
- ``send_offsets_to_transaction`` accepts the metadata of a member that is no longer in the group, so it does not refuse
  a stale owner.
- A SIGKILL of the broker can lose the last records it has acknowledged; an orderly stop loses nothing.
- A fetch that finds nothing is answered at once instead of after ``fetch.wait.max.ms``: an idle consumer asks again
  and again, and takes half a core.
- A topic that does not exist is created by the first record sent to it.
- Retention works to the millisecond instead of by segment; timestamps far in the future are accepted.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from fuseboard_schemas.errors import ConfigurationError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

_POLL_S = 0.02


class ServerProcess:
    """A server that is started here, watched while it starts, and stopped by its own process id.

    The server runs in a session of its own, so that Ctrl-C in a terminal reaches its owner first. Should the owner
    die without stopping it (SIGKILL), a guard, which is a shell that waits for the end of a pipe held by the owner,
    kills it: no server outlives the process that started it, nor does its temporary folder.

    Args:
        name: what to call it in messages.
        command: program and arguments.
        log: file that receives its standard output and error (appended).
        env: its whole environment; None means ours.
        cwd: its working directory; None means ours.
        temporary: a folder that the guard removes as well.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        temporary: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(env) if env is not None else None,
                cwd=cwd,
                start_new_session=True,
            )
        self._guard = _start_guard(self._process.pid, temporary)

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def stop(self, timeout_s: float = 10.0) -> None:
        """End it with SIGTERM, and with SIGKILL if it is still there after ``timeout_s`` seconds."""
        self._release_guard()
        if self.running:
            # A stopped process (SIGSTOP) would never see the SIGTERM.
            for number in (signal.SIGTERM, signal.SIGCONT):
                self._process.send_signal(number)
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()

    def kill(self) -> None:
        """End it with SIGKILL: no shutdown hook runs, nothing is flushed."""
        self._release_guard()
        self._process.kill()
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, such as SIGSTOP and SIGCONT."""
        self._process.send_signal(number)

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of its log, for an error message."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def wait_for_port(self, port: int, timeout_s: float) -> None:
        """Wait until something listens on ``port`` of the loopback interface.

        Raises:
            UnreachableError: it ended, or does not listen after ``timeout_s`` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while not _listens(port):
            self.check_alive()
            if time.monotonic() > deadline:
                raise UnreachableError(
                    f"{self.name} (process {self.pid}) does not listen on port {port} after {timeout_s:.0f} s. "
                    f"Its log is {self.log}; it ends with:\n{self.log_tail()}"
                )
            time.sleep(_POLL_S)

    def check_alive(self) -> None:
        """Raise if it has ended.

        Raises:
            UnreachableError: with its exit code and the end of its log.
        """
        code = self._process.poll()
        if code is not None:
            raise UnreachableError(
                f"{self.name} ended with exit code {code} while it was starting. Its log is {self.log}; it ends "
                f"with:\n{self.log_tail()}"
            )

    def _release_guard(self) -> None:
        if self._guard.poll() is None:
            self._guard.kill()
        self._guard.wait()
        stdin: IO[bytes] | None = self._guard.stdin
        if stdin is not None:
            stdin.close()


class EmbeddedBroker:
    """A Kafka broker on a free loopback port, as a context manager.

    >>> with EmbeddedBroker() as broker:        # doctest: +SKIP
    ...     run(bootstrap=broker.bootstrap)

    Args:
        data_dir: where its data lives; it is kept, and found again by the next start. None means a temporary folder
            that goes with the broker.
        port: the port to listen on; 0 means a free one. It stays the same over ``restart``.
        start_timeout_s: how long it may take to answer.
    """

    def __init__(self, data_dir: Path | None = None, *, port: int = 0, start_timeout_s: float = 20.0) -> None:
        self._given_dir = data_dir
        self._port = port
        self._start_timeout_s = start_timeout_s
        self._dir: Path | None = None
        self._server: ServerProcess | None = None

    @property
    def bootstrap(self) -> str:
        """The address for ``bootstrap.servers``."""
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The broker's process id.

        Raises:
            UnreachableError: it is not running.
        """
        if self._server is None:
            raise UnreachableError("The embedded broker is not running: call start() first.")
        return self._server.pid

    @property
    def log(self) -> Path:
        """The file that holds what the broker prints."""
        return self._folder() / "broker.log"

    def start(self) -> Self:
        """Start it and wait until it answers a metadata request.

        Raises:
            ConfigurationError: ``noida-db`` is not installed.
            UnreachableError: it does not start; the message holds the end of its log.
        """
        if self._server is not None:
            return self
        binary = find_binary()
        # The control port of the server is its only other listener; it picks a free one by itself.
        self._port = self._port or free_ports(1)[0]
        data = self._folder() / "data"
        data.mkdir(parents=True, exist_ok=True)
        command = [str(binary), "start", "--only", "kafka", "--kafka-port", str(self._port), "--data-dir", str(data)]
        temporary = self._folder() if self._given_dir is None else None
        server = ServerProcess("The embedded broker", command, self.log, temporary=temporary)
        try:
            wait_until_answering(server, self._port, self._start_timeout_s)
        except BaseException:
            server.kill()
            raise
        self._server = server
        return self

    def stop(self) -> None:
        """Stop it; a temporary data folder is removed."""
        self._halt()
        if self._dir is not None and self._given_dir is None:
            shutil.rmtree(self._dir, ignore_errors=True)
            self._dir = None

    def kill(self) -> None:
        """SIGKILL the broker; its data stays until ``stop``."""
        if self._server is not None:
            self._server.kill()
            self._server = None

    def restart(self) -> Self:
        """Stop it in order and start it on the same port and data."""
        self._halt()
        return self.start()

    def _halt(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def _folder(self) -> Path:
        if self._dir is None:
            self._dir = self._given_dir or Path(tempfile.mkdtemp(prefix="fuseboard-broker-"))
        return self._dir

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def find_binary() -> Path:
    """The path of the ``noida-db`` program.

    The package's own launcher is left aside: it is a Python process in between, which would have to pass signals on.

    Raises:
        ConfigurationError: the extra ``demo`` is not installed, or has no program for this platform.
    """
    spec = importlib.util.find_spec("noida_db")
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "The embedded broker needs the package noida-db, which is not installed. Install it with "
            "\"pip install 'fuseboard[demo]'\", or give the address of a Kafka broker with --bootstrap HOST:PORT."
        )
    binary = Path(spec.origin).parent / ("noida-db.exe" if os.name == "nt" else "noida-db")
    if not binary.is_file():
        raise ConfigurationError(
            f"The package noida-db is installed but its program is not at {binary}: there may be none for this "
            "platform. Give the address of a Kafka broker with --bootstrap HOST:PORT instead."
        )
    if not os.access(binary, os.X_OK):
        binary.chmod(0o755)
    return binary


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nothing listens on at the moment, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_until_answering(server: ServerProcess, port: int, timeout_s: float) -> None:
    """Wait until a Kafka broker on the loopback interface answers a metadata request with a broker in it.

    Raises:
        UnreachableError: it ended, or does not answer after ``timeout_s`` seconds.
    """
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    deadline = time.monotonic() + timeout_s
    server.wait_for_port(port, timeout_s)
    admin = AdminClient(
        {
            "bootstrap.servers": f"127.0.0.1:{port}",
            "log_level": 0,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 100,
        }
    )
    while True:
        with contextlib.suppress(KafkaException):
            if admin.list_topics(timeout=1.0).brokers:
                return
        server.check_alive()
        if time.monotonic() > deadline:
            raise UnreachableError(
                f"{server.name} (process {server.pid}) listens on port {port} but gives no metadata after "
                f"{timeout_s:.0f} s. Its log is {server.log}; it ends with:\n{server.log_tail()}"
            )


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False


def _start_guard(pid: int, temporary: Path | None) -> subprocess.Popen[bytes]:
    script = 'read -r _; kill -9 "$0" 2>/dev/null; test -z "$1" || rm -rf "$1"'
    return subprocess.Popen(
        ["sh", "-c", script, str(pid), str(temporary or "")],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
