"""Latency through a real Kafka, of two pods at 10,000 readings a second in JSON.

From the last message of a tick, written, to the arrival of the last score of that tick at a third process;
`tidewarden run ingest` and `tidewarden run detect` lie between. Wall time, so only an idle machine says what it should.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.kafka_load import NODES, SERIES, broker, bus, fill_json, node_messages
from benchmarks.report import Result, print_table
from tidewarden.frames import SeriesTable

PACED_READINGS_PER_S = 10_000
PACED_S = 30
PACED_WARM_S = 20  # kernels are loaded, the series' warm-up is over
RESOURCES = """\
apiVersion: tidewarden.dev/v1alpha1
kind: MetricStream
metadata: {name: paced, namespace: bench}
spec: {tenants: [shop], interval: 1m, sources: [{name: in, kafka: {topic: paced-json}}]}
---
apiVersion: tidewarden.dev/v1alpha1
kind: AnomalyDetector
metadata: {name: watch, namespace: bench}
spec: {stream: paced, model: {kind: density}}
"""


def run() -> Iterator[Result]:
    """Percentiles of the ticks, and the share within what is promised."""
    with broker() as address:
        yield from _paced(address)


def _paced(address: str) -> Iterator[Result]:
    from servers.roles import Roles

    with tempfile.TemporaryDirectory() as folder:
        roles = Roles(Path(folder), RESOURCES, address, "http://127.0.0.1:9", "bench")
        roles.add("ingest", "ingest", "--stream", "paced", "--source", "in")
        roles.add("detect", "detect", "--name", "watch", "--member", "watch-0")
        roles.write_settings()
        fill_json(address, "paced-json", ())
        roles.start_all()
        try:
            roles.wait("ready", lambda: all(one.ready() for one in roles.processes.values()), 120)
            steady = _latencies(address)
        finally:
            roles.close()
    for percentile in (50, 99):
        value = float(np.percentile(steady, percentile)) * 1000
        yield Result("kafka-latency", f"tick complete → scored, 10,000 readings/s, {percentile} %", value, "ms")
    within = float((np.array(steady) <= 0.15).mean()) * 100
    yield Result("kafka-latency", "of the ticks within 150 ms", within, "%")


def _latencies(address: str) -> list[float]:
    """Seconds from each tick's last message to its last score, those of the warm-up left out."""
    from confluent_kafka import Producer

    per_tick_s = SERIES / PACED_READINGS_PER_S
    warm, ticks = int(PACED_WARM_S / per_tick_s), int((PACED_WARM_S + PACED_S) / per_tick_s)
    complete: dict[int, float] = {}
    scored: dict[int, float] = {}
    left: dict[int, int] = {}
    own = bus(address, SeriesTable(), "bench-listener")
    listener = own.consumer(["bench.paced.scores"], "bench-listener")
    ended = threading.Event()

    def listen() -> None:
        while not ended.is_set():
            for record in listener.poll(64, 0.05):
                now = time.perf_counter()
                at, counts = np.unique(record.value.timestamp, return_counts=True)
                for tick, n in zip(at.tolist(), counts.tolist(), strict=True):
                    left[tick] = left.get(tick, SERIES) - n
                    if left[tick] == 0:
                        scored[tick] = now

    watcher = threading.Thread(target=listen)
    watcher.start()
    producer = Producer({"bootstrap.servers": address, "enable.idempotence": True, "linger.ms": 2})
    messages = node_messages(ticks)
    pause = threading.Event()
    began = time.perf_counter()
    for tick in range(ticks):
        pause.wait(max(0.0, began + tick * per_tick_s - time.perf_counter()))
        for _ in range(NODES):
            key, value = next(messages)
            producer.produce("paced-json", value, key)
        complete[json.loads(value)["timestamp"]] = time.perf_counter()
        producer.poll(0)
    producer.flush(30)
    deadline = time.perf_counter() + 60
    while len(scored) < ticks and time.perf_counter() < deadline:
        pause.wait(0.1)
    ended.set()
    watcher.join()
    own.close()
    last = list(complete)[warm:]
    lost = [tick for tick in last if tick not in scored]
    if lost:
        raise RuntimeError(f"{len(lost)} of {len(last)} ticks were not scored")
    return [scored[tick] - complete[tick] for tick in last]


if __name__ == "__main__":
    print_table(run())
