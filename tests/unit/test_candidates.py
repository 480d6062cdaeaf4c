"""A candidate beside its champion: who answers, what is counted, who is promoted and who goes back."""

from __future__ import annotations

import numpy as np

from tidewarden.bus.port import Record
from tidewarden.clock import ManualClock
from tidewarden.frames import Frame, SeriesKey, SeriesTable
from tidewarden.resources import AnomalyDetector, MetricStream
from tidewarden.scoring.candidates import Contest
from tidewarden.telemetry import Telemetry
from tidewarden_services.detect.service import DetectService

STEP_MS = 60_000
KEYS = [SeriesKey("shop", "eu", f"n{i // 3}", f"m{i % 3}") for i in range(12)]
STREAM = MetricStream.model_validate({"metadata": {"name": "shop"}, "spec": {"tenants": ["shop"], "interval": "1m"}})
CALM = {"kind": "ewma", "ewma": {"warmup": 40}}
TIGHT = {"kind": "static", "static": {"upper": 104.0}}  # sees a normal reading in five as an alarm
WIDE = {"kind": "static", "static": {"upper": 150.0}}
BOTH = {"promote": {"when": "better", "after": "1h"}}


def resource(model: dict, candidate: dict | None, **spec) -> AnomalyDetector:
    body = {"stream": "shop", "model": model, "seasonality": [], **spec}
    if candidate is not None:
        body["candidate"] = candidate
    return AnomalyDetector.model_validate({"metadata": {"name": "watch"}, "spec": body})


def records(table: SeriesTable, n: int, seed: int = 0) -> list[Frame]:
    """Noise with a large spike of three readings in each series now and then."""
    rng = np.random.default_rng(seed)
    ids = table.ids_of(KEYS)
    value = rng.normal(100, 5, (n, len(ids)))
    for series in range(len(ids)):
        for at in range(90 + series, n - 20, 180):
            value[at : at + 3, series] += 100
    return [Frame(table, ids, np.full(len(ids), i * STEP_MS, np.int64), value[i]) for i in range(n)]


def service(detector: AnomalyDetector, table: SeriesTable) -> DetectService:
    return DetectService(detector, STREAM, table, Telemetry(), ManualClock())


def plain(outputs) -> list:
    """Outputs as they can be compared to the bit."""
    said = []
    for out in outputs:
        if out.purpose == "scores":
            f = out.value
            columns = (f.series, f.timestamp, f.value, f.anomaly_score, f.p_value, f.flags)
            said.append((f.model_version, out.time, *(c.tobytes() for c in columns)))
        else:
            said.append((out.value, out.time))
    return said


def handled(at: DetectService, frames: list[Frame]) -> list:
    return [said for frame in frames for said in plain(at.handle(_record(frame)))]


def _record(frame: Frame) -> Record:
    return Record("readings", 0, 0, "k", frame, {})


def contest_of(made: DetectService) -> Contest:
    assert isinstance(made._scorer, Contest)
    return made._scorer


def test_a_shadow_changes_nothing_that_is_said() -> None:
    """With a candidate in shadow scores and anomalies are those without it, to the bit."""
    table = SeriesTable(KEYS)
    frames = records(table, 300)
    alone = handled(service(resource(CALM, None), table), frames)
    assert handled(service(resource(CALM, {"model": WIDE}), table), frames) == alone
