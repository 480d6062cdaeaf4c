"""`ar`: error of an autoregressive forecast, in mean absolute errors.

What a reading should be, from the `order` readings before it, on top of the time of day: a profile for each
season is taken off first (once the season has gone round), and the weights of the lags are fitted by recursive
least squares with forgetting, reading by reading. That is the streaming sibling of a seasonal ARIMA: the same
residual, without its refits. Right for signals whose neighbours resemble each other (queues, temperatures,
utilisation), where a jump is news although both ends are ordinary values.
Where it fails: it follows a drift rather than reports it, and a lasting shift is news for a few readings only.

Errors count as at most `BOUND` spreads when they are learned from, and the lags hold what was expected plus such
an error, so that an outlier does not echo in the next `order` forecasts; what lasts longer than `order` readings
is no outlier and counts as it is. Forgetting pauses where the readings
say nothing about the weights (a constant), else the fit would lose its footing ("wind-up").
Sources: Box and Jenkins 1970; Ljung and Söderström 1983 for the recursion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray, TimeArray
from tidewarden.models.profile import learn_offset, offset_after, seasons, steps_at
from tidewarden.models.residual import (
    BAND,
    BOUND,
    COUNT,
    JUDGED,
    OWN,
    RUN,
    YOUNG,
    bounded,
    learn_grain,
    learn_residual,
    least_spread,
    spread_of,
)  # fmt: skip
from tidewarden.models.state import Column, KernelModel, SeriesState

LAGS = 8
PRIOR = 1.0  # variance of a weight before anything is known, in units where the lags have about unit deviation
WOUND_UP = 10.0  # mean variance of a weight above which nothing more is forgotten
FAR = 10.0  # scales from the centre: further out, lags are all the same, or one of them would say everything
CENTER_GAIN = 0.002
WIDTH_GAIN = 0.005
# The scale is nothing to judge by, it makes lags comparable: so it may double with a reading as a signal comes to life.
RISE_GAIN = 0.1
FALL_GAIN = 0.002

CENTER, WIDTH, SCALE, SINCE = range(OWN, OWN + 4)


@njit(cache=True, nogil=True)
def _forecast(lags: FloatArray, weights: FloatArray, s: int, scale: float, z: FloatArray) -> float:
    """Scales from the centre that the next reading should lie; ``z`` receives the lags in scales."""
    share = 1.0 / scale
    ahead = 0.0
    for j in range(LAGS):
        z[j] = min(max(lags[s, j] * share, -FAR), FAR)
        ahead += weights[s, j] * z[j]
    return min(max(ahead, -FAR), FAR)


@njit(cache=True, nogil=True)
def _restart(covariance: FloatArray, s: int, order: int) -> None:
    """Nothing is known yet; weights beyond ``order`` have no variance, so they stay zero."""
    at = 0
    for j in range(LAGS):
        for k in range(j, LAGS):
            covariance[s, at] = PRIOR if j == k and j < order else 0.0
            at += 1


@njit(cache=True, nogil=True)
def _fit(
    z: FloatArray,
    weights: FloatArray,
    covariance: FloatArray,
    s: int,
    along: FloatArray,
    error: float,
    order: int,
    keep: float,
) -> None:
    """One step of recursive least squares; the weights' ``covariance`` is kept as the rows of its upper triangle.

    Always over all `LAGS`, because a loop of known length is several times as fast.
    """
    for k in range(LAGS):
        along[k] = 0.0
    trace = 0.0
    at = 0
    for j in range(LAGS):
        trace += covariance[s, at]
        here = covariance[s, at] * z[j]
        at += 1
        for k in range(j + 1, LAGS):
            here += covariance[s, at] * z[k]
            along[k] += covariance[s, at] * z[j]
            at += 1
        along[j] += here
    certainty = keep
    for j in range(LAGS):
        certainty += z[j] * along[j]
    if certainty <= 0.0:
        _restart(covariance, s, order)
        return
    share = 1.0 / certainty
    forget = 1.0 / keep if trace < WOUND_UP * order else 1.0
    sound = True
    at = 0
    for j in range(LAGS):
        step = along[j] * share
        weights[s, j] += step * error
        sound = sound and (j >= order or covariance[s, at] > step * along[j])
        for k in range(j, LAGS):
            covariance[s, at] = (covariance[s, at] - step * along[k]) * forget
            at += 1
    if not sound:  # rounding has eaten it: the weights are good, what is known of their errors is not
        _restart(covariance, s, order)


@njit(cache=True, nogil=True)
def _learn_center(rows: FloatArray, s: int, away: float, scale: float) -> float:
    """Move centre, width and scale by a reading's distance from the centre; the distance, bounded by the width."""
    share = 1.0 / (rows[s, COUNT] + 1.0)
    # Of readings as they are and not as they were expected, so that a forecast that runs away cannot take it along.
    beyond = abs(away) - rows[s, SCALE]
    if beyond > 0.0:
        rows[s, SCALE] += min(beyond * max(RISE_GAIN, share), scale)
    else:
        rows[s, SCALE] += beyond * max(FALL_GAIN, share)
    if rows[s, COUNT] > YOUNG:
        reach = BOUND * max(rows[s, WIDTH], least_spread(rows, s))
        away = min(max(away, -reach), reach)
    rows[s, CENTER] += away * max(CENTER_GAIN, share)
    rows[s, WIDTH] += (abs(away) - rows[s, WIDTH]) * max(WIDTH_GAIN, share)
    return away


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
    lags: FloatArray,
    weights: FloatArray,
    covariance: FloatArray,
    profiles: FloatArray,
    season_ms: TimeArray,
    bins: IntArray,
    middles: FloatArray,
    season_gain: FloatArray,
    order: int,
    keep: float,
) -> None:
    z = np.empty(LAGS)
    along = np.empty(LAGS)
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
        count = rows[s, COUNT]
        if count == 0.0 and learn[i]:
            rows[s, CENTER] = x
            rows[s, SINCE] = t
            _restart(covariance, s, order)
        offset = offset_after(profiles, s, at, beside, away, season_ms, t - int(rows[s, SINCE]))
        base = rows[s, CENTER] + offset
        scale = max(rows[s, SCALE], least_spread(rows, s))
        ahead = _forecast(lags, weights, s, scale, z)
        middle = base + scale * ahead
        gap = x - middle
        spread = spread_of(rows, s)
        if rows[s, JUDGED] >= YOUNG:
            surprise[i] = abs(gap) / spread
            expected[i] = middle
            lower[i] = middle - BAND * spread
            upper[i] = middle + BAND * spread
        if not learn[i]:
            continue
        tame = bounded(rows, s, gap, spread)
        if count >= YOUNG + order:  # the first readings only say where the centre is
            learn_residual(rows, s, tame, spread)
            gap = gap if rows[s, RUN] > order else tame
            error = min(max(gap / scale, -FAR), FAR)
            _fit(z, weights, covariance, s, along, error, order, keep)
        if count >= YOUNG:
            for j in range(LAGS - 1, 0, -1):
                lags[s, j] = lags[s, j - 1]
            lags[s, 0] = middle + gap - base
        moved = _learn_center(rows, s, x - base, scale)
        learn_offset(profiles, s, at, season_gain, moved)
        learn_grain(rows, s, x)


class Ar(KernelModel):
    """Error of an autoregressive forecast."""

    kind: ClassVar[str] = "ar"
    version: ClassVar[int] = 1

    def __init__(
        self, order: int, half_life: float, bins: int, warmup: int, seasonality_ms: Sequence[int], interval_ms: int
    ) -> None:
        keep = float(0.5 ** (1.0 / half_life))
        grid = seasons(seasonality_ms, bins, interval_ms, 0.13)
        state = SeriesState(
            row=Column((OWN + 4,), np.float64),
            lags=Column((LAGS,), np.float64),
            weights=Column((LAGS,), np.float64),
            covariance=Column((LAGS * (LAGS + 1) // 2,), np.float64),
            profile=Column((len(grid.ms), bins, 2), np.float64),
        )
        super().__init__(warmup, state, _observe, *grid, order, keep, timed=True)
