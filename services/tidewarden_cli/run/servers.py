"""Kafka, its snapshots and Elasticsearch, as a process reaches them: waited for, watched, closed at the end."""

from __future__ import annotations

from collections.abc import Sequence

from tidewarden.bus.port import Bus
from tidewarden.resources import MetricStream
from tidewarden.settings import ElasticsearchSettings
from tidewarden.store.port import Store, StoreUnavailableError
from tidewarden.topics import StreamTopics, Topic
from tidewarden_cli.run.connections import MistakeError, elasticsearch_of, kafka_of
from tidewarden_cli.run.process import Process
from tidewarden_cli.run.pulse import WatchedBus, watched


def topics_of(stream: MetricStream) -> StreamTopics:
    """The topics of a stream in a cluster."""
    spec = stream.spec
    return StreamTopics(stream.metadata.namespace, stream.metadata.name, spec.partitions, spec.retention)


def open_bus(process: Process, stream: MetricStream, topics: Sequence[Topic]) -> Bus:
    """The stream's Kafka with these topics made where they are missing; waited for while it is away."""
    from tidewarden.bus.kafka.bus import KafkaBus
    from tidewarden.bus.kafka.connection import KafkaUnavailableError

    settings = kafka_of(process.settings, stream)

    def attempt() -> Bus:
        bus = KafkaBus(settings, process.table, client_id=f"{process.orders.role}.{process.name}")
        try:
            bus.create(topics)
        except BaseException:
            bus.close()
            raise
        return bus

    process.wait_for("kafka", f"Kafka at {settings.bootstrap_servers} is asked")
    bus = process.patiently("kafka", attempt, (KafkaUnavailableError,))
    process.closing(bus.close)
    return WatchedBus(bus, process.pulses, process.partitions, lambda: process.found("state"))


def open_state(process: Process, stream: MetricStream, topic: Topic) -> None:
    """Snapshots on a compacted topic of the stream's Kafka."""
    from tidewarden.bus.kafka.state import KafkaState

    state = KafkaState(kafka_of(process.settings, stream), topic.name)
    process.closing(state.close)
    process.state = watched(state, "kafka", process.pulses)


def elasticsearch_settings(process: Process, stream: MetricStream, wanted_by: str) -> ElasticsearchSettings:
    """How to reach the stream's Elasticsearch; MistakeError where there is none."""
    settings = elasticsearch_of(process.settings, stream)
    if settings is None:
        raise MistakeError(f"{wanted_by} needs a store: give the settings elasticsearch: {{url: http://host:9200}}")
    return settings


def open_store(process: Process, settings: ElasticsearchSettings) -> Store:
    """An Elasticsearch, waited for while it is away."""
    from tidewarden.store.elasticsearch import ElasticsearchStore

    process.wait_for("store", f"Elasticsearch at {settings.url} is asked")
    store = process.patiently(
        "store", lambda: ElasticsearchStore(settings, process.settings.namespace), (StoreUnavailableError,)
    )
    process.closing(store.close)
    return watched(store, "elasticsearch", process.pulses)
