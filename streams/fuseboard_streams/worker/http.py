"""/healthz, /readyz and /metrics, on a thread of their own."""

from __future__ import annotations

import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from prometheus_client import CONTENT_TYPE_LATEST

from fuseboard_schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

Answer = tuple[bool, dict[str, Any]]
"""Whether it is well, and what to say about it."""


class StatusServer:
    """Serves a worker's health to orchestrators and its metrics to Prometheus.

    Args:
        host: Address to listen on.
        port: Port; 0 picks a free one.
        health: Whether the process works at all; if not, it should be restarted.
        readiness: Whether every assigned shard is being processed.
        metrics: The text for Prometheus.

    Raises:
        ConfigurationError: The address cannot be used.
    """

    def __init__(
        self,
        host: str,
        port: int,
        health: Callable[[], Answer],
        readiness: Callable[[], Answer],
        metrics: Callable[[], bytes],
    ) -> None:
        try:
            self._server = _Server((host, port), _handler(health, readiness, metrics))
        except OSError as error:
            raise ConfigurationError(
                f"The status server cannot listen on {host}:{port}: {error.strerror}. Choose another with "
                "--http-port (0 picks a free one), or switch it off with --no-http; each worker on a machine needs "
                "its own."
            ) from None
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)

    @property
    def address(self) -> str:
        """``host:port`` as it is."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and free the port."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A client that goes away is no event of ours.
    handle_error = lambda self, request, client_address: None  # noqa: E731


def _handler(
    health: Callable[[], Answer], readiness: Callable[[], Answer], metrics: Callable[[], bytes]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version = "fuseboard"
        sys_version = ""
        timeout = 10

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._send(HTTPStatus.OK, CONTENT_TYPE_LATEST, metrics())
            elif path in ("/healthz", "/readyz"):
                well, said = health() if path == "/healthz" else readiness()
                status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
                self._send(status, "application/json", json.dumps(said).encode() + b"\n")
            else:
                self._send(HTTPStatus.NOT_FOUND, "text/plain", b"There are /healthz, /readyz and /metrics.\n")

        def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: ANN401 - the base class's signature
            """Scrapes are not logged."""

    return Handler
