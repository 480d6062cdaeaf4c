"""`holt_winters`: residual of additive triple exponential smoothing, in mean absolute residuals.

A level, a damped trend and an offset for each step of each season (Holt 1957, Winters 1960), each moved by
its share of the one-step error. Right for signals with a season and a slow growth, one reading a fixed time. Without
a season it is Holt's method.
Errors count as at most `BOUND` spreads when they are learned from (in the spirit of Gelper, Fried and Croux
2010), so that an incident bends neither level, trend nor season.
Where it fails: the level is quick, so that a gradual drift is followed rather than reported; and a step that
was never visited gives no opinion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray, TimeArray
from tidewarden.models.profile import learn_offset, offset_of, seasons, steps_at, two_seasons
from tidewarden.models.residual import (
    BAND,
    COUNT,
    JUDGED,
    OWN,
    YOUNG,
    bounded,
    learn_grain,
    learn_residual,
    spread_of,
)  # fmt: skip
from tidewarden.models.state import Column, KernelModel, SeriesState

MOST_STEPS = 8.0  # intervals that the trend is drawn on over a gap: beyond, the level is the better guess

LEVEL, TREND, TIME = range(OWN, OWN + 3)


@njit(cache=True, nogil=True)
def _observe(
    series: IntArray,
    timestamp: TimeArray,
    value: FloatArray,
    learn: BoolArray,
    surprise: FloatArray,
    expected: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    rows: FloatArray,
    profiles: FloatArray,
    season_ms: TimeArray,
    bins: IntArray,
    middles: FloatArray,
    season_gain: FloatArray,
    interval_ms: float,
    alpha: float,
    beta: float,
    damping: float,
) -> None:
    at = np.empty(len(season_ms), np.int64)
    beside = np.empty(len(season_ms), np.int64)
    away = np.empty(len(season_ms))
    for i in range(len(series)):
        x = value[i]
        t = timestamp[i]
        if i == 0 or t != timestamp[i - 1]:
            steps_at(season_ms, bins, middles, t, at, beside, away)
        if not np.isfinite(x):
            continue
        s = series[i]
        offset, known = offset_of(profiles, s, at, beside, away)
        steps = min(max((t - rows[s, TIME]) / interval_ms, 0.0), MOST_STEPS)
        level = rows[s, LEVEL] + damping * rows[s, TREND] * steps
        gap = x - level - offset
        spread = spread_of(rows, s)
        if known and rows[s, JUDGED] >= YOUNG:
            middle = level + offset
            surprise[i] = abs(gap) / spread
            expected[i] = middle
            lower[i] = middle - BAND * spread
            upper[i] = middle + BAND * spread
        if not learn[i]:
            continue
        if rows[s, COUNT] == 0.0:
            rows[s, LEVEL] = x
            learn_offset(profiles, s, at, season_gain, 0.0)
        else:
            if known:
                gap = bounded(rows, s, gap, spread)
                learn_residual(rows, s, gap, spread)
            gap = learn_offset(profiles, s, at, season_gain, gap)
            rows[s, LEVEL] = level + alpha * gap
            rows[s, TREND] = damping * rows[s, TREND] + alpha * beta * gap
        rows[s, TIME] = t
        learn_grain(rows, s, x)


class HoltWinters(KernelModel):
    """Residual of additive triple exponential smoothing."""

    kind: ClassVar[str] = "holt_winters"
    version: ClassVar[int] = 1

    def __init__(
        self,
        alpha: float,
        beta: float,
        gamma: float,
        damping: float,
        bins: int,
        warmup: int | None,
        seasonality_ms: Sequence[int],
        interval_ms: int,
    ) -> None:
        grid = seasons(seasonality_ms, bins, interval_ms, gamma)
        state = SeriesState(row=Column((OWN + 3,), np.float64), profile=Column((len(grid.ms), bins, 2), np.float64))
        if warmup is None:
            warmup = two_seasons(grid.ms, interval_ms, 60)
        super().__init__(
            warmup, state, _observe, *grid, float(interval_ms), alpha, beta, damping, timed=True
        )  # fmt: skip
