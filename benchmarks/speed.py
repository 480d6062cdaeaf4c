"""The file that the catalogue of models takes its measured speeds from."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from pathlib import Path

from benchmarks.report import Result

BENCH = "model"
"""The figures of this bench are the catalogue's."""


def write_speeds(results: Iterable[Result], path: Path) -> None:
    """Readings a second and core of each kind of model in ``results``, sorted, and the processor's name, as JSON."""
    speeds = {result.subject: round(result.value) for result in results if result.bench == BENCH}
    document = {"cpu": cpu_name(), "readings_per_s_core": dict(sorted(speeds.items()))}
    path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What Linux calls the processor; elsewhere what Python knows of it."""
    if cpuinfo.exists():
        for line in cpuinfo.read_text("utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
