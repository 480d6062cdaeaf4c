"""Through a real Kafka: one consumer process on one core, beside the same topic only consumed, and beside peers.

Speed is readings per second of a core: the CPU time of all threads of the process, which other work on the machine
hardly changes. ``ratio`` of ours is the share of what a process reaches that does nothing but take the same
messages out of the client, measured right before; of the peers, how many times faster ours is on the same topic.

Latency is that of two pods, `tidewarden run ingest` and `tidewarden run detect`, at 10,000 readings a second in
JSON: from the last message of a tick to the arrival of the last score of that tick at a third process. Wall time,
so only an idle machine says what it should.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.environments import PeerMissingError, python_of
from benchmarks.kafka_load import (
    FRAME_READINGS,
    METRICS,
    NODES,
    SERIES,
    TOPICS,
    broker,
    bus,
    fill_frames,
    fill_json,
    flat_messages,
    node_messages,
)
from benchmarks.report import Result, print_table
from tidewarden.frames import SeriesTable

FRAME_POINTS = 3_000  # readings of each series in frames: 3 million in all
NODE_POINTS = 1_600  # 400,000 messages with four readings each
FLAT_POINTS = 400  # 400,000 messages with one each
WORKER_TIMEOUT_S = 600.0
ROOT = Path(__file__).parent.parent
# Messages that each peer gets: some seconds of a core.
PEERS = (
    ("plain", "confluent-kafka + json", "quix", 200_000),
    ("river", "river GaussianScorer in that loop", "quix", 100_000),
    ("quix", "quix-streams", "quix", 100_000),
    ("faust", "faust-streaming", "faust", 20_000),
)

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
    """Frames, JSON in two shapes, peers, latency."""
    with broker() as address:
        frames = fill_frames(address, FRAME_POINTS)
        readings = TOPICS.name("readings")
        alone = _speed(_ours("consume", address, readings, frames)) * FRAME_READINGS
        yield Result("kafka", "frames of 10,000: consume only", alone, "readings/s/core")
        for model in ("density", "auto", "ewma"):
            speed = _speed(_ours("frames", address, readings, frames, model))
            yield Result("kafka", f"frames of 10,000: detect pod, {model}", speed, "readings/s/core", speed / alone)
        for shape, a_message, messages in (
            ("node", len(METRICS), node_messages(NODE_POINTS)),
            ("flat", 1, flat_messages(FLAT_POINTS)),
        ):
            what = f"JSON, {a_message} reading{'s' if a_message > 1 else ''} a message"
            count = fill_json(address, shape, messages)
            alone = _speed(_ours("consume", address, shape, count)) * a_message
            yield Result("kafka", f"{what}: consume only", alone, "readings/s/core")
            for role, words in (("score", "parse, score density, publish"), ("ingest", "ingest pod")):
                speed = _speed(_ours(f"{role}-{shape}", address, shape, count))
                yield Result("kafka", f"{what}: {words}", speed, "readings/s/core", speed / alone)
                if (role, shape) == ("score", "flat"):
                    ours = speed
        yield from _peers(address, ours)
        yield from _paced(address)


def _ours(role: str, address: str, topic: str, count: int, *more: str) -> dict[str, float]:
    return _said([sys.executable, "-m", "benchmarks.kafka_workers", role, address, topic, str(count), *more])


def _said(command: list[str], folder: Path = ROOT) -> dict[str, float]:
    """What a worker prints at its end, run in ``folder``."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=WORKER_TIMEOUT_S, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    found: dict[str, float] = json.loads(lines[-1])
    print(f"  {' '.join(command[1:])}: {found}", file=sys.stderr)
    return found


def _speed(said: dict[str, float]) -> float:
    return said["readings"] / said["cpu_s"]


def _peers(address: str, ours: float) -> Iterator[Result]:
    for peer, words, environment, count in PEERS:
        try:
            python = python_of(environment)
        except PeerMissingError as error:
            print(f"{words} is left out: {error}", file=sys.stderr)
            continue
        program = str(Path(__file__).parent / "kafka_peers.py")
        with tempfile.TemporaryDirectory() as folder:  # some leave files where they run
            speed = _speed(_said([str(python), program, peer, address, "flat", str(count)], Path(folder)))
        yield Result("kafka", f"JSON, 1 reading a message: {words}, z-score", speed, "readings/s/core", ours / speed)


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
