"""Readings a second and core of every kind of model over 1,000 series, alone and scoring as the detect service does.

Seconds are CPU seconds of this process, so that a busy machine blurs the figures less.

Alone, a model is measured with its memory full: `WARM_SERIES` series have seen `WARM_TICKS` ticks, and every other
series starts from the state of one of them. From there the same `ROUND_TICKS` ticks are observed several times, in
frames of ten; the best of the rounds counts. In the scorer each model starts cold.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.report import Result
from tidewarden.frames import Frame, SeriesKey, SeriesTable
from tidewarden.models.contract import Judgement, Model, State
from tidewarden.models.registry import build, kinds
from tidewarden.resources import AnomalyDetectorSpec
from tidewarden.resources.models import at_defaults
from tidewarden.scoring.scorer import Scorer, ScorerConfig

DAY_MS = 86_400_000
INTERVAL_MS = 60_000
FRAME_TICKS = 10
SERIES = 1_000
POINTS = 600
WARM_SERIES = 20
WARM_TICKS = 3_000
"""More than the longest warm-up (two days) and than what any kind remembers at its defaults (1,440 readings)."""
ROUND_TICKS = 260
"""Holds four of the neighbours' settlings (every 64 readings) and one period of the half-space trees (250)."""
ROUNDS_CPU_S = 0.5
"""Rounds go on until they took that long, but there are three at least (15 s for the slowest kind) …"""
MOST_ROUNDS = 20
"""… and no more than these."""
LEAST_ROUNDS = 3


def fleet(n_series: int, n: int, first_tick: int = 0) -> Frame:
    """Noisy daily waves, minute by minute, all series interleaved."""
    rng = np.random.default_rng(first_tick)
    table = SeriesTable(SeriesKey("t", "c", f"n{i // 4}", f"m{i % 4}") for i in range(n_series))
    timestamp = np.repeat(np.arange(first_tick, first_tick + n, dtype=np.int64) * INTERVAL_MS, n_series)
    value = 100 + 20 * np.sin(timestamp * 2 * np.pi / DAY_MS) + rng.normal(0, 5, n * n_series)
    return Frame(table, np.tile(np.arange(n_series, dtype=np.int32), n), timestamp, value)


BLOCKS: dict[str, dict[str, Any]] = {  # of kinds that cannot do without
    "static": {"lower": 0, "upper": 300},
    "ensemble": {"members": [{"kind": "ewma"}, {"kind": "mad"}, {"kind": "pca"}]},
}


def spec_of(kind: str) -> AnomalyDetectorSpec:
    model = at_defaults(kind) | ({kind: BLOCKS[kind]} if kind in BLOCKS else {})
    return AnomalyDetectorSpec.model_validate({"stream": "bench", "model": model})


def observe(model: Model, frame: Frame) -> None:
    model.observe(frame.series, frame.timestamp, frame.value, np.ones(len(frame), bool), Judgement.blank(len(frame)))


def grown(kind: str) -> State:
    """What a model of `SERIES` series remembers after `WARM_TICKS` ticks."""
    model = build(spec_of(kind).model, (DAY_MS,), INTERVAL_MS)
    model.resize(WARM_SERIES)
    observe(model, fleet(WARM_SERIES, WARM_TICKS))
    rows = np.arange(SERIES) % WARM_SERIES
    # `static` alone has no array of series, but their number.
    return {name: array[rows] if len(array) == WARM_SERIES else array for name, array in model.snapshot().items()}


def model_alone(kind: str, frame: Frame) -> float:
    """Readings a second of ``frame``, which goes on where `grown` ends."""
    state = grown(kind)
    model = build(spec_of(kind).model, (DAY_MS,), INTERVAL_MS)
    size = FRAME_TICKS * SERIES
    frames = [frame.take(slice(at, at + size)) for at in range(0, len(frame), size)]
    learn = np.ones(size, bool)
    out = Judgement.blank(size)
    rounds: list[float] = []
    while len(rounds) < LEAST_ROUNDS or (sum(rounds) < ROUNDS_CPU_S and len(rounds) < MOST_ROUNDS):
        model.restore(state)
        model.resize(SERIES)
        start = time.process_time()
        for part in frames:
            model.observe(part.series, part.timestamp, part.value, learn, out)
        rounds.append(time.process_time() - start)
    return len(frame) / min(rounds)


def whole_scorer(kind: str, frame: Frame) -> tuple[float, int]:
    scorer = Scorer(ScorerConfig("bench", "bench", spec_of(kind)), frame.table)
    scorer.score(frame.take(slice(0, SERIES)))
    start = time.process_time()
    size = FRAME_TICKS * SERIES
    for at in range(SERIES, len(frame), size):
        scorer.score(frame.take(slice(at, at + size)))
    return (len(frame) - SERIES) / (time.process_time() - start), scorer.state_bytes_per_series


def run() -> Iterator[Result]:
    """Speed of each model alone and in the whole scorer, and its state; ``ratio`` is against `auto`."""
    later = fleet(SERIES, ROUND_TICKS, WARM_TICKS)
    alone = {kind: model_alone(kind, later) for kind in kinds()}
    for kind in kinds():
        yield Result("model", kind, alone[kind], "readings/s/core", alone[kind] / alone["auto"])
    frame = fleet(SERIES, POINTS)
    whole = {kind: whole_scorer(kind, frame) for kind in kinds()}
    for kind in kinds():
        yield Result("scorer", kind, whole[kind][0], "readings/s/core", whole[kind][0] / whole["auto"][0])
    for kind in kinds():
        yield Result("state", kind, whole[kind][1], "bytes/series", whole[kind][1] / whole["auto"][1])
