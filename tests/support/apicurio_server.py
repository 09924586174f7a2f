"""Apicurio Registry as a child process: a schema registry with Confluent's API, in memory, on loopback."""

from __future__ import annotations

import http.client
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from fuseboard_schemas.errors import UnreachableError
from fuseboard_streams.embedded import ServerProcess, free_ports
from tests.support.maven import apicurio_home, java

if TYPE_CHECKING:
    from types import TracebackType

API = "/apis/ccompat/v7"


class Apicurio:
    """One Apicurio Registry, as a context manager."""

    def __init__(self, *, heap_mb: int = 256, start_timeout_s: float = 90.0) -> None:
        self._heap_mb = heap_mb
        self._start_timeout_s = start_timeout_s
        self._port = free_ports(1)[0]
        self._dir: Path | None = None
        self._server: ServerProcess | None = None

    @property
    def url(self) -> str:
        """The base address of the Confluent API."""
        return f"http://127.0.0.1:{self._port}{API}"

    def start(self) -> Self:
        """Start it (again, on the same port and with nothing registered) and wait until it answers.

        Raises:
            tests.support.maven.Unavailable: no Java, or no distribution and no Maven to fetch it.
            UnreachableError: it does not start.
        """
        if self._server is None:
            command = self._command()
            self._dir = Path(tempfile.mkdtemp(prefix="fuseboard-apicurio-"))
            log = self._dir / "apicurio.log"
            self._server = ServerProcess("Apicurio Registry", command, log, temporary=self._dir)
            try:
                self._wait(self._server)
            except BaseException:
                self.stop()
                raise
        return self

    def stop(self) -> None:
        """Stop it; everything registered is gone."""
        if self._server is not None:
            self._server.stop()
            self._server = None
        if self._dir is not None:
            shutil.rmtree(self._dir, ignore_errors=True)
            self._dir = None

    def _command(self) -> list[str]:
        home = apicurio_home()
        (jar,) = home.rglob("*-runner.jar")
        return [
            java(),
            f"-Xmx{self._heap_mb}m",
            "-Dquarkus.http.host=127.0.0.1",
            f"-Dquarkus.http.port={self._port}",
            "-Dquarkus.log.level=WARN",
            "-Dquarkus.banner.enabled=false",
            "-jar",
            str(jar),
        ]

    def _wait(self, server: ServerProcess) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        server.wait_for_port(self._port, self._start_timeout_s)
        while time.monotonic() < deadline:
            server.check_alive()
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
            try:
                connection.request("GET", f"{API}/subjects")
                if connection.getresponse().status == http.HTTPStatus.OK:
                    return
            except (OSError, http.client.HTTPException):
                pass
            finally:
                connection.close()
            time.sleep(0.1)
        raise UnreachableError(
            f"Apicurio Registry does not answer at {self.url}. Its log ends with:\n{server.log_tail()}"
        )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
