"""``tidewarden run api``: the store and the bus of a namespace, and the boards of all its pods, for people."""

from __future__ import annotations

from tidewarden.resources import AnyResource, MetricStream
from tidewarden.settings import ElasticsearchSettings, KafkaSettings
from tidewarden_cli.run.connections import MistakeError, elasticsearch_of, kafka_of
from tidewarden_cli.run.process import Process
from tidewarden_cli.run.servers import elasticsearch_settings, open_bus, open_store, topics_of
from tidewarden_cli.run.serving import add_web_server
from tidewarden_services.api.app import create_app
from tidewarden_services.api.peers import PeerBoard


def add_api(process: Process) -> None:
    """The stages of the API: who asks the peers, and who serves."""
    bundle = process.bundle
    if not bundle.streams:
        raise MistakeError("run api needs at least one MetricStream: check --resources")
    first = bundle.streams[0]
    for stream in bundle.streams:
        _same_servers(process, first, stream)
    topics = {stream.metadata.name: topics_of(stream) for stream in bundle.streams}
    settings = elasticsearch_settings(process, first, "the API")
    open_bus(process, first, [topic for one in topics.values() for topic in one.all()])
    store = open_store(process, settings, lambda it: it.counts())
    board = None if process.settings.peers is None else PeerBoard(process.settings.peers, process.clock)
    resources: list[AnyResource] = [*bundle.streams, *bundle.simulations, *bundle.detectors, *bundle.policies]
    app = create_app(
        store=store,
        bus=process.bus,
        topics_by_stream=topics,
        board=board or process.telemetry.board,
        telemetry=process.telemetry,
        resources=resources,
        clock=process.clock,
        figures=None if board is None else board.figures,
    )
    add_web_server(process, app, "api")
    if board is not None:
        process.add_stage("api.peers", board.run)


def _same_servers(process: Process, first: MetricStream, other: MetricStream) -> None:
    """One API serves the streams of one Kafka and one Elasticsearch."""
    here: tuple[KafkaSettings, ElasticsearchSettings | None]
    here, there = (
        (kafka_of(process.settings, stream), elasticsearch_of(process.settings, stream)) for stream in (first, other)
    )
    if here != there:
        raise MistakeError(
            f"MetricStream/{other.metadata.name} lies on other servers than MetricStream/{first.metadata.name}: "
            "run an API for each, with resources of its own"
        )
