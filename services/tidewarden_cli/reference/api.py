"""The description of the HTTP API."""

from __future__ import annotations

import json

from tidewarden.resources import MetricStream
from tidewarden.telemetry import Telemetry


def openapi_page() -> str:
    """The description of the HTTP API, as ``/openapi.json`` serves it, for a stream called ``shop``."""
    from tidewarden.bus.memory import MemoryBus
    from tidewarden.clock import SystemClock
    from tidewarden.frames import SeriesTable
    from tidewarden.store.embedded import EmbeddedStore
    from tidewarden.topics import StreamTopics
    from tidewarden_services.api.app import create_app
    from tidewarden_services.ingest.sources.http import HttpSource

    spec = {"tenants": ["shop"], "sources": [{"name": "push", "http": {}}]}
    stream = MetricStream.model_validate({"metadata": {"name": "shop"}, "spec": spec})
    clock, table, telemetry = SystemClock(), SeriesTable(), Telemetry()
    topics = StreamTopics("local", "shop")
    bus = MemoryBus(table)
    bus.create(topics.all())
    store = EmbeddedStore(None)
    try:
        app = create_app(
            store=store,
            bus=bus,
            topics_by_stream={"shop": topics},
            board=telemetry.board,
            telemetry=telemetry,
            resources=[stream],
            clock=clock,
            extra_routers=[HttpSource(stream, stream.spec.sources[0], table, clock).router],
            page=None,
        )
        return json.dumps(app.openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    finally:
        store.close()
        bus.close()
