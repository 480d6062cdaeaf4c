"""Sources in a process of their own: made from the stream's spec, run by an ingest service, pushed to over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from tidewarden.resources import MetricStream
from tidewarden.sources import Batch, Source
from tidewarden_cli.run.connections import MistakeError, kafka_of
from tidewarden_cli.run.process import EXIT_FAILED, Process
from tidewarden_cli.run.pulse import Pulses
from tidewarden_cli.run.servers import topics_of
from tidewarden_cli.run.serving import add_web_server
from tidewarden_services.ingest.making import Surroundings, make_source
from tidewarden_services.ingest.service import IngestService

if TYPE_CHECKING:
    from fastapi import APIRouter, FastAPI

LOOK_EVERY_S = 0.5


@runtime_checkable
class PushSource(Protocol):
    """A source that is pushed to over HTTP."""

    router: APIRouter


def source_of(process: Process, stream: MetricStream) -> Source:
    """The source that the process is to run."""
    spec = next(one for one in stream.spec.sources if one.name == process.orders.source)
    settings = process.settings
    around = Surroundings(
        base_dir=process.bundle.base_dir_of(stream),
        kafka=kafka_of(settings, stream),
        prometheus_url=settings.prometheus_url,
        secrets_dir=settings.secrets_dir,
    )
    try:
        return make_source(stream, spec, process.table, process.clock, around)
    except ValueError as error:
        raise MistakeError(str(error)) from error


def add_source(process: Process, stream: MetricStream, source: Source) -> IngestService:
    """The stages that take a source in; a source that fails ends the process, one that has ended rests."""
    service = ingest_of(process, stream, source)
    watch_batches(source, process.pulses)

    def follow(stop: threading.Event) -> None:
        while not process.clock.wait(stop, LOOK_EVERY_S):
            process.pulses.mine().beat(process.clock.monotonic())
            if service.error is not None:
                process.finish(EXIT_FAILED, {"error": service.error})
                return

    process.add_stage(service.name, service.run, ends=True)
    if isinstance(source, PushSource):
        add_web_server(process, _push_app(source), f"{service.name}.http")
    process.add_stage(f"{service.name}.follow", follow, ends=True)
    return service


def ingest_of(process: Process, stream: MetricStream, source: Source) -> IngestService:
    """An ingest service whose state lies with the stream's snapshots."""
    name, state = f"ingest.{stream.metadata.name}.{source.name}", process.state
    return IngestService(
        stream,
        source,
        process.bus,
        topics_of(stream),
        process.table,
        process.clock,
        process.telemetry,
        load_state=lambda: state.load(name),
        save_state=lambda content: state.save(name, content),
        sync=process.bus.sync,
        before_answer=process.bus.sync,
    )


def watch_batches(source: Source, pulses: Pulses) -> None:
    """Let the thread that takes ``source`` in count as waiting while it has no next batch.

    The method is replaced on the object, not wrapped in another one: ingest asks of which protocols the object is.
    """
    inner = source.batches

    def batches(position: str | None, stop: threading.Event) -> Iterator[Batch]:
        iterator = iter(inner(position, stop))
        try:
            while True:
                with pulses.waiting("the source"):
                    batch = next(iterator, None)
                if batch is None:
                    return
                yield batch
        finally:
            close = getattr(iterator, "close", None)  # generators have it, plain iterators need not
            if close is not None:
                close()

    source.batches = batches  # type: ignore[method-assign]


def _push_app(source: PushSource) -> FastAPI:
    from fastapi import FastAPI

    from tidewarden_services.api import problems
    from tidewarden_services.api.guard import Guard

    app = FastAPI(title="Tidewarden", docs_url=None, redoc_url=None)
    problems.install(app)
    app.add_middleware(Guard)
    app.include_router(source.router)
    return app
