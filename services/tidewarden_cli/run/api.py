"""``tidewarden run api``: the store and the bus of a namespace, and the boards of all its pods, for people."""

from __future__ import annotations

import structlog

from tidewarden.resources import AnyResource, MetricStream
from tidewarden_cli.run.connections import MistakeError, elasticsearch_of, kafka_of
from tidewarden_cli.run.process import Process
from tidewarden_cli.run.servers import elasticsearch_settings, open_bus, open_store, topics_of
from tidewarden_cli.run.serving import add_web_server
from tidewarden_services.api.app import create_app
from tidewarden_services.api.peers import PeerBoard

log = structlog.get_logger()


def add_api(process: Process) -> None:
    """The stages of the API: who asks the peers, and who serves."""
    bundle = process.bundle
    streams = _reachable(process)
    first = streams[0]
    topics = {stream.metadata.name: topics_of(stream) for stream in streams}
    settings = elasticsearch_settings(process, first, "the API")
    open_bus(process, first, [topic for one in topics.values() for topic in one.all()])
    store = open_store(process, settings, lambda it: it.counts())
    board = None if process.settings.peers is None else _peers(process, process.settings.peers)
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


def _peers(process: Process, peers: str) -> PeerBoard:
    try:
        # Its thread calls nothing that is watched, so it says itself that it comes round: else it would pass for stuck.
        return PeerBoard(peers, process.clock, lambda: process.pulses.mine().beat(process.clock.monotonic()))
    except ValueError as error:
        raise MistakeError(f"settings: {error}") from error


def _reachable(process: Process) -> list[MetricStream]:
    """The streams that lie on the same Kafka and Elasticsearch as most do: one API speaks with one of each."""
    streams = process.bundle.streams
    if not streams:
        raise MistakeError("run api needs at least one MetricStream: check --resources")
    own = [stream for stream in streams if stream.spec.kafka is None and stream.spec.elasticsearch is None]
    home = (own or streams)[0]
    servers = (kafka_of(process.settings, home), elasticsearch_of(process.settings, home))
    here = [
        stream
        for stream in streams
        if (kafka_of(process.settings, stream), elasticsearch_of(process.settings, stream)) == servers
    ]
    for stream in streams:
        if stream not in here:
            log.warning(
                "a stream lies on servers of its own and is not shown: run an API with settings for those servers",
                service="api", stream=stream.metadata.name,
            )  # fmt: skip
    return here
