"""One consumer process on one core: ``python -m benchmarks.kafka_workers ROLE ADDRESS TOPIC COUNT``.

Prints one JSON line: readings, and the seconds of the core (all threads of the process, so Kafka's own
client is in) and of the wall that they took. The first `WARM` of the records are not counted: kernels are
loaded, series are met and warm up meanwhile.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator

from benchmarks.kafka_load import TOPICS, bus
from tidewarden.bus.kafka.raw import RawConsumer
from tidewarden.bus.port import Record
from tidewarden.clock import SystemClock
from tidewarden.events import AnomalyBatch
from tidewarden.frames import SeriesTable
from tidewarden.resources import AnomalyDetector, MetricStream
from tidewarden.scoring.scorer import Scorer, ScorerConfig
from tidewarden.sources import Batch
from tidewarden.telemetry import Telemetry
from tidewarden_cli.run.memory import keep_freed_memory, look_seldom_for_cycles
from tidewarden_services.detect.service import DetectService
from tidewarden_services.ingest.service import IngestService
from tidewarden_services.ingest.sources.kafka import KafkaSource
from tidewarden_services.runtime import Runner
from tidewarden_services.state import MemoryState

WARM = 0.25  # of the records
METRICS_A_NODE = 4


class Watch:
    """Counts records, and takes the times once it is warm."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._warm = int(count * WARM)
        self._seen = 0
        self._readings = 0
        self._began: tuple[float, float, int] | None = None
        self.result: dict[str, float] = {}

    def note(self, records: int, readings: int) -> bool:
        """So many more are done; whether these were the last."""
        self._seen += records
        self._readings += readings
        if self._began is None and self._seen >= self._warm:
            self._began = time.process_time(), time.perf_counter(), self._readings
        return self._seen >= self._count

    def end(self) -> None:
        """Everything is done, what was published is acknowledged."""
        assert self._began is not None
        cpu, wall, before = self._began
        self.result = {
            "readings": self._readings - before,
            "cpu_s": time.process_time() - cpu,
            "wall_s": time.perf_counter() - wall,
        }


def resources(topic: str, model: str) -> tuple[MetricStream, AnomalyDetector]:
    stream = MetricStream.model_validate(
        {
            "metadata": {"name": TOPICS.stream, "namespace": TOPICS.namespace},
            "spec": {"tenants": ["shop"], "interval": "1m", "sources": [{"name": "in", "kafka": {"topic": topic}}]},
        }
    )
    detector = AnomalyDetector.model_validate(
        {"metadata": {"name": "watch"}, "spec": {"stream": TOPICS.stream, "model": {"kind": model}}}
    )
    return stream, detector


def consume(address: str, topic: str, watch: Watch) -> None:
    """Nothing but taking messages out of the client: what no pipeline can be faster than."""
    raw = RawConsumer(topic, {"bootstrap.servers": address})
    raw.assign(dict.fromkeys(raw.partitions(30.0), 0))
    while not watch.note(got := sum(len(part.offsets) for part in raw.poll(1.0)), got):
        pass
    watch.end()
    raw.close()


def frames(address: str, topic: str, watch: Watch, model: str) -> None:
    """The detect pod: poll, decode, score, publish scores and anomalies, snapshots, commits."""
    stream, detector = resources(topic, model)
    series, clock, telemetry = SeriesTable(), SystemClock(), Telemetry()
    own = bus(address, series, f"bench-{model}")
    stop = threading.Event()

    def published(record: Record) -> None:
        if not stop.is_set() and watch.note(1, len(record.value)):
            own.sync()
            watch.end()
            stop.set()

    runner = Runner(
        f"detect.{model}.{os.getpid()}",  # of its own: no snapshot to go on from
        "readings",
        lambda partition: DetectService(detector, stream, series, telemetry, clock, partition=partition),
        stream=TOPICS,
        bus=own,
        state=own.state(TOPICS.state("watch")),
        telemetry=telemetry,
        clock=clock,
        on_published=published,
        member="bench-0",
    )
    runner.run(stop)
    own.close()


def _counted(source: KafkaSource, a_message: int, watch: Watch, stop: threading.Event) -> Iterator[Batch]:
    for batch in source.batches(None, stop):
        if batch.refused:
            raise RuntimeError(f"refused: {batch.refused[0].detail}")
        yield batch
        if watch.note(len(batch.frame) // a_message, len(batch.frame)):
            return


def scored(address: str, topic: str, watch: Watch, model: str, a_message: int) -> None:
    """JSON, parsed by the kafka source, scored in the same process; anomalies are published."""
    stream, detector = resources(topic, model)
    series = SeriesTable()
    source = KafkaSource(stream, stream.spec.sources[0], series, SystemClock(), {"bootstrap.servers": address})
    scorer = Scorer(ScorerConfig.of(detector, stream), series)
    own = bus(address, series, f"bench-{topic}")
    for batch in _counted(source, a_message, watch, threading.Event()):
        anomalies = scorer.score(batch.frame).anomalies
        if anomalies:
            said = AnomalyBatch(
                detector="watch", anomalies=anomalies, watermarks={"shop": int(batch.frame.timestamp.max())}
            )
            own.publish(TOPICS.name("anomalies"), said, key="shop")
    own.sync()
    watch.end()
    own.close()


def ingested(address: str, topic: str, watch: Watch, a_message: int) -> None:
    """The ingest pod: JSON, parsed, validated, published as frames."""
    stream, _ = resources(topic, "density")
    series, clock = SeriesTable(), SystemClock()
    source = KafkaSource(stream, stream.spec.sources[0], series, clock, {"bootstrap.servers": address})
    own = bus(address, series, f"bench-ingest-{topic}")
    original, stop = source.batches, threading.Event()

    def batches(position: str | None, stop: threading.Event) -> Iterator[Batch]:
        for batch in original(position, stop):
            yield batch
            if watch.note(len(batch.frame) // a_message, len(batch.frame)):
                own.sync()
                watch.end()
                return

    source.batches = batches  # type: ignore[method-assign]
    state = MemoryState()
    IngestService(
        stream, source, own, TOPICS, series, clock, Telemetry(),
        load_state=lambda: state.load("in"), save_state=lambda content: state.save("in", content), sync=own.sync,
    ).run(stop)  # fmt: skip
    own.close()


def main() -> None:
    role, address, topic, number = sys.argv[1:5]
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    keep_freed_memory()  # both as every pod does
    look_seldom_for_cycles()
    count = int(number)
    watch = Watch(count)
    model = sys.argv[5] if len(sys.argv) > 5 else "density"
    if role == "consume":
        consume(address, topic, watch)
    elif role == "frames":
        frames(address, topic, watch, model)
    else:
        what, shape = role.split("-")
        a_message = METRICS_A_NODE if shape == "node" else 1
        if what == "score":
            scored(address, topic, watch, model, a_message)
        else:
            ingested(address, topic, watch, a_message)
    print(json.dumps(watch.result))


if __name__ == "__main__":
    main()
