"""A broker of our own for `bench_kafka`, and what lies on its topics.

The same noisy daily waves in three shapes: frames of 10,000 readings as ingest writes them, JSON with a
node's four metrics in a message, and JSON with one reading in a message.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.bench_scoring import waves
from tidewarden.bus.kafka.bus import KafkaBus
from tidewarden.frames import Frame, SeriesKey, SeriesTable
from tidewarden.settings import KafkaSettings
from tidewarden.topics import StreamTopics

SERIES = 1_000
METRICS = ("latency_ms", "error_rate", "throughput", "cpu_percent")
NODES = SERIES // len(METRICS)
FRAME_READINGS = 10_000
BEGIN_MS = 1_767_225_600_000
INTERVAL_MS = 60_000
JSON_PARTITIONS = 3
SPIKE_RATE = 0.0005
TOPICS = StreamTopics("bench", "waves")


@contextmanager
def broker() -> Iterator[str]:
    """Address of a real Kafka that ends with the block; its jars are those of the tests."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from servers.kafka import KafkaServer, jars

    with tempfile.TemporaryDirectory() as folder:
        own = KafkaServer(jars(), Path(folder))
        own.start()
        try:
            yield own.address
        finally:
            own.stop()


def values(points: int) -> npt.NDArray[np.float64]:
    """Waves with a few spikes, so that there are anomalies to publish; shape (points, SERIES)."""
    made = waves(points, SERIES)
    rng = np.random.default_rng(1)
    return np.where(rng.random(made.shape) < SPIKE_RATE, made + 200.0, made).round(3)


def table() -> SeriesTable:
    """The series, four metrics a node."""
    return SeriesTable(SeriesKey("shop", "eu", f"n{i // 4}", METRICS[i % 4]) for i in range(SERIES))


def bus(address: str, series: SeriesTable, name: str) -> KafkaBus:
    """A bus as a pod has it."""
    return KafkaBus(KafkaSettings(bootstrap_servers=address), series, client_id=name, namespace=TOPICS.namespace)


def fill_frames(address: str, points: int) -> int:
    """Frames on the stream's readings topic, in time order; how many."""
    series = table()
    own = bus(address, series, "bench-fill")
    own.create([*TOPICS.all(), TOPICS.state("watch")])
    made = values(points).ravel()
    ids = np.tile(np.arange(SERIES, dtype=np.int32), points)
    at = BEGIN_MS + np.repeat(np.arange(points, dtype=np.int64) * INTERVAL_MS, SERIES)
    count = 0
    for begin in range(0, len(made), FRAME_READINGS):
        rows = slice(begin, begin + FRAME_READINGS)
        own.publish(TOPICS.name("readings"), Frame(series, ids[rows], at[rows], made[rows]), key="waves")
        count += 1
    own.sync()
    own.close()
    return count


def node_messages(points: int) -> Iterator[tuple[str, bytes]]:
    """Key and JSON of each node's metrics, tick by tick."""
    for tick, row in enumerate(values(points).tolist()):
        at = BEGIN_MS + tick * INTERVAL_MS
        for node in range(NODES):
            metrics = ",".join(f'"{name}":{row[4 * node + j]}' for j, name in enumerate(METRICS))
            yield (
                f"n{node}",
                f'{{"tenant":"shop","cluster":"eu","node":"n{node}","timestamp":{at},"metrics":{{{metrics}}}}}'.encode(),
            )


def flat_messages(points: int) -> Iterator[tuple[str, bytes]]:
    """Key and JSON of each reading, tick by tick."""
    for tick, row in enumerate(values(points).tolist()):
        at = BEGIN_MS + tick * INTERVAL_MS
        for i, value in enumerate(row):
            yield (
                f"n{i // 4}",
                f'{{"tenant":"shop","cluster":"eu","node":"n{i // 4}","timestamp":{at},'
                f'"metric":"{METRICS[i % 4]}","value":{value}}}'.encode(),
            )


def fill_json(address: str, topic: str, messages: Iterable[tuple[str, bytes]]) -> int:
    """Messages keyed by node, lz4; how many."""
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": address})
    admin.create_topics([NewTopic(topic, JSON_PARTITIONS, 1)])[topic].result(30)
    producer = Producer(
        {
            "bootstrap.servers": address,
            "enable.idempotence": True,
            "linger.ms": 50,
            "compression.type": "lz4",
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 200_000,
        }
    )
    count = 0
    for key, value in messages:
        while True:
            try:
                producer.produce(topic, value, key)
                break
            except BufferError:
                producer.poll(0.1)
        count += 1
    if producer.flush(120):
        raise RuntimeError(f"the broker did not take all messages of {topic} within 120 s")
    return count
