"""Readings a second and core of every model over 1,000 series, alone and scoring as the detect service does.

Seconds are CPU seconds of this process, so that a busy machine blurs the figures less.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.report import Result
from tidewarden.frames import Frame, SeriesKey, SeriesTable
from tidewarden.models.contract import Judgement
from tidewarden.models.registry import build, kinds
from tidewarden.resources import AnomalyDetectorSpec
from tidewarden.scoring.scorer import Scorer, ScorerConfig

DAY_MS = 86_400_000
FRAME_READINGS = 10_000
SERIES = 1_000
POINTS = 600


def fleet(n_series: int, n: int) -> Frame:
    """Noisy daily waves, minute by minute, all series interleaved."""
    rng = np.random.default_rng(0)
    table = SeriesTable(SeriesKey("t", "c", f"n{i // 4}", f"m{i % 4}") for i in range(n_series))
    timestamp = np.repeat(np.arange(n, dtype=np.int64) * 60_000, n_series)
    value = 100 + 20 * np.sin(timestamp * 2 * np.pi / DAY_MS) + rng.normal(0, 5, n * n_series)
    return Frame(table, np.tile(np.arange(n_series, dtype=np.int32), n), timestamp, value)


BLOCKS: dict[str, dict[str, Any]] = {  # of kinds that cannot do without
    "static": {"lower": 0, "upper": 300},
    "ensemble": {"members": [{"kind": "ewma"}, {"kind": "mad"}, {"kind": "pca"}]},
}


def spec_of(kind: str) -> AnomalyDetectorSpec:
    block = BLOCKS.get(kind, {})
    return AnomalyDetectorSpec.model_validate({"stream": "bench", "model": {"kind": kind, kind: block}})


def model_alone(kind: str, frame: Frame) -> float:
    model = build(spec_of(kind).model, (DAY_MS,), 60_000)
    model.resize(len(frame.table))
    learn = np.ones(len(frame), bool)
    first = len(frame.table)
    warm = Judgement.blank(first)
    model.observe(frame.series[:first], frame.timestamp[:first], frame.value[:first], learn[:first], warm)
    out = Judgement.blank(len(frame))
    start = time.process_time()
    model.observe(frame.series, frame.timestamp, frame.value, learn, out)
    return len(frame) / (time.process_time() - start)


def whole_scorer(kind: str, frame: Frame) -> tuple[float, int]:
    scorer = Scorer(ScorerConfig("bench", "bench", spec_of(kind)), frame.table)
    scorer.score(frame.take(slice(0, len(frame.table))))
    start = time.process_time()
    for at in range(len(frame.table), len(frame), FRAME_READINGS):
        scorer.score(frame.take(slice(at, at + FRAME_READINGS)))
    return (len(frame) - len(frame.table)) / (time.process_time() - start), scorer.state_bytes_per_series


def run() -> Iterator[Result]:
    """Speed of each model alone and in the whole scorer, and its state; ``ratio`` is against `auto`."""
    frame = fleet(SERIES, POINTS)
    alone = {kind: model_alone(kind, frame) for kind in kinds()}
    whole = {kind: whole_scorer(kind, frame) for kind in kinds()}
    for kind in kinds():
        yield Result("model", kind, alone[kind], "readings/s/core", alone[kind] / alone["auto"])
    for kind in kinds():
        yield Result("scorer", kind, whole[kind][0], "readings/s/core", whole[kind][0] / whole["auto"][0])
    for kind in kinds():
        yield Result("state", kind, whole[kind][1], "bytes/series", whole[kind][1] / whole["auto"][1])
