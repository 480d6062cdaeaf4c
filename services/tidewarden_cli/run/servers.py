"""Kafka, its snapshots and Elasticsearch, as a process reaches them: waited for, watched, closed at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tidewarden.resources import MetricStream
from tidewarden.settings import ElasticsearchSettings
from tidewarden.store.port import StoreUnavailableError
from tidewarden.topics import StreamTopics, Topic
from tidewarden_cli.run.connections import MistakeError, elasticsearch_of, kafka_of
from tidewarden_cli.run.process import Process
from tidewarden_cli.run.pulse import WatchedBus, watched

if TYPE_CHECKING:
    from tidewarden.store.elasticsearch import ElasticsearchStore

FIRST_ANSWER_S = 5.0  # then readiness says why, and it is asked again; a SIGTERM is heeded in between


def topics_of(stream: MetricStream) -> StreamTopics:
    """The topics of a stream in a cluster."""
    spec = stream.spec
    return StreamTopics(stream.metadata.namespace, stream.metadata.name, spec.partitions, spec.retention)


def open_bus(process: Process, stream: MetricStream, topics: Sequence[Topic], state: Topic | None = None) -> None:
    """The stream's Kafka with these topics, and ``state`` for snapshots; waited for while it is away."""
    from tidewarden.bus.kafka.admin import TopicAdmin
    from tidewarden.bus.kafka.bus import KafkaBus
    from tidewarden.bus.kafka.connection import KafkaUnavailableError

    settings = kafka_of(process.settings, stream)
    client_id = f"tidewarden-{process.orders.role}-{process.name}"

    wanted = [*topics, *([] if state is None else [state])]

    def attempt() -> KafkaBus:
        TopicAdmin(settings, client_id=client_id, patience_s=FIRST_ANSWER_S).create_missing(wanted)
        return KafkaBus(settings, process.table, client_id=client_id, namespace=process.settings.namespace)

    process.wait_for("kafka", f"Kafka at {settings.bootstrap_servers} is asked")
    try:
        bus = process.patiently("kafka", attempt, (KafkaUnavailableError,))
    except ValueError as error:  # a wrong option, a missing file of the Secret, a topic that does not fit
        raise MistakeError(f"MetricStream/{stream.metadata.name}: {error}") from error
    process.closing(bus.close)
    if state is not None:
        process.state = watched(bus.state(state), "kafka", process.pulses)
    process.bus = WatchedBus(bus, process.pulses, process.partitions, lambda: process.found("state"))


def elasticsearch_settings(process: Process, stream: MetricStream, wanted_by: str) -> ElasticsearchSettings:
    """How to reach the stream's Elasticsearch; MistakeError where there is none."""
    settings = elasticsearch_of(process.settings, stream)
    if settings is None:
        raise MistakeError(f"{wanted_by} needs a store: give the settings elasticsearch: {{url: http://host:9200}}")
    return settings


def open_store(
    process: Process, settings: ElasticsearchSettings, first: Callable[[ElasticsearchStore], object]
) -> ElasticsearchStore:
    """An Elasticsearch, waited for until ``first`` could be done with it."""
    from tidewarden.store.elasticsearch import ElasticsearchStore

    store = ElasticsearchStore(settings, process.settings.namespace)
    process.closing(store.close)
    process.wait_for("store", f"Elasticsearch at {settings.url} is asked")
    process.patiently("store", lambda: first(store), (StoreUnavailableError,))
    return watched(store, "elasticsearch", process.pulses)
