"""The web server of the one process: the API, the page and the push sources on one port."""

from __future__ import annotations

import threading
from ipaddress import ip_address

from tidewarden_cli.local.pipeline import LocalPipeline
from tidewarden_cli.web import STOP_TIMEOUT_S, ServerError, WebServer, listen
from tidewarden_services.api.app import create_app

__all__ = ["Server", "ServerError"]


class Server:
    """The application in a thread, on a socket that is bound before anything else starts."""

    def __init__(self, pipeline: LocalPipeline, host: str, port: int) -> None:
        listener = listen(host, port, "choose another --port, 0 takes any free one")
        bound_host, bound_port = listener.getsockname()[:2]
        self.address = f"http://{'127.0.0.1' if bound_host == '0.0.0.0' else bound_host}:{bound_port}"  # noqa: S104
        app = create_app(
            store=pipeline.store,
            bus=pipeline.bus,
            topics_by_stream=pipeline.topics,
            board=pipeline.telemetry.board,
            telemetry=pipeline.telemetry,
            resources=pipeline.resources,
            clock=pipeline.clock,
            extra_routers=[source.router for source in pipeline.http_sources],
            hosts=_names_of(bound_host),
        )
        self._server = WebServer(app, listener)
        self._thread = threading.Thread(target=self._server.serve_here, name="api", daemon=True)

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Finish open requests, for a bounded time, and close."""
        self._server.stop()
        self._thread.join(STOP_TIMEOUT_S + 2)


def _names_of(host: str) -> frozenset[str]:
    """Names under which a server on the loopback may be called; any name elsewhere, proxies have their own."""
    return frozenset({"127.0.0.1", "localhost", "::1"}) if ip_address(host).is_loopback else frozenset()
