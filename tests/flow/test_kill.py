"""Killed with -9 at any moment and started again, the pipeline ends with exactly the same results."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from pathlib import Path

import pyarrow as pa
import pytest

from tidewarden.store.embedded import EmbeddedStore
from tidewarden.store.port import Query

KILLS = 26  # with one partition, and again with four
RESOURCES = """\
apiVersion: tidewarden.dev/v1alpha1
kind: MetricStream
metadata: {name: shop}
spec: {tenants: [shop, bank], interval: 1m}
---
apiVersion: tidewarden.dev/v1alpha1
kind: MetricSimulation
metadata: {name: fleet}
spec:
  stream: shop
  seed: 11
  start: 2026-01-05T00:00:00Z
  fleet: {tenants: [shop, bank], clusters: 2, nodes: 3, metrics: [latency_ms, error_rate, throughput]}
  points: 2400
  speed: SPEED
  anomalies: {ratio: 0.6}
---
apiVersion: tidewarden.dev/v1alpha1
kind: AnomalyDetector
metadata: {name: watch}
spec: {stream: shop, alerting: {threshold: 0.7}}
---
apiVersion: tidewarden.dev/v1alpha1
kind: AlertPolicy
metadata: {name: page}
spec: {stream: shop, groupBy: [tenant, cluster], minSeverity: info}
"""
UNPACED = "0"
PACED = "36000"  # 600 points a second: about 4 s of playing, cut into pieces by the kills


def play(resources: Path, data_dir: Path, partitions: int, done: multiprocessing.synchronize.Event) -> None:
    """One process: run until everything is played, with snapshots so frequent that kills hit them, too."""
    from tidewarden.resources.loader import load
    from tidewarden_cli.local.pipeline import LocalPipeline

    pipeline = LocalPipeline(load([resources]), data_dir, snapshot_every_s=0.05, partitions=partitions)
    pipeline.start()
    while not pipeline.finished():
        if pipeline.crew.failed.wait(0.02):
            os._exit(3)
    pipeline.stop()
    done.set()


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.BaseContext:
    """A fork server with the product imported, so that so many starts cost seconds, not minutes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tidewarden_cli.local.pipeline", "tidewarden.resources.loader"])
    return context


def results(data_dir: Path) -> dict[str, pa.Table | list[object]]:
    """Everything the run has written down, in an order of its own."""
    store = EmbeddedStore(data_dir / "store.duckdb")
    everything = Query(limit=10_000_000, newest_first=False)
    order = [(name, "ascending") for name in ("tenant", "cluster", "node", "metric", "timestamp")]
    rollup_order = [(name, "ascending") for name in ("tenant", "cluster", "node", "timestamp")]
    found: dict[str, pa.Table | list[object]] = {
        "readings": store.readings(everything).sort_by(order),
        "rollups": store.rollups(everything).sort_by(rollup_order),
        "anomalies": sorted(store.anomalies(everything), key=lambda a: a.id),
        "alerts": sorted((alert for alert, _ in store.alerts(everything)), key=lambda a: a.id),
        "rejected": sorted(store.rejected(everything), key=lambda r: r.id),
    }
    store.close()
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("partitions", [1, 4])
def test_kills_change_nothing(tmp_path: Path, processes: multiprocessing.context.BaseContext, partitions: int) -> None:
    """After 26 kill -9 at random moments, every score, rollup, anomaly and alert equals the undisturbed run's.

    The undisturbed run has one partition and takes everything in large frames, the killed one may have four and
    takes it tick by tick: neither makes a difference.
    """
    calm = tmp_path / "calm.yaml"
    calm.write_text(RESOURCES.replace("SPEED", UNPACED))
    done = processes.Event()
    undisturbed = processes.Process(target=play, args=(calm, tmp_path / "calm", 1, done))
    undisturbed.start()
    undisturbed.join(240)
    assert done.is_set()
    expected = results(tmp_path / "calm")
    assert len(expected["readings"]) >= 2400 * 36
    assert len(expected["anomalies"]) >= 5
    assert len(expected["alerts"]) >= 1

    moments = random.Random(20261122 + partitions)
    kills = 0
    rounds = 0
    while kills < KILLS:
        rounds += 1
        paced = tmp_path / f"paced-{rounds}.yaml"
        paced.write_text(RESOURCES.replace("SPEED", PACED))
        kills += run_with_kills(processes, paced, tmp_path / f"data-{rounds}", partitions, moments)
        found = results(tmp_path / f"data-{rounds}")
        for what, content in expected.items():
            if isinstance(content, pa.Table):
                other = found[what]
                assert isinstance(other, pa.Table)
                assert content.num_rows == other.num_rows, what
                assert content.equals(other), what
            else:
                assert content == found[what], what


def run_with_kills(
    processes: multiprocessing.context.BaseContext,
    resources: Path,
    data_dir: Path,
    partitions: int,
    moments: random.Random,
) -> int:
    """Play to the end, killing on the way; how many times."""
    kills = 0
    done = processes.Event()
    while not done.is_set():
        process = processes.Process(target=play, args=(resources, data_dir, partitions, done))
        process.start()
        # From before the first byte is written to well into the middle; the last one may finish in peace.
        patience = moments.uniform(0.2, 1.6) if kills < 15 else 120.0
        process.join(patience)
        if process.is_alive() and process.pid is not None and kills < 15:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join(60)
        assert process.exitcode in (0, -signal.SIGKILL), "the pipeline failed by itself"
    return kills
