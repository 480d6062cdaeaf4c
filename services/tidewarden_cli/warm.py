"""Compile every kernel once, into the on-disk cache, so that no later start has to.

Run at installation and image build: ``python -m tidewarden_cli.warm``. It plays a tiny fleet through
the whole pipeline, which calls every kernel with the types it is called with in earnest.
"""

from __future__ import annotations

import time
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
PARAMETERS = {"static": ", static: {upper: 500}"}  # of kinds that cannot do without
PATIENCE_S = 600.0


def warm() -> float:
    """Play the fleet through every model; seconds it took. TimeoutError after ten minutes."""
    from tidewarden.models.registry import kinds
    from tidewarden.resources.loader import load
    from tidewarden_cli.local.pipeline import LocalPipeline

    began = time.monotonic()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "warm.yaml"
        detectors = [
            DETECTOR % {"kind": kind, "name": f"warm-{kind.replace('_', '-')}", "parameters": PARAMETERS.get(kind, "")}
            for kind in kinds()
        ]
        path.write_text(FLEET + "".join(detectors))
        pipeline = LocalPipeline(load([path]), None)
        pipeline.start()
        while not pipeline.finished():
            if pipeline.crew.failed.wait(0.05):
                break
            if time.monotonic() - began > PATIENCE_S:
                raise TimeoutError("kernels did not compile within ten minutes")
        pipeline.stop()
        if pipeline.crew.failure is not None:
            raise pipeline.crew.failure[1]
    return time.monotonic() - began


if __name__ == "__main__":
    warm()
