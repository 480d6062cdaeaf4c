"""The side server of every process: /metrics, /healthz, /readyz, /status on a port of their own.

From the standard library: it costs a thread and no import that a detector pod would not have anyway.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6
from typing import Any, NamedTuple

import msgspec
import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from tidewarden.status import ProcessStatus

log = structlog.get_logger()

REQUEST_TIMEOUT_S = 5.0  # a probe or a scrape that takes longer to ask is none


class Answers(NamedTuple):
    """What the server asks the process."""

    registry: CollectorRegistry
    alive: Callable[[], list[str]]  # what is wrong; empty: nothing
    ready: Callable[[], list[str]]  # what is waited for; empty: nothing
    status: Callable[[], ProcessStatus]


class SideServerError(Exception):
    """The port cannot be had: says which, why and the remedy."""


class SideServer:
    """Serves from the moment it is made, so that probes find somebody while the process still starts."""

    def __init__(self, host: str, port: int, answers: Answers) -> None:
        class Handler(_Handler):
            asked = answers

        class Server(ThreadingHTTPServer):
            address_family = AF_INET6 if ":" in host else AF_INET
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class's
                # Who asks may have gone before the answer was ready: no traceback for that.
                log.debug("a request could not be answered", client=str(client_address), exc_info=True)

        try:
            self._server = Server((host, port), Handler)
        except OSError as error:
            raise SideServerError(
                f"metricsPort {port}: cannot listen on {host}:{port} ({error.strerror}): "
                "give the process a port of its own in its settings"
            ) from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="side-server", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Answer nobody any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(REQUEST_TIMEOUT_S)


class _Handler(BaseHTTPRequestHandler):
    asked: Answers
    timeout = REQUEST_TIMEOUT_S
    server_version = "tidewarden"
    sys_version = ""

    def do_GET(self) -> None:
        answer: dict[str, Callable[[], None]] = {
            "/metrics": self._metrics,
            "/healthz": lambda: self._verdict(self.asked.alive()),
            "/readyz": lambda: self._verdict(self.asked.ready()),
            "/status": self._status,
        }
        path = self.path.split("?", 1)[0]
        if path in answer:
            answer[path]()
        else:
            self._say(HTTPStatus.NOT_FOUND, f"nothing is here; there are {', '.join(answer)}\n".encode())

    def _metrics(self) -> None:
        self._say(HTTPStatus.OK, generate_latest(self.asked.registry), CONTENT_TYPE_LATEST)

    def _status(self) -> None:
        self._say(HTTPStatus.OK, msgspec.json.encode(self.asked.status()), "application/json")

    def _verdict(self, complaints: list[str]) -> None:
        if complaints:
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, ("\n".join(complaints) + "\n").encode())
        else:
            self._say(HTTPStatus.OK, b"ok\n")

    def _say(self, status: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Nothing: probes and scrapes come all the time."""
