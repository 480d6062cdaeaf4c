"""The whole pipeline in one process, as `tidewarden up` runs it: throughput, and latency at a steady pace.

- ``pipeline``: a fleet of 1,000 series × 1,440 readings at speed 0 through validation, `auto`, rollup and the
  embedded store (all readings and scores kept); readings a second on the wall clock, after one run to warm up.
- ``pipeline-journaled``: the same with a data directory, so that it would survive a kill; its ratio is against
  the first.
- ``latency``: the same fleet paced at 10,000 readings a second for half a minute; milliseconds from a reading's
  arrival at ingest to its score on the bus, by percentile.

Simulation and pipeline share the machine's cores: the figure is what a user of one machine gets.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.report import Result
from tidewarden.resources.loader import load
from tidewarden_cli.local.pipeline import LocalPipeline

RESOURCES = """\
apiVersion: tidewarden.dev/v1alpha1
kind: MetricStream
metadata: {{name: bench}}
spec: {{tenants: [shop], interval: 1m}}
---
apiVersion: tidewarden.dev/v1alpha1
kind: MetricSimulation
metadata: {{name: fleet}}
spec:
  stream: bench
  fleet: {{tenants: [shop], clusters: 2, nodes: 125, metrics: [latency_ms, error_rate, throughput, cpu_percent]}}
  points: {points}
  speed: {speed}
  anomalies: {{ratio: 0.3}}
---
apiVersion: tidewarden.dev/v1alpha1
kind: AnomalyDetector
metadata: {{name: watch}}
spec: {{stream: bench, model: {{kind: auto}}}}
"""
SERIES = 1_000
POINTS = 1_440
PACED_READINGS_PER_S = 10_000
PACED_S = 30
PATIENCE_S = 300.0


def run() -> Iterator[Result]:
    """The three figures."""
    _play(speed=0, points=300, data_dir=None)  # kernels loaded, files cached
    plain = SERIES * POINTS / _play(speed=0, points=POINTS, data_dir=None)[0]
    yield Result("pipeline", "auto, embedded store, 1,000 series", plain, "readings/s")
    with TemporaryDirectory() as folder:
        journaled = SERIES * POINTS / _play(speed=0, points=POINTS, data_dir=Path(folder) / "data")[0]
    yield Result("pipeline-journaled", "the same with --data-dir", journaled, "readings/s", journaled / plain)
    ticks_per_s = PACED_READINGS_PER_S / SERIES
    _, latencies = _play(speed=60 * ticks_per_s, points=int(PACED_S * ticks_per_s), data_dir=None)
    steady = latencies[len(latencies) // 10 :]
    for percentile in (50, 99):
        value = float(np.percentile(steady, percentile)) * 1000
        yield Result("latency", f"paced at 10,000 readings/s, {percentile} %", value, "ms")


def _play(*, speed: float, points: int, data_dir: Path | None) -> tuple[float, list[float]]:
    """Seconds until everything is in the store, and the latency of each frame in order."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "bench.yaml"
        path.write_text(RESOURCES.format(points=points, speed=speed))
        pipeline = LocalPipeline(load([path]), data_dir)
        latencies: list[float] = []
        listener = pipeline.bus.consumer([pipeline.topics["bench"].name("scores")], "bench")
        ended = threading.Event()

        def listen() -> None:
            while not ended.is_set():
                for record in listener.poll(64, 0.05):
                    latencies.extend([time.time() - float(record.headers["arrived"])])

        watcher = threading.Thread(target=listen)
        began = time.monotonic()
        watcher.start()
        pipeline.start()
        while not pipeline.finished():
            if pipeline.crew.failed.wait(0.01) or time.monotonic() - began > PATIENCE_S:
                raise RuntimeError(f"the pipeline did not finish: {pipeline.crew.failure}")
        seconds = time.monotonic() - began
        ended.set()
        watcher.join()
        pipeline.stop()
    return seconds, latencies
