"""What only Kafka has to promise: poison, outages, retention, growth, refusals. The rest is in the suite of buses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import count

import pytest
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as KafkaPlace
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from servers.kafka import KafkaServer
from tidewarden.bus.kafka import consumer as consumer_module
from tidewarden.bus.kafka import producer as producer_module
from tidewarden.bus.kafka.admin import TopicAdmin
from tidewarden.bus.kafka.bus import KafkaBus
from tidewarden.bus.port import BusClosedError, Consumer, Record, TopicPartition, Undecodable, UndeliveredError
from tidewarden.events import AnomalyBatch, Rejection
from tidewarden.frames import SeriesTable
from tidewarden.settings import KafkaSettings
from tidewarden.topics import Topic

pytestmark = pytest.mark.kafka
AWAY_S = 30.0
_numbers = count()

Open = Callable[[], KafkaBus]


def batch(number: int) -> AnomalyBatch:
    return AnomalyBatch(detector="d", anomalies=[], watermarks={"shop": number})


def numbers_of(records: list[Record]) -> list[int]:
    return [record.value.watermarks["shop"] for record in records]


def read(consumer: Consumer, expected: int) -> list[Record]:
    """Poll until so many records have come; the test's own time limit ends what never comes."""
    records: list[Record] = []
    while len(records) < expected:
        records += consumer.poll(expected - len(records), 1)
    return records


@pytest.fixture
def topic() -> str:
    return f"bus-{next(_numbers)}.shop.readings"


@pytest.fixture
def open_bus(kafka_server: KafkaServer, topic: str) -> Iterator[Open]:
    """Buses on the shared server, each as in a process of its own; the topic has two partitions."""
    buses: list[KafkaBus] = []

    def make() -> KafkaBus:
        bus = KafkaBus(
            KafkaSettings(bootstrap_servers=kafka_server.address), SeriesTable(), client_id="t", namespace=topic
        )
        buses.append(bus)
        bus.create([Topic(topic, 2)])
        return bus

    yield make
    for bus in buses:
        bus.close()


def test_what_cannot_be_read_is_handed_on_with_its_bytes_and_reading_goes_on(
    kafka_server: KafkaServer, open_bus: Open, topic: str
) -> None:
    """Foreign, damaged, too new and empty records come as Undecodable between the good ones, with raw bytes and why."""
    bus = open_bus()
    foreign = Producer({"bootstrap.servers": kafka_server.address})
    bus.publish(topic, batch(1), key="k")
    bus.sync()
    poison = [
        (b'{"tenant": "shop"}', None, "not written by Tidewarden"),
        (b"\xff\x00garbage", [("kind", b"frame")], "are not a frame"),
        (b"\x93\x01", [("kind", b"anomalies"), ("producer", b"\xff")], "are not a anomalies"),
        (b"from the future", [("kind", b"prophecy")], "unknown kind of record 'prophecy'"),
        (None, [("kind", b"frame")], "no value"),
    ]
    for raw, headers, _ in poison:
        foreign.produce(topic, raw, b"\xfekey", partition=0, headers=headers or [])
    assert foreign.flush(30) == 0
    bus.publish(topic, batch(2), key="k")
    first, *between, last = read(bus.consumer([topic], "g"), len(poison) + 2)
    assert numbers_of([first, last]) == [1, 2]
    for record, (raw, _, reason) in zip(between, poison, strict=True):
        assert isinstance(record.value, Undecodable)
        assert record.value.raw == (raw or b"")
        assert reason in record.value.reason
        assert record.key == "\N{REPLACEMENT CHARACTER}key"


def test_a_producers_newest_record_is_found_however_far_back_it_lies(open_bus: Open, topic: str) -> None:
    """Looked for in growing steps, each producer for itself, and no further back than asked."""
    bus = open_bus()
    bus.publish(topic, batch(0), key="k", headers={"producer": "early", "position": "7"})
    for number in range(1, 400):
        bus.publish(topic, batch(number), key=f"k{number}", headers={"producer": "late"})
    bus.sync()
    early, late, newest = bus.last(topic, 0, "early"), bus.last(topic, 0, "late"), bus.last(topic, 0)
    assert early is not None
    assert (early.offset, early.headers) == (0, {"producer": "early", "position": "7"})
    assert late is not None
    assert newest is not None
    assert (late.offset, newest.offset, newest.key) == (399, 399, "k399")
    assert bus.last(topic, 0, "early", since=1) is None
    assert bus.last(topic, 0, "nobody") is None
    assert bus.last(topic, 1) is None


def test_records_that_retention_has_removed_are_passed_over(
    kafka_server: KafkaServer, open_bus: Open, topic: str
) -> None:
    """A reader whose offset is gone goes on at the oldest record: at its start, on a seek, and while it reads."""
    bus = open_bus()
    consumer = bus.consumer([topic], "g")
    for number in range(10):
        bus.publish(topic, batch(number), key="k")
    bus.sync()
    place = TopicPartition(topic, 0)
    consumer.commit({place: 2})
    admin = AdminClient({"bootstrap.servers": kafka_server.address})
    removed = KafkaPlace(topic, 0, 6)
    admin.delete_records([removed])[removed].result(30)
    assert numbers_of(read(bus.consumer([topic], "g"), 4)) == [6, 7, 8, 9]
    consumer.seek({place: 1})
    assert numbers_of(read(consumer, 4)) == [6, 7, 8, 9]
    assert consumer.lag() == 0
    consumer._position[place] = 3  # as if it had been there when the records were removed
    consumer._assign_all()
    assert numbers_of(read(consumer, 4)) == [6, 7, 8, 9]
    newest = bus.last(topic, 0, "nobody")
    assert newest is None


def test_partitions_that_are_added_are_read_and_written_without_a_restart(
    kafka_server: KafkaServer, open_bus: Open, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader of everything finds new partitions by itself, from their first record on."""
    monkeypatch.setattr(consumer_module, "GROWTH_EVERY_S", 0.1)
    bus = open_bus()
    consumer = bus.consumer([topic], "g")
    bus.publish(topic, batch(1), key="k")
    assert numbers_of(read(consumer, 1)) == [1]
    TopicAdmin(KafkaSettings(bootstrap_servers=kafka_server.address)).apply([Topic(topic, 4)])
    bus.publish(topic, batch(2), key="k", partition=3)
    (record,) = read(consumer, 1)
    assert (record.partition, record.value.watermarks["shop"]) == (3, 2)


def test_a_record_that_kafka_refuses_ends_publishing_loudly(
    kafka_server: KafkaServer, open_bus: Open, topic: str
) -> None:
    """Nothing is dropped unseen: sync raises, so no snapshot is saved, and so does every publish after it."""
    bus = open_bus()
    resource = ConfigResource(
        ResourceType.TOPIC,
        topic,
        incremental_configs=[ConfigEntry("max.message.bytes", "1000", incremental_operation=AlterConfigOpType.SET)],
    )
    admin = AdminClient({"bootstrap.servers": kafka_server.address})
    admin.incremental_alter_configs([resource])[resource].result(30)
    random_text = "".join(chr(33 + (n * n * 7919) % 90) + str(n) for n in range(5_000))
    large = [
        Rejection(id="1", stream="s", source="p", reason="r", detail="d", origin="o", received_at=1, raw=random_text)
    ]
    bus.publish(topic, large, key="k")
    with pytest.raises(UndeliveredError, match=rf"a record for {topic}/0 was refused: .*too large"):
        bus.sync()
    with pytest.raises(UndeliveredError):
        bus.publish(topic, batch(1), key="k")
    with pytest.raises(ValueError, match="larger than"):
        open_bus().publish(topic, [*large * 400], key="k")


class Reader:
    """Reads on, keeps what it saw of each partition, and begins again after what it has when partitions come back."""

    def __init__(self, bus: KafkaBus, topic: str, group: str, *, member: str | None = None) -> None:
        self.position: dict[TopicPartition, int] = {}
        self.seen: dict[int, list[int]] = {0: [], 1: []}
        self.consumer = bus.consumer([topic], group, member=member, assignment=self if member else None)

    def assigned(self, places: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {place: self.position[place] for place in places if place in self.position}

    def revoked(self, places: Collection[TopicPartition]) -> None:
        """Nothing to write down."""

    lost = revoked

    def read(self) -> None:
        for record in self.consumer.poll(1_000, 0.05):
            self.seen[record.partition] += numbers_of([record])
            self.position[record.place] = record.offset + 1
        self.consumer.commit(self.position)

    def read_until(self, enough: Callable[[], bool]) -> None:
        while not enough():
            self.read()

    def total(self) -> int:
        return sum(map(len, self.seen.values()))


@pytest.mark.slow
def test_a_broker_that_is_away_for_half_a_minute_costs_nothing(
    own_kafka_server: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in mid-stream: publishers wait, readers go on by themselves, all is read once and in order."""
    monkeypatch.setattr(producer_module, "QUEUE_MESSAGES", 500)
    server, name = own_kafka_server, "away.shop.readings"
    bus = KafkaBus(KafkaSettings(bootstrap_servers=server.address), SeriesTable(), client_id="away")
    bus.create([Topic(name, 2)])
    published, stop = [0], threading.Event()

    def publish() -> None:
        while not stop.is_set():
            bus.publish(name, batch(published[0]), key="k", partition=published[0] % 2)
            published[0] += 1
            stop.wait(0.001)  # a stream, not a flood
        bus.sync()

    readers = [Reader(bus, name, "alone"), Reader(bus, name, "shared", member="m")]
    writer = threading.Thread(target=publish)
    writer.start()
    for reader in readers:
        reader.read_until(lambda reader=reader: reader.total() >= 500)
    server.kill()
    away = threading.Event()
    timer = threading.Timer(AWAY_S, away.set)
    timer.start()
    while not away.is_set():
        for reader in readers:
            reader.read()
    at_restart = published[0]
    assert readers[0].consumer.lag() > 0  # nobody can know while nobody answers
    server.start()
    for reader in readers:
        reader.read_until(lambda reader=reader: published[0] >= at_restart + 500)
    stop.set()
    writer.join(60)
    assert not writer.is_alive()
    for reader in readers:
        reader.read_until(lambda reader=reader: reader.total() >= published[0])
        assert reader.seen == {partition: list(range(partition, published[0], 2)) for partition in (0, 1)}
        assert reader.consumer.lag() == 0
    bus.close()


@pytest.mark.slow
def test_whoever_waits_for_a_broker_that_is_away_is_woken_at_the_end(own_kafka_server: KafkaServer) -> None:
    """Closing the bus ends a sync, a full publish and a poll at once, though nobody answers."""
    bus = KafkaBus(KafkaSettings(bootstrap_servers=own_kafka_server.address), SeriesTable(), client_id="away")
    bus.create([Topic("closing.shop.readings", 1)])
    consumer = bus.consumer(["closing.shop.readings"], "g")
    bus.publish("closing.shop.readings", batch(0), key="k")
    bus.sync()
    own_kafka_server.kill()
    bus.publish("closing.shop.readings", batch(1), key="k")
    outcomes: list[str] = []

    def wait(call: Callable[[], object]) -> None:
        try:
            call()
            while True:
                consumer.poll(1, 60)
        except BusClosedError:
            outcomes.append("woken")

    waiting = [threading.Thread(target=wait, args=[call]) for call in (bus.sync, lambda: None)]
    for thread in waiting:
        thread.start()
    bus.close()
    for thread in waiting:
        thread.join(10)
    assert outcomes == ["woken", "woken"]
