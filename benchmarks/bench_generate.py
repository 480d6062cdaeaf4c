"""Making labelled metrics: 1,000 nodes × 3 metrics × 1,440 points, CPU seconds after import, beside the csv module.

    python benchmarks/bench_generate.py [--runs 3] [--json FILE]

A line of JSON for each subject: bench, subject, value, unit, ratio (to the slowest way of doing the same).
The least of the runs is told: what else the machine does can only add to it.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path

from tidewarden.events import AnomalyKind
from tidewarden.resources.metricsimulation import Anomalies, Fleet
from tidewarden_simulator.fleets import FleetMaker
from tidewarden_simulator.generate import BLOCK_READINGS, Format, write_fleet
from tidewarden_simulator.writers import COLUMNS

POINTS = 1_440
START_MS = 1_767_225_600_000
FLEET = Fleet(tenants=["sim"], nodes=1_000, metrics=["latency_ms", "error_rate", "throughput"])
READINGS = 3_000 * POINTS
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


def main() -> None:
    """Measure, print a table, write JSON lines."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = {
            "readings only": least(options.runs, make),
            "with Parquet": least(options.runs, lambda: write(Format.PARQUET, folder)),
            "with CSV": least(options.runs, lambda: write(Format.CSV, folder)),
            "csv module (scaled from 1/30)": least(1, lambda: peer(folder)) * POINTS / PEER_POINTS,
        }
    slowest = max(seconds.values())
    print(f"{READINGS:,} labelled readings of 3,000 series")
    for subject, value in seconds.items():
        print(
            f"  {subject:32} {value:6.2f} s CPU   {READINGS / value / 1e6:6.1f} M readings/s   × {slowest / value:.1f}"
        )
    if options.json:
        with options.json.open("a") as file:
            for subject, value in seconds.items():
                line = {"bench": "generate", "subject": subject, "value": round(value, 4), "unit": "s"}
                file.write(json.dumps({**line, "ratio": round(slowest / value, 2)}) + "\n")


if __name__ == "__main__":
    main()
