"""What several flow tests need."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import uvicorn
from fastapi import FastAPI


class Served(NamedTuple):
    """An application that is being served."""

    address: str  # host:port
    stop: Callable[[], None]


Serve = Callable[[FastAPI], Served]


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    """Serve an application on a free port of 127.0.0.1 until it is stopped or the module's tests are over."""
    with contextlib.ExitStack() as stack:

        def start(app: FastAPI) -> Served:
            listener = socket.create_server(("127.0.0.1", 0))
            config = uvicorn.Config(app, log_config=None, access_log=False, ws="websockets-sansio", lifespan="on")
            server = _Server(config)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
            thread.start()

            def stop() -> None:
                server.should_exit = True
                thread.join(20)
                assert not thread.is_alive(), "the server did not stop"

            stack.callback(stop)
            assert server.up.wait(20), "the server did not start"
            return Served(f"127.0.0.1:{listener.getsockname()[1]}", stop)

        yield start


class _Server(uvicorn.Server):
    """uvicorn that says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()
