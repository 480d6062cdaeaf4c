"""Liveness that fails when the operator is really dead, readiness, and its metrics.

The server has a thread of its own, so that it answers also when everything else hangs.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from tidewarden.clock import Clock
from tidewarden_operator.metrics import OperatorMetrics

log = structlog.get_logger()

# The loop hands out events all the time; a second of delay is a lot, a minute is a hang.
LOOP_S = 60.0
# A reconciliation is some dozens of calls with 10 s of patience each at the very worst.
WORKERS_S = 180.0
REQUEST_TIMEOUT_S = 5.0


class Pulse:
    """Signs of life of watches and of the event loop.

    Args:
        clock: of the ages.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._born = clock.monotonic()
        self._watches: dict[str, float] = {}
        self._loop = self._born

    def watch(self, plural: str) -> None:
        """A watch of a kind has heard from the API server, an event or an answer to its request."""
        with self._lock:
            self._watches[plural] = self._clock.monotonic()

    async def beat(self) -> None:
        """Beat for as long as the event loop lives."""
        while True:
            self._loop = self._clock.monotonic()
            await asyncio.sleep(1.0)

    def watch_ages(self, expected: Mapping[str, str]) -> dict[str, float]:
        """Seconds since the last sign of life, by kind.

        Args:
            expected: kind by plural of all watches that there should be.
        """
        now = self._clock.monotonic()
        with self._lock:
            return {kind: now - self._watches.get(plural, self._born) for plural, kind in expected.items()}

    def loop_age_s(self) -> float:
        """Seconds since the event loop last came round."""
        return self._clock.monotonic() - self._loop


class HealthServer:
    """Serves ``/healthz``, ``/readyz`` and ``/metrics``.

    Args:
        host: to listen on.
        port: to listen on; 0 takes any free one.
        alive: what is dead; empty: nothing.
        ready: what is waited for; empty: nothing.
        metrics: of the operator.
        refresh: brings the gauges up to date.
    """

    def __init__(
        self,
        host: str,
        port: int,
        alive: Callable[[], list[str]],
        ready: Callable[[], list[str]],
        metrics: OperatorMetrics,
        refresh: Callable[[], None],
    ) -> None:
        def page(path: str) -> tuple[HTTPStatus, str, bytes]:
            if path == "/metrics":
                refresh()
                return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(metrics.registry)
            if path not in {"/healthz", "/readyz"}:
                return HTTPStatus.NOT_FOUND, "text/plain", b"there are /healthz, /readyz and /metrics\n"
            wrong = alive() if path == "/healthz" else ready()
            status = HTTPStatus.SERVICE_UNAVAILABLE if wrong else HTTPStatus.OK
            return status, "text/plain", ("\n".join(wrong or ["ok"]) + "\n").encode()

        class Handler(BaseHTTPRequestHandler):
            timeout = REQUEST_TIMEOUT_S
            server_version = "tidewarden-operator"
            sys_version = ""

            def do_GET(self) -> None:
                status, kind, body = page(self.path.partition("?")[0])
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """Probes and scrapes are no news."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class's
                # Who asks may have gone before the answer was ready: no traceback for that.
                log.debug("a request could not be answered", client=str(client_address), exc_info=True)

        self._server = Server((host, port), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Answer nobody any more."""
        self._server.shutdown()
        self._server.server_close()
