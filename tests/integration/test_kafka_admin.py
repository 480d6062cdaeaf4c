"""What the administration of topics promises on a real Kafka: idempotent, mending, and clear when it cannot."""

from __future__ import annotations

from itertools import count

import pytest

from servers.kafka import KafkaServer
from tidewarden.bus.kafka.admin import TopicAdmin, TopicChange
from tidewarden.bus.kafka.bus import KafkaBus
from tidewarden.bus.kafka.connection import KafkaUnavailableError
from tidewarden.bus.port import TopicPartition
from tidewarden.events import AnomalyBatch
from tidewarden.frames import SeriesTable
from tidewarden.settings import KafkaSettings
from tidewarden.topics import StreamTopics, Topic

pytestmark = pytest.mark.kafka
HOUR_MS = 3_600_000
_numbers = count()


@pytest.fixture
def settings(kafka_server: KafkaServer) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=kafka_server.address)


@pytest.fixture
def stream() -> StreamTopics:
    return StreamTopics(f"admin-{next(_numbers)}", "shop", 2, HOUR_MS)


def test_a_stream_gets_all_its_topics_and_asking_again_changes_nothing(
    settings: KafkaSettings, stream: StreamTopics
) -> None:
    """Flow, snapshots of the stream and of its detectors; the second time there is nothing to do."""
    admin = TopicAdmin(settings)
    topics = stream.complete(["latency", "errors"])
    assert [change.topic for change in admin.apply(topics)] == [topic.name for topic in topics]
    assert admin.apply(topics) == []
    assert admin.names(stream.prefix) == sorted(topic.name for topic in topics)
    found = admin.describe(admin.names(stream.prefix))
    assert {name: state.partitions for name, state in found.items()} == {t.name: t.partitions for t in topics}
    assert found[stream.name("readings")].config["retention.ms"] == str(HOUR_MS)
    assert found[stream.state("latency").name].config["cleanup.policy"] == "compact"
    assert "retention.ms" not in found[stream.state("latency").name].config
    assert sorted(admin.delete(list(found))) == sorted(found)
    assert admin.names(stream.prefix) == []
    assert admin.delete(list(found)) == []


def test_topics_are_grown_and_settings_are_mended(settings: KafkaSettings, stream: StreamTopics) -> None:
    """What was asked for anew, or changed by hand, is put right, and only that is touched."""
    admin = TopicAdmin(settings)
    name = stream.name("readings")
    admin.apply([Topic(name, 2, retention_ms=HOUR_MS)])
    grown = admin.apply([Topic(name, 3, retention_ms=2 * HOUR_MS)])
    assert grown == [
        TopicChange(name, "partitions", "2", "3"),
        TopicChange(name, "retention.ms", str(HOUR_MS), str(2 * HOUR_MS)),
    ]
    assert admin.describe([name])[name].config["retention.ms"] == str(2 * HOUR_MS)
    assert admin.apply([Topic(name, 3, retention_ms=2 * HOUR_MS)]) == []
    with pytest.raises(ValueError, match=f"topic {name} has 3 partitions, 1 are asked for: Kafka cannot take"):
        admin.apply([Topic(name, 1)])


def test_what_kafka_refuses_is_a_value_error_that_names_it(settings: KafkaSettings, stream: StreamTopics) -> None:
    """More copies than brokers is a mistake in the settings, not an outage."""
    admin = TopicAdmin(settings.model_copy(update={"replication_factor": 3}))
    with pytest.raises(ValueError, match=rf"Kafka refuses {stream.name('readings')}: .*replication"):
        admin.apply([stream.all()[0]])


def test_lag_is_what_the_group_has_not_committed(settings: KafkaSettings, stream: StreamTopics) -> None:
    """Of each partition: everything before the first commit, then what comes after it."""
    admin, name = TopicAdmin(settings), stream.name("readings")
    bus = KafkaBus(settings, SeriesTable(), client_id="admin", namespace=stream.namespace)
    bus.create(stream.all())
    for number in range(5):
        bus.publish(name, AnomalyBatch(detector="d", anomalies=[], watermarks={}), key="k", partition=number % 2)
    bus.sync()
    group = f"{stream.namespace}.detect.latency"
    first, second = TopicPartition(name, 0), TopicPartition(name, 1)
    assert admin.lag(group, [name]) == {first: 3, second: 2}
    assert admin.committed(group, [name]) == {}
    consumer = bus.consumer([name], "detect.latency")
    consumer.commit({first: 2})
    consumer.close()
    assert admin.committed(group, [name]) == {first: 2}
    assert admin.lag(group, [name]) == {first: 1, second: 2}
    assert admin.delete_groups([group, "no-such-group"]) == [group]
    assert admin.committed(group, [name]) == {}
    bus.close()


def test_a_kafka_that_is_not_there_is_one_error_with_address_and_remedy() -> None:
    """Where nothing listens, calls end in time and say what to check."""
    admin = TopicAdmin(KafkaSettings(bootstrap_servers="127.0.0.1:1"), patience_s=1)
    with pytest.raises(KafkaUnavailableError, match=r"Kafka at 127\.0\.0\.1:1 .*check kafka\.bootstrapServers"):
        admin.apply([Topic("a.b.readings", 1)])


def test_options_cannot_undo_what_exactness_rests_on() -> None:
    """A setting that would lose or double records is refused by name."""
    with pytest.raises(ValueError, match=r"kafka\.options\.enable\.idempotence is 'false'"):
        TopicAdmin(KafkaSettings(bootstrap_servers="127.0.0.1:1", options={"enable.idempotence": "false"}))
