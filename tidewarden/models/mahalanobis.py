"""`mahalanobis`: does the reading fit to those just before it, as these vary together?

Mahalanobis distance of the last `window` readings under a running covariance of such windows. A window
farther out than `LIMIT` is drawn in to it before it is learned (Maronna 1976), so outliers turn the
covariance little; and the covariance is shrunk towards a multiple of the identity by as much as its own noise
asks for (Ledoit & Wolf 2004, with running moments), so it is sound from the first dozens of windows on.
It sees a step or a wiggle that is small beside the whole range but unheard of from one reading to the next.
Where it fails: one covariance for all hours; where noise is lively by day and calm by night, night's
anomalies drown.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray
from tidewarden.models.band import BAND_ROW, COUNT, band_learn, band_of
from tidewarden.models.lags import push, vector
from tidewarden.models.state import Column, KernelModel, SeriesState

MEMORY = 1000.0  # windows after which a window's weight has fallen to a third
LIMIT = 4.0  # mean squared deviation of a window, under the covariance, from which it is drawn in
REFRESH = 8  # windows after which the inverse is computed anew
RIDGE = 1e-4  # squared spreads added to every variance: a constant has none
SMALLEST = 1e-4  # mean squared deviation below which windows are alike

N, FOURTH = range(2)


@njit(cache=True, nogil=True)
def shrinkage(covariance: FloatArray, fourth: float, n: float) -> float:
    """Ledoit and Wolf's share of the identity, from the mean of |window|⁴ and the number of windows."""
    p = len(covariance)
    trace = 0.0
    squares = 0.0
    for j in range(p):
        trace += covariance[j, j]
        for k in range(p):
            squares += covariance[j, k] * covariance[j, k]
    from_identity = squares - trace * trace / p
    noise = min((fourth - squares) / n, from_identity)
    return noise / from_identity if noise > 0.0 else 0.0


@njit(cache=True, nogil=True)
def _invert(covariance: FloatArray, share: float, out: FloatArray) -> None:
    """Inverse of the shrunk covariance, by Gauss-Jordan without pivots: it is positive definite."""
    p = len(covariance)
    trace = 0.0
    for j in range(p):
        trace += covariance[j, j]
    for j in range(p):
        for k in range(p):
            out[j, k] = (1.0 - share) * covariance[j, k]
        out[j, j] += share * trace / p + RIDGE
    for m in range(p):
        pivot = 1.0 / out[m, m]
        out[m, m] = 1.0
        for k in range(p):
            out[m, k] *= pivot
        for j in range(p):
            if j != m:
                factor = out[j, m]
                out[j, m] = 0.0
                for k in range(p):
                    out[j, k] -= factor * out[m, k]


@njit(cache=True, nogil=True)
def _distance(inverse: FloatArray, w: FloatArray) -> float:
    """Squared distance over the number of readings: 1 on average."""
    p = len(w)
    total = 0.0
    for j in range(p):
        row = 0.0
        for k in range(p):
            row += inverse[j, k] * w[k]
        total += w[j] * row
    return max(total / p, 0.0)


@njit(cache=True, nogil=True)
def _learn(st: FloatArray, covariance: FloatArray, inverse: FloatArray, w: FloatArray, distance: float) -> None:
    p = len(w)
    n = st[N] + 1.0
    st[N] = n
    tame = math.sqrt(LIMIT / distance) if distance > LIMIT else 1.0
    share = max(1.0 / n, 1.0 / MEMORY)
    norm = 0.0
    for j in range(p):
        w[j] *= tame
        norm += w[j] * w[j]
    for j in range(p):
        for k in range(p):
            covariance[j, k] += share * (w[j] * w[k] - covariance[j, k])
    st[FOURTH] += share * (norm * norm - st[FOURTH])
    if n >= 2 * p and int(n) % REFRESH == 0:
        # A mean with fading weights is worth that of twice its memory of equal ones.
        _invert(covariance, shrinkage(covariance, st[FOURTH], min(n, 2.0 * MEMORY)), inverse)


@njit(cache=True, nogil=True)
def _observe(
    series: IntArray,
    value: FloatArray,
    learn: BoolArray,
    surprise: FloatArray,
    expected: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    bands: FloatArray,
    stats: FloatArray,
    lags: FloatArray,
    covariances: FloatArray,
    inverses: FloatArray,
) -> None:
    window = covariances.shape[1]
    w = np.empty(window)
    for i in range(len(series)):
        x = value[i]
        if not np.isfinite(x):
            continue
        s = series[i]
        band = bands[s]
        ready = band[COUNT] >= max(window, 8)
        distance = 0.0
        if ready:
            vector(lags[s], band, x, w)
        if inverses[s, 0, 0] > 0.0:
            distance = _distance(inverses[s], w)
            surprise[i] = 0.5 * math.log(distance + SMALLEST)
            expected[i], lower[i], upper[i] = band_of(band)
        if learn[i]:
            if ready:
                _learn(stats[s], covariances[s], inverses[s], w, distance)
            push(lags[s], x)
            band_learn(band, x)


class Mahalanobis(KernelModel):
    """Robust, shrunk covariance of the last readings."""

    kind: ClassVar[str] = "mahalanobis"
    version: ClassVar[int] = 1

    def __init__(self, window: int, warmup: int) -> None:
        state = SeriesState(
            band=Column((BAND_ROW,), np.float64),
            stat=Column((2,), np.float64),
            lag=Column((window,), np.float64),
            covariance=Column((window, window), np.float64),
            inverse=Column((window, window), np.float64),
        )
        super().__init__(max(warmup, 4 * window + 8), state, _observe)
