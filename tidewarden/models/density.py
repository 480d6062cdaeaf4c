"""`density`: how thinly populated is the place where this reading falls?

Eight features of a series (its scaled value, step, residual against the time of day, trailing means,
distance from them, roughness) and sparse random projections of them (LODA: Pevny 2016) each feed one
extendable histogram; surprise is the mean of -log density. Constant time and memory per reading.

Where it fails: a slow drift that stays inside the range already seen, and patterns longer than some
sixteen readings; `subspace` sees those. Histograms halve their counts every `AGE` readings, so what
happened `AGE` readings ago weighs half, and a lasting level shift is normal after some 5 % of `AGE`.

Anomalies are kept out of what is learned: a reading that is rare, or `OUTSIDE` mean deviations from
the level, weighs `OUTLIER_WEIGHT` in histograms, level and band, until `PATIENCE` such readings came in
a row; over `ACCEPTANCE` more its weight rises to 1. So an incident leaves the band where it was, and a
lasting change is the new normal after 60 readings. When counts age, a widened histogram closes in again.

A shift of a few deviations that lasts hardly shows in a mean over all features. So the trailing mean
of the residual, judged by its own long-run spread, adds to the surprise where it is beyond three sigma
and the reading is on the same side.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tidewarden.frames import BoolArray, FloatArray, IntArray, TimeArray
from tidewarden.models.contract import Judgement
from tidewarden.models.density_kernel import (
    EDGE,
    FEATURES,
    SEASON_BINS,
    STAT,
    Fixed,
    Rows,
    observe,
)
from tidewarden.models.density_lanes import SLOTS, Float32Array
from tidewarden.models.state import ArrayModel, Column, SeriesState
from tidewarden.scoring.calibration import ROW

FIT_MOST = 128
SEASON_MEMORY = 10.0  # seasons after which a bin's mean has mostly forgotten


def projections(seed: int, n: int) -> tuple[IntArray, Float32Array]:
    """Features and weights of ``n`` sparse random mixtures of unit length, each (n, 3)."""
    rng = np.random.default_rng(seed)
    picks = np.zeros((n, 3), np.int32)
    weights = np.zeros((n, 3), np.float32)
    for h in range(n):
        picks[h] = rng.choice(FEATURES, 3, replace=False)
        draw = rng.standard_normal(3)
        weights[h] = draw / np.sqrt((draw**2).sum())
    return picks, weights


class Density(ArrayModel):
    """Density of features and of sparse random projections of them."""

    kind: ClassVar[str] = "density"
    version: ClassVar[int] = 3

    def __init__(
        self,
        warmup: int,
        seasonality_ms: tuple[int, ...],
        interval_ms: int,
        seed: int = 0,
        n_projections: int = 4,
        *,
        alone: bool = False,
    ) -> None:
        # It keeps the tail of its own surprise anyway, to know what not to learn. So where nothing is added to the
        # surprise, calibrating it once more would only say the same again.
        self.calibrated = alone
        picks, weights = projections(seed, n_projections)
        seasons = np.array([season for season in seasonality_ms if season >= 4 * interval_ms], np.int64)
        per_visit = np.maximum(1.0, seasons / SEASON_BINS / interval_ms)
        self._fixed = Fixed(picks, weights, seasons, 1.0 / (SEASON_MEMORY * per_visit))
        lanes = FEATURES + n_projections
        state = SeriesState(
            buffer=Column((min(FIT_MOST, max(8, warmup // 2)),), np.float64),
            stat=Column((STAT,), np.float64),
            season=Column((len(seasons), SEASON_BINS, 2), np.float32),
            hist=Column((lanes, SLOTS), np.float32),
            edge=Column((EDGE, lanes), np.float32),
            tail=Column((ROW,), np.float64),
        )
        super().__init__(warmup, state)

    def observe(
        self, series: IntArray, timestamp: TimeArray, value: FloatArray, learn: BoolArray, out: Judgement
    ) -> None:
        """Score each reading in order, then learn from it where ``learn`` is set."""
        state = self._state
        rows = Rows(state["stat"], state["season"], state["hist"], state["edge"], state["tail"])
        observe(
            series, timestamp, value, learn, out.surprise, out.expected, out.lower, out.upper, state["buffer"], rows,
            self._fixed, self.calibrated,
        )  # fmt: skip
