"""`stl`: what trend and seasons leave unexplained, in mean absolute remainders.

Seasonal-trend decomposition as readings come (STL: Cleveland and others 1990; online: OnlineSTL, Mishra, Sriharsha
and Zhong 2021). A reading is taken apart into

- a trend: the mean of the last `trend` readings without their season, with tri-cube weights that look back only;
- for each season a profile: at the end of a step its mean, less the mean over one whole round (which no season
  moves), moves the profile by its share; between the middles of steps it is drawn straight;
- the remainder, which is judged.

Where the trend of `seasonal` takes a season to follow, this one takes `trend` readings: right for signals with a
season on top of a level that wanders or steps.
Readings enter trend and profiles as if their remainder were at most `BOUND` spreads (the place of STL's robustness
weights).

Where it fails: a change that is slower than the trend is followed, not reported; and it says nothing before its
shortest season has gone round once; a longer one joins when it has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray, TimeArray
from tidewarden.models.profile import OFFSET, VISITS, drawn, seasons, steps_at, two_seasons
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

LATEST = 2  # of a step: its latest mean, beside its offset and how often it was seen
STEP, SUM, N, TOTAL, KNOWN, SINCE, ROUND = range(7)  # of a season: the step that is under way, and the round


@njit(cache=True, nogil=True)
def _trend(rings: FloatArray, s: int, n: int, weights: FloatArray, upto: FloatArray) -> float:
    """Weighted mean of the last ``n`` entries; ``weights`` twice in a row save a modulo for each of them."""
    size = rings.shape[1]
    filled = min(n, size)
    start = size - 1 - (n - 1) % size  # the weight of entry 0: the newest has the first
    a = b = c = d = 0.0
    # Four sums side by side: one would wait for each addition in turn.
    for j in range(0, filled - 3, 4):
        a += rings[s, j] * weights[start + j]
        b += rings[s, j + 1] * weights[start + j + 1]
        c += rings[s, j + 2] * weights[start + j + 2]
        d += rings[s, j + 3] * weights[start + j + 3]
    for j in range(filled - filled % 4, filled):
        a += rings[s, j] * weights[start + j]
    return float((a + b + (c + d)) / upto[filled])


@njit(cache=True, nogil=True)
def _close_step(
    profiles: FloatArray, under_way: FloatArray, s: int, k: int, bins: int, gain: float, round_over: bool
) -> None:
    """Take the mean of the step that has ended into the round and, against the mean of the round, into the profile."""
    b = int(under_way[s, k, STEP])
    mean = under_way[s, k, SUM] / under_way[s, k, N]
    under_way[s, k, SUM] = 0.0
    under_way[s, k, N] = 0.0
    if profiles[s, k, b, VISITS] == 0.0:
        under_way[s, k, KNOWN] += 1.0
        under_way[s, k, TOTAL] += mean
    else:
        under_way[s, k, TOTAL] += mean - profiles[s, k, b, LATEST]
    profiles[s, k, b, LATEST] = mean
    profiles[s, k, b, VISITS] = min(profiles[s, k, b, VISITS] + 1.0, 1e6)
    if under_way[s, k, ROUND] == 1.0:
        middle = under_way[s, k, TOTAL] / under_way[s, k, KNOWN]
        share = max(1.0 / profiles[s, k, b, VISITS], gain)
        profiles[s, k, b, OFFSET] += share * (mean - middle - profiles[s, k, b, OFFSET])
    elif round_over:
        under_way[s, k, ROUND] = 1.0
        middle = under_way[s, k, TOTAL] / under_way[s, k, KNOWN]
        for j in range(bins):
            if profiles[s, k, j, VISITS] > 0.0:
                profiles[s, k, j, OFFSET] = profiles[s, k, j, LATEST] - middle


@njit(cache=True, nogil=True)
def _learn_season(
    profiles: FloatArray,
    under_way: FloatArray,
    s: int,
    k: int,
    season_ms: int,
    bins: int,
    gain: float,
    timestamp: int,
    b: int,
    x: float,
) -> None:
    """Count a reading, without what other seasons add, in its step ``b``."""
    if under_way[s, k, N] == 0.0 and under_way[s, k, KNOWN] == 0.0:
        under_way[s, k, SINCE] = timestamp
    elif b != int(under_way[s, k, STEP]):
        turned = b < int(under_way[s, k, STEP])
        _close_step(profiles, under_way, s, k, bins, gain, timestamp - under_way[s, k, SINCE] >= season_ms)
        if turned:  # once round: rounding errors do not pile up
            total = 0.0
            for j in range(bins):
                total += profiles[s, k, j, LATEST]
            under_way[s, k, TOTAL] = total
    under_way[s, k, STEP] = b
    under_way[s, k, SUM] += x
    under_way[s, k, N] += 1.0


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
    rings: FloatArray,
    profiles: FloatArray,
    steps: FloatArray,
    season_ms: TimeArray,
    bins: IntArray,
    middles: FloatArray,
    gain: FloatArray,
    weights: FloatArray,
    upto: FloatArray,
) -> None:
    n_seasons = len(season_ms)
    offsets = np.zeros(n_seasons)
    at = np.empty(n_seasons, np.int64)
    beside = np.empty(n_seasons, np.int64)
    away = np.empty(n_seasons)
    for i in range(len(series)):
        x = value[i]
        t = timestamp[i]
        if i == 0 or t != timestamp[i - 1]:
            steps_at(season_ms, bins, middles, t, at, beside, away)
        if not np.isfinite(x):
            continue
        s = series[i]
        count = int(rows[s, COUNT])
        season = 0.0
        known = n_seasons == 0
        for k in range(n_seasons):
            offsets[k] = 0.0
            if steps[s, k, ROUND] == 1.0:
                known = True
                offsets[k] = drawn(profiles, s, k, at[k], beside[k], away[k])
            season += offsets[k]
        trend = _trend(rings, s, count, weights, upto) if count > 0 else x - season
        middle = trend + season
        gap = x - middle
        spread = spread_of(rows, s)
        if known and rows[s, JUDGED] >= YOUNG:
            surprise[i] = abs(gap) / spread
            expected[i] = middle
            lower[i] = middle - BAND * spread
            upper[i] = middle + BAND * spread
        if not learn[i]:
            continue
        gap = bounded(rows, s, gap, spread)
        if count > 0:
            learn_residual(rows, s, gap, spread)
        rings[s, count % rings.shape[1]] = trend + gap
        for k in range(n_seasons):
            _learn_season(profiles, steps, s, k, season_ms[k], bins[k], gain[k], t, at[k], trend + gap + offsets[k])
        learn_grain(rows, s, x)


def tricube(n: int) -> FloatArray:
    """Weights of the last ``n`` readings, newest first, shape (n,): tri-cube of how far back they lie."""
    weights: FloatArray = (1.0 - (np.arange(n) / n) ** 3) ** 3
    return weights


class Stl(KernelModel):
    """What trend and seasons leave unexplained."""

    kind: ClassVar[str] = "stl"
    version: ClassVar[int] = 1

    def __init__(
        self,
        trend: int,
        half_life: float,
        bins: int,
        warmup: int | None,
        seasonality_ms: Sequence[int],
        interval_ms: int,
    ) -> None:
        ms, bins_of, middle, _ = seasons(seasonality_ms, bins, interval_ms, 0.5)
        gain = np.full(len(ms), 1.0 - math.pow(0.5, 1.0 / half_life))
        weights = tricube(trend)
        both_sides = np.concatenate([weights[::-1], weights[::-1]])
        upto = np.concatenate([[0.0], np.cumsum(weights)])
        state = SeriesState(
            row=Column((OWN,), np.float64),
            ring=Column((trend,), np.float64),
            profile=Column((len(ms), bins, 3), np.float64),
            under_way=Column((len(ms), 7), np.float64),
        )
        if warmup is None:
            warmup = two_seasons(ms, interval_ms, 60)
        super().__init__(warmup, state, _observe, ms, bins_of, middle, gain, both_sides, upto, timed=True)
