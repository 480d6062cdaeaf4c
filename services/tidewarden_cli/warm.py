"""Compile kernels once, into the on-disk cache, so that no later start has to.

``python -m tidewarden_cli.warm`` at installation, for the models that most begin with; ``--all`` at image build and
before the tests, for every model (minutes). It plays a tiny fleet through the whole pipeline and reads a few
messages, which calls every kernel with the types it is called with in earnest.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

FLEET = """\
apiVersion: tidewarden.dev/v1alpha1
kind: MetricStream
metadata: {name: warm}
spec: {tenants: [warm], interval: 1m}
---
apiVersion: tidewarden.dev/v1alpha1
kind: MetricSimulation
metadata: {name: warm}
spec:
  stream: warm
  fleet: {tenants: [warm], clusters: 1, nodes: 2, metrics: [latency_ms, error_rate]}
  points: 400
  speed: 0
  anomalies: {ratio: 1.0}
"""
DETECTOR = """\
---
apiVersion: tidewarden.dev/v1alpha1
kind: AnomalyDetector
metadata: {name: %(name)s}
spec: {stream: warm, model: {kind: %(kind)s%(parameters)s}}
"""
MESSAGE = b'{"tenant":"warm","cluster":"a","node":"n%d","timestamp":1767225600000,"metric":"latency_ms","value":1.5}'
NEEDED = {  # by kinds that cannot do without
    "static": ", static: {upper: 500}",
    "ensemble": ", ensemble: {members: [{kind: ewma}, {kind: static, static: {upper: 500}}]}",
}
FIRST = ("auto", "ewma", "mad", "seasonal", "static")
PATIENCE_S = 1200.0


def fleet(kinds: Sequence[str]) -> str:
    """Resources of the tiny fleet, with a detector of each of these kinds."""
    from tidewarden.resources.models import PARAMETERS

    needed = {kind: NEEDED.get(kind, "" if kind in PARAMETERS else ", parameters: {}") for kind in kinds}
    detectors = [
        DETECTOR % {"kind": kind, "name": f"warm-{kind.replace('_', '-')}", "parameters": needed[kind]}
        for kind in kinds
    ]
    return FLEET + "".join(detectors)


def warm(kinds: Sequence[str]) -> float:
    """Play the fleet through models of these kinds; seconds it took. TimeoutError after twenty minutes."""
    from tidewarden.resources.loader import load
    from tidewarden_cli.local.pipeline import LocalPipeline

    began = time.monotonic()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "warm.yaml"
        path.write_text(fleet(kinds))
        pipeline = LocalPipeline(load([path]), None)
        pipeline.start()
        while not pipeline.finished():
            if pipeline.crew.failed.wait(0.05):
                break
            if time.monotonic() - began > PATIENCE_S:
                raise TimeoutError("kernels did not compile within twenty minutes")
        pipeline.stop()
        if pipeline.crew.failure is not None:
            raise pipeline.crew.failure[1]
        _read_messages(path)
    return time.monotonic() - began


def _read_messages(resources: Path) -> None:
    """Messages of a kafka source, of so many nodes that the table of names has to grow."""
    from tidewarden.frames import SeriesTable
    from tidewarden.resources.loader import load
    from tidewarden_services.ingest.sources.columns import SeriesIndex
    from tidewarden_services.ingest.sources.json_messages import FIRST_ENTRIES, MessageParser

    [stream] = load([resources]).streams
    parser = MessageParser(SeriesIndex(stream, SeriesTable()))
    parser.parse([MESSAGE % node for node in range(FIRST_ENTRIES + 1)], str)


if __name__ == "__main__":
    from tidewarden.models.registry import kinds as known

    warm(known() if "--all" in sys.argv[1:] else FIRST)
