"""Making labelled metrics: 1,000 nodes × 3 metrics × 1,440 points, CPU seconds after import, beside the csv module.

The least of the runs is told: what else the machine does can only add to it.
"""

from __future__ import annotations

import csv
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.report import Result
from tidewarden.events import AnomalyKind
from tidewarden.resources.metricsimulation import Anomalies, Fleet
from tidewarden_simulator.fleets import FleetMaker
from tidewarden_simulator.generate import BLOCK_READINGS, Format, write_fleet
from tidewarden_simulator.writers import COLUMNS

POINTS = 1_440
START_MS = 1_767_225_600_000
FLEET = Fleet(tenants=["sim"], nodes=1_000, metrics=["latency_ms", "error_rate", "throughput"])
READINGS = 3_000 * POINTS
RUNS = 3
PEER_POINTS = 48  # the peer gets a thirtieth of the work, or it would take longer than all others together


def cpu_s() -> float:
    """CPU seconds of this process so far, all its threads, the kernel's share included."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def make() -> None:
    """Only make the readings."""
    maker = FleetMaker(FLEET, Anomalies(), seed=7, interval_ms=60_000, start_ms=START_MS, points=POINTS)
    ticks = BLOCK_READINGS // 3_000
    for first in range(0, POINTS, ticks):
        maker.block(first, min(POINTS, first + ticks))


def write(kind: Format, folder: Path) -> None:
    """Make and write them."""
    write_fleet(FLEET, Anomalies(), seed=7, interval_ms=60_000, start_ms=START_MS, points=POINTS, output_dir=folder,
                format=kind)  # fmt: skip


def peer(folder: Path) -> None:
    """Write a thirtieth of them with the standard library's csv module."""
    maker = FleetMaker(FLEET, Anomalies(), seed=7, interval_ms=60_000, start_ms=START_MS, points=POINTS)
    block = maker.block(0, PEER_POINTS)
    with (folder / "peer.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for time, values, labels in zip(block.timestamp.tolist(), block.value, block.label, strict=True):
            for key, value, label in zip(maker.keys, values.tolist(), labels.tolist(), strict=True):
                rows.writerow((time, *key, value, int(label != 0), AnomalyKind(label).label))


def least(runs: int, work: Callable[[], None]) -> float:
    """CPU seconds of the quickest of ``runs`` runs."""
    times = []
    for _ in range(runs):
        begun = cpu_s()
        work()
        times.append(cpu_s() - begun)
    return min(times)


def run() -> Iterator[Result]:
    """CPU seconds of each subject; ``ratio`` is how many times the csv module's seconds they are quicker."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slowest = least(1, lambda: peer(folder)) * POINTS / PEER_POINTS
        seconds = {
            "readings only": least(RUNS, make),
            "with Parquet": least(RUNS, lambda: write(Format.PARQUET, folder)),
            "with CSV": least(RUNS, lambda: write(Format.CSV, folder)),
            "csv module (scaled from 1/30)": slowest,
        }
    for subject, value in seconds.items():
        yield Result("generate", subject, value, "s CPU", slowest / value)
