"""The web server of the one process: the API, the page and the push sources on one port."""

from __future__ import annotations

import socket
import threading
from ipaddress import ip_address

import uvicorn

from tidewarden_cli.local.pipeline import LocalPipeline
from tidewarden_services.api.app import create_app

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5


class ServerError(Exception):
    """The server cannot listen: says where, why, and the remedy."""


class Server:
    """uvicorn in a thread, on a socket that is bound before anything else starts."""

    def __init__(self, pipeline: LocalPipeline, host: str, port: int) -> None:
        self._socket = _listen(host, port)
        bound_host, bound_port = self._socket.getsockname()[:2]
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
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            ws="websockets-sansio",
            timeout_graceful_shutdown=STOP_TIMEOUT_S,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="api", daemon=True)

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Finish open requests, for a bounded time, and close."""
        self._server.should_exit = True
        self._thread.join(STOP_TIMEOUT_S + 2)

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])


def _names_of(host: str) -> frozenset[str]:
    """Names under which a server on the loopback may be called; any name elsewhere, proxies have their own."""
    return frozenset({"127.0.0.1", "localhost", "::1"}) if ip_address(host).is_loopback else frozenset()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ServerError(
            f"cannot listen on {host}:{port} ({error.strerror}): choose another --port, 0 takes any free one"
        ) from error
    listener.listen(128)
    return listener
