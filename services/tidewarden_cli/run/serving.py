"""An ASGI application as a stage of a process: ready once it listens, alive while its event loop turns."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from tidewarden_cli.run.process import Process

if TYPE_CHECKING:
    from fastapi import FastAPI


def add_web_server(process: Process, app: FastAPI, name: str) -> None:
    """Serve ``app`` on the settings' httpPort in a stage called ``name``."""
    from tidewarden_cli.web import WebServer, listen

    settings, clock, pulses = process.settings, process.clock, process.pulses
    listener = listen(settings.host, settings.http_port, "give the process an httpPort of its own in its settings")
    process.wait_for("http", f"port {settings.http_port} does not answer yet")
    server = WebServer(
        app,
        listener,
        on_started=lambda: process.found("http"),
        on_round=lambda: pulses.mine().beat(clock.monotonic()),
    )

    def run(stop: threading.Event) -> None:
        def heed() -> None:
            stop.wait()
            server.stop()

        threading.Thread(target=heed, name=f"{name}.stop", daemon=True).start()
        server.serve_here()

    process.add_stage(name, run)
