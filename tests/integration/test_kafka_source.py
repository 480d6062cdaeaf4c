"""The kafka source on a real broker: every message is a reading or a refusal, once, also across kills."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from tidewarden.bus.memory import MemoryBus
from tidewarden.clock import SystemClock
from tidewarden.frames import SeriesTable
from tidewarden.resources import MetricStream
from tidewarden.telemetry import Telemetry
from tidewarden.topics import StreamTopics
from tidewarden_services.ingest.service import IngestService
from tidewarden_services.ingest.sources.kafka import KafkaSource

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
START_MS = 1_767_225_600_000
PATIENCE_S = 60.0


class KilledError(Exception):
    """Stands for kill -9: nothing after it runs."""


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"{what}: this did not happen in time"
        pause.wait(0.02)


def stream(topic: str, **kafka: Any) -> MetricStream:
    return MetricStream.model_validate(
        {
            "metadata": {"name": "s"},
            "spec": {
                "tenants": ["shop"],
                "interval": "1m",
                "sources": [{"name": "in", "kafka": {"topic": topic, **kafka}}],
            },
        }
    )


class Desk:
    """A bus and a state that outlive the ingest services which a test starts, stops and kills."""

    def __init__(self, address: str, topic: str, **kafka: Any) -> None:
        self.stream = stream(topic, **kafka)
        self.config = {"bootstrap.servers": address}
        self.table = SeriesTable()
        self.bus = MemoryBus(self.table, capacity_rows=10**9)
        self.topics = StreamTopics("local", "s", 2)
        self.bus.create(self.topics.all())
        self.reader = self.bus.consumer([self.topics.name("readings"), self.topics.name("rejected")], "test")
        self.telemetry = Telemetry()
        self.state: bytes | None = None
        self.seen: list[Any] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def service(self, bus: Any = None, save_every: int = 1, **options: Any) -> IngestService:
        saves = 0

        def save(state: bytes) -> None:
            nonlocal saves
            if saves < 2 or saves % save_every == 0:  # the first two say where it began, and are waited for
                self.state = state
            saves += 1

        source = KafkaSource(
            self.stream, self.stream.spec.sources[0], self.table, SystemClock(), self.config, **options
        )
        return IngestService(
            self.stream, source, bus or self.bus, self.topics, self.table, SystemClock(), self.telemetry,
            lambda: self.state, save,
        )  # fmt: skip

    def start(self, **options: Any) -> IngestService:
        service = self.service(**options)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=service.run, args=(self._stop,), daemon=True)
        self._thread.start()
        return service

    def stop(self) -> None:
        if self._thread is not None:
            self._stop.set()
            self._thread.join(PATIENCE_S)
            assert not self._thread.is_alive(), "the source did not stop"

    def facts(self) -> dict[str, Any]:
        return self.telemetry.board.read().get("sources", {}).get("s/in", {})

    def records(self) -> list[Any]:
        while self.reader.lag():
            self.seen += self.reader.poll(1_000, 0)
        return self.seen

    def readings(self) -> list[tuple[str, int, float]]:
        rows: list[tuple[str, int, float]] = []
        for record in self.records():
            if record.topic == self.topics.name("readings"):
                f = record.value
                columns = zip(f.series.tolist(), f.timestamp.tolist(), f.value.tolist(), strict=True)
                rows += [(f.table[series].path, at, value) for series, at, value in columns]
        return rows

    def rejections(self) -> list[Any]:
        return [r for record in self.records() if record.topic == self.topics.name("rejected") for r in record.value]


@pytest.fixture
def desks() -> Iterator[Callable[..., Desk]]:
    made: list[Desk] = []

    def make(*args: Any, **options: Any) -> Desk:
        made.append(Desk(*args, **options))
        return made[-1]

    yield make
    for desk in made:
        desk.stop()


def create(address: str, topic: str, partitions: int = 3) -> None:
    admin = AdminClient({"bootstrap.servers": address})
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(30)


def message(node: int, tick: int, **more: Any) -> bytes:
    fields = {"tenant": "shop", "cluster": "eu", "node": f"n{node}", "timestamp": START_MS + tick * 60_000}
    return msgspec.json.encode({**fields, "metrics": {"a": tick + 0.5, "b": float(node)}, **more})


def produce(address: str, topic: str, values: list[tuple[str, bytes | None]]) -> None:
    """Messages by (key, value), all delivered when this returns."""
    producer = Producer({"bootstrap.servers": address, "enable.idempotence": True, "linger.ms": 5})
    for key, value in values:
        while True:
            try:
                producer.produce(topic, value, key=key)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0


def test_both_shapes_are_read_and_what_is_broken_is_kept_with_its_bytes_and_offset(
    kafka_server: Any, desks: Callable[..., Desk]
) -> None:
    """A node's metrics or one reading a message; broken bytes, a foreign tenant and a tombstone are refused."""
    create(kafka_server.address, "shapes", 1)
    flat = {"tenant": "shop", "cluster": "eu", "node": "n9", "timestamp": START_MS, "metric": "c", "value": 7, "x": 1}
    foreign = message(1, 0, tenant="other")
    values = [message(1, 0), msgspec.json.encode(flat), b"\xff{broken", foreign, None, message(2, 0)]
    produce(kafka_server.address, "shapes", [("k", value) for value in values])
    desk = desks(kafka_server.address, "shapes")
    desk.start()
    until(lambda: len(desk.readings()) == 5 and len(desk.rejections()) >= 4, "five readings and four refusals")
    assert sorted(desk.readings()) == [
        ("shop/eu/n1/a", START_MS, 0.5), ("shop/eu/n1/b", START_MS, 1.0),
        ("shop/eu/n2/a", START_MS, 0.5), ("shop/eu/n2/b", START_MS, 2.0), ("shop/eu/n9/c", START_MS, 7.0),
    ]  # fmt: skip
    refused = {(r.reason, r.origin): r for r in desk.rejections()}
    assert set(refused) == {
        ("malformed", "shapes/0 offset 2"), ("unknown_tenant", "shapes/0 offset 3"), ("malformed", "shapes/0 offset 4"),
    }  # fmt: skip
    assert refused["malformed", "shapes/0 offset 2"].raw == "\\xff{broken"


def test_latest_begins_at_the_end_and_a_restart_loses_nothing(kafka_server: Any, desks: Callable[..., Desk]) -> None:
    """What was there before is left out; what comes while nobody reads is read afterwards."""
    create(kafka_server.address, "late")
    produce(kafka_server.address, "late", [(str(n), message(n, 0)) for n in range(5)])
    desk = desks(kafka_server.address, "late", start="latest")
    desk.start()
    until(lambda: desk.state is not None and b"late@" in desk.state, "the beginning is saved")
    produce(kafka_server.address, "late", [(str(n), message(n, 1)) for n in range(5)])
    until(lambda: len(desk.readings()) == 10, "the second tick")
    desk.stop()
    produce(kafka_server.address, "late", [(str(n), message(n, 2)) for n in range(5)])
    desk.start()
    until(lambda: len(desk.readings()) == 20, "the third tick")
    assert {at for _, at, _ in desk.readings()} == {START_MS + 60_000, START_MS + 120_000}


def test_a_topic_to_come_and_a_broker_that_goes_are_waited_for(
    own_kafka_server: Any, desks: Callable[..., Desk]
) -> None:
    """The status says what is missing; when it is there, reading goes on by itself, and so do new partitions."""
    server = own_kafka_server
    desk = desks(server.address, "to-come")
    desk.start(growth_s=0.5)
    until(lambda: desk.facts().get("state") == "waiting", "it waits for the topic")
    assert "topic 'to-come' does not exist: create it" in desk.facts()["message"]
    create(server.address, "to-come", 1)
    produce(server.address, "to-come", [("k", message(1, 0))])
    until(lambda: len(desk.readings()) == 2 and desk.facts()["state"] == "running", "the first message")
    server.kill()
    until(lambda: desk.facts()["state"] == "waiting", "it waits for the broker")
    assert "no broker answers" in desk.facts()["message"]
    server.start()
    produce(server.address, "to-come", [("k", message(1, 1))])
    until(lambda: len(desk.readings()) == 4 and desk.facts()["state"] == "running", "the message after the crash")
    admin = AdminClient({"bootstrap.servers": server.address})
    admin.create_partitions([NewPartitions("to-come", 4)])["to-come"].result(30)
    produce(server.address, "to-come", [(str(n), message(n, 2)) for n in range(20)])
    until(lambda: len(desk.readings()) == 44, "messages in the new partitions")
    desk.stop()
    assert desk.facts()["rejected"] == 0
    desk.start()
    produce(server.address, "to-come", [(str(n), message(n, 3)) for n in range(20)])
    until(lambda: len(desk.readings()) == 84, "the same partitions after a restart")


class MortalBus:
    """Passes everything on to a real bus, and dies at the ``fuse``-th publish: before it, or just after it."""

    def __init__(self, bus: MemoryBus, fuse: int, *, after: bool) -> None:
        self._bus, self._fuse, self._after = bus, fuse, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    def publish(self, *args: Any, **options: Any) -> int:
        self._fuse -= 1
        if self._fuse == 0 and not self._after:
            raise KilledError
        offset = self._bus.publish(*args, **options)
        if self._fuse == 0:
            raise KilledError
        return offset


def by_series(desk: Desk) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for path, at, value in desk.readings():
        found.setdefault(path, []).append((at, value))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_kills_at_any_publish_change_no_reading_no_refusal_and_no_count(
    kafka_server: Any, desks: Callable[..., Desk], seed: int
) -> None:
    """Killed twelve times, with batches cut differently and states that may be old: as if nothing had happened."""
    topic, rng = f"killed-{seed}", random.Random(seed)
    create(kafka_server.address, topic)
    values: list[tuple[str, bytes]] = []
    for tick in range(60):
        for node in range(8):
            when = tick - rng.choice([0, 0, 0, 0, 1, 3])  # some late, some double, some too late
            values.append((f"n{node}", message(node, when) if rng.random() > 0.03 else b"?"))
    produce(kafka_server.address, topic, values)
    calm = desks(kafka_server.address, topic)
    calm.start()
    until(lambda: _complete(calm, len(values)), "all of it")
    calm.stop()

    desk = desks(kafka_server.address, topic)
    kills = 0
    for _ in range(12):
        bus = MortalBus(desk.bus, rng.randint(1, 12), after=rng.random() < 0.5)
        mortal = desk.service(bus, save_every=rng.choice([1, 2, 50]), max_messages=rng.choice([7, 20, 33]))
        stop = threading.Event()
        ended = threading.Thread(target=_run_until_killed, args=(mortal, stop), daemon=True)
        ended.start()
        until(
            lambda ended=ended, mortal=mortal: not ended.is_alive() or _complete(desk, len(values)), "a kill or the end"
        )
        stop.set()
        ended.join(PATIENCE_S)
        kills += mortal.error is not None
    assert kills >= 5, "most of these lives end early"
    service = desk.start()
    until(
        lambda: _total(service) >= calm.facts()["accepted"] + calm.facts()["rejected"], "the last life reads the rest"
    )
    desk.stop()
    assert by_series(desk) == by_series(calm)
    order = lambda r: (r.origin, r.reason, r.metric or "")  # noqa: E731
    assert sorted(map(order, desk.rejections())) == sorted(map(order, calm.rejections()))
    assert {k: v for k, v in service.stats().items() if k in COUNTS} == {
        k: v for k, v in calm.facts().items() if k in COUNTS
    }


COUNTS = ("accepted", "rejected", "rejected_by_reason", "late")


def _total(service: IngestService) -> int:
    return int(service.stats()["accepted"] + service.stats()["rejected"])


def _run_until_killed(service: IngestService, stop: threading.Event) -> None:
    try:
        service.run(stop)
    except KilledError:
        return


def _offsets(desk: Desk) -> list[str]:
    positions = [r.headers["position"] for r in desk.records()]
    newest = max(
        positions, key=lambda p: sum(int(x.partition(":")[2]) for x in p.partition("@")[2].split(",")), default=""
    )
    return [part.partition(":")[2] for part in newest.partition("@")[2].split(",") if part]


def _complete(desk: Desk, messages: int) -> bool:
    return sum(map(int, _offsets(desk))) == messages
