"""uvicorn in a thread, on a socket that is bound before anything else starts."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import uvicorn

STOP_TIMEOUT_S = 5  # for requests that are open


class ServerError(Exception):
    """The server cannot listen: says where, why, and the remedy."""


class WebServer(uvicorn.Server):
    """Serves an ASGI application until told to stop.

    Args:
        app: the application.
        listener: from `listen`.
        on_started: called once the application answers.
        on_round: called about ten times a second in the thread that serves, as long as its event loop turns.
    """

    def __init__(
        self,
        app: Any,
        listener: socket.socket,
        on_started: Callable[[], None] = lambda: None,
        on_round: Callable[[], None] = lambda: None,
    ) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            ws="websockets-sansio",
            timeout_graceful_shutdown=STOP_TIMEOUT_S,
        )
        super().__init__(config)
        self._listener = listener
        self._on_started = on_started
        self._on_round = on_round

    def serve_here(self) -> None:
        """Serve in the calling thread until `stop`."""
        self.run(sockets=[self._listener])

    def stop(self) -> None:
        """Finish open requests, for a bounded time, and end."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, and then say so."""
        await super().startup(sockets)
        if self.started:
            self._on_started()

    async def on_tick(self, counter: int) -> bool:
        """As uvicorn's; a sign of life each time."""
        self._on_round()
        return await super().on_tick(counter)


def listen(host: str, port: int, remedy: str) -> socket.socket:
    """A listening socket; `ServerError` with ``remedy`` where the port cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ServerError(f"cannot listen on {host}:{port} ({error.strerror}): {remedy}") from error
    listener.listen(128)
    return listener
