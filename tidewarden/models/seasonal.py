"""`seasonal`: residual against the profile of the season, in mean absolute residuals.

A profile of `bins` steps per season (two seasons, such as a day and a week, add up) plus a slow level.
Right for signals that repeat by the clock. Residuals
move profile, level and spread as if they were at most `BOUND` spreads away, so an incident does not
become part of the profile, and a lasting shift goes into the level within about a season.
Where it fails: a level that wanders within a season is unusual all the time (`stl` follows it); days that are
not alike blur the profile unless the week is a season, too; and a bin that was never visited gives no opinion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray, TimeArray
from tidewarden.models.state import Column, KernelModel, SeriesState

BOUND = 4.0
BAND = 3.23  # mean absolute deviations on each side that hold 99 % of a normal: 2.576 · 1.2533
SPREAD_GAIN = 0.01

COUNT, LEVEL, SPREAD, FINEST, LAST = range(5)


@njit(cache=True, nogil=True)
def _floor(row: FloatArray) -> float:
    """Least spread: a quarter of the finest step ever seen; of a constant, a thousandth of its level."""
    finest = float(row[FINEST])
    return finest * 0.25 if finest > 0.0 else 1e-3 * abs(float(row[LAST])) + 1e-9


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
    season_gain: FloatArray,
    level_gain: float,
) -> None:
    bins = profiles.shape[2]
    for i in range(len(series)):
        x = value[i]
        if not np.isfinite(x):
            continue
        row = rows[series[i]]
        profile = profiles[series[i]]
        count = row[COUNT]
        known = True
        offset = 0.0
        for k in range(len(season_ms)):
            b = (timestamp[i] % season_ms[k]) * bins // season_ms[k]
            known = known and profile[k, b, 1] >= 1.0
            offset += profile[k, b, 0]
        spread = max(row[SPREAD], _floor(row))
        middle = row[LEVEL] + offset
        if known and count >= 8.0:
            surprise[i] = abs(x - middle) / spread
            expected[i] = middle
            lower[i] = middle - BAND * spread
            upper[i] = middle + BAND * spread
        if not learn[i]:
            continue
        if count == 0.0:
            row[LEVEL] = x
            middle = x + offset
        else:
            step = abs(x - row[LAST])
            if step > 0.0 and (row[FINEST] == 0.0 or step < row[FINEST]):
                row[FINEST] = step
        gap = x - middle
        limit = BOUND * spread
        if known and count >= 8.0:
            gap = min(max(gap, -limit), limit)
            row[SPREAD] = spread + (abs(gap) - spread) * max(SPREAD_GAIN, 1.0 / (count + 1.0))
        elif not known:
            row[SPREAD] = max(row[SPREAD], _floor(row))
        for k in range(len(season_ms)):
            b = (timestamp[i] % season_ms[k]) * bins // season_ms[k]
            n = profile[k, b, 1]
            share = max(1.0 / (n + 1.0), season_gain[k])
            profile[k, b, 0] += gap * share
            profile[k, b, 1] = min(n + 1.0, 1e6)
            gap -= gap * share
        row[LEVEL] += gap * level_gain
        row[LAST] = x
        row[COUNT] = count + 1.0


class Seasonal(KernelModel):
    """Residual against the profile of the season."""

    kind: ClassVar[str] = "seasonal"
    version: ClassVar[int] = 1

    def __init__(
        self, half_life: float, bins: int, warmup: int | None, seasonality_ms: Sequence[int], interval_ms: int
    ) -> None:
        if not seasonality_ms:
            raise ValueError("model seasonal needs a season: give seasonality, as in [1d], or choose model ewma or mad")
        season_ms = np.array(seasonality_ms, np.int64)
        per_season = np.maximum(1.0, season_ms / interval_ms)
        per_visit = np.maximum(1.0, per_season / bins)
        season_gain = 1.0 - 0.5 ** (1.0 / (half_life * per_visit))
        level_gain = float(1.0 - 0.5 ** (4.0 / max(4.0, per_season[0])))
        state = SeriesState(rows=Column((8,), np.float64), profile=Column((len(season_ms), bins, 2), np.float64))
        if warmup is None:
            warmup = int(min(2 * per_season[0], 100_000))
        super().__init__(warmup, state, _observe, season_ms, season_gain, level_gain, timed=True)
