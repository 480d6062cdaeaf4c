"""Calibration: how rare is this surprise, judged by the series' own past?

Peaks over threshold, online (after SPOT: Siffer et al. 2017). Per series a running median, a running
98 % quantile and the mean excess above it; 32 float64, constant time. Above the quantile the tail
is a generalised Pareto, ``p = 0.02 · (1 + shape · excess / scale) ** (-1 / shape)``. Its scale follows
the mean excess; its shape is not fitted, which needs far more excesses than a young series has, but
set: a constant, plus 1/n for a tail known from n excesses only, so early scores are not extreme. Until
there are excesses of its own, the mean leans on a prior taken from the spread of the surprises, worth
`PRIOR_EXCESSES`. Between median and quantile log p is linear; below the median p goes from 0.5 to 1.

Anomalies do not inflate the tail for ever: an excess is learned as at most `EXCESS_CAP` times the mean
(under the fitted tail some 2 % of the excesses are that large), the k-th of a run of excesses weighs
1/k (an incident of thirty readings weighs as four), and quantiles move by steps of bounded size. But a
run that outlasts `PATIENCE` is no incident any more: from then on each of its readings takes the quantile
`ACCEPTING` of the way to itself, so that no state of a series keeps a high score for ever.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray
from tidewarden.models.contract import State
from tidewarden.models.state import Column, SeriesState

TAIL_Q = 0.98
TAIL_P = 1 - TAIL_Q
PRIOR_EXCESSES = 12.0
EXCESS_CAP = 4.0
SHAPE = 0.06  # of the tail: a little heavier than exponential, as surprises are (measured, see the tests)
PRIOR_SHAPE = 8.0  # a rate known from n excesses predicts a Pareto tail of shape 1 / n, not an exponential
MEMORY_EXCESSES = 250.0  # excesses after which the tail has half forgotten: 12,500 ordinary readings
PATIENCE = 120.0  # excesses in a row
ACCEPTING = 0.05
YOUNG = 24  # surprises from which the first quantiles are taken
MIN_SPREAD = 0.02  # surprises are natural logarithms: differences below 2 % of density are noise

# Columns of a series' row.
N, MEDIAN, QUANTILE, EXCESS, SPREAD, N_EXCESS, RUN = range(7)
FIRST = 8  # the first surprises, until they are YOUNG
ROW = FIRST + YOUNG


# Rows are indexed, not taken as views: a view costs the compiled code two atomic counts of references.


@njit(cache=True, nogil=True)
def tail_log10_p(rows: FloatArray, i: int, s: float) -> float:
    """-log10 of the p-value of surprise ``s`` in series ``i``, not below 0; continuous and rising in ``s``."""
    if rows[i, N] < YOUNG:
        return 0.0
    median = float(rows[i, MEDIAN])
    quantile = float(rows[i, QUANTILE])
    if s > quantile:
        shape = SHAPE + 1.0 / (float(rows[i, N_EXCESS]) + PRIOR_SHAPE)
        excess = (s - quantile) / (float(rows[i, EXCESS]) * (1.0 - SHAPE))
        return -math.log10(TAIL_P) + math.log10(1.0 + shape * excess) / shape
    if s > median:
        share = (s - median) / (quantile - median)
        return -math.log10(0.5) + share * (math.log10(0.5) - math.log10(TAIL_P))
    return -math.log10(1.0 - 0.5 * math.exp((s - median) / float(rows[i, SPREAD])))


@njit(cache=True, nogil=True)
def standing(rows: FloatArray, i: int, s: float) -> float:
    """Surprise ``s`` of series ``i`` in spreads from the median: a steady scale to add opinions on. 0 while young."""
    if rows[i, N] < YOUNG:
        return 0.0
    return (s - float(rows[i, MEDIAN])) / float(rows[i, SPREAD])


@njit(cache=True, nogil=True)
def _settle(row: FloatArray) -> None:
    """First quantiles from the first `YOUNG` surprises, of which an eighth may be wild."""
    first = np.sort(row[FIRST : FIRST + YOUNG])
    median = np.median(first)
    away = np.sort(np.abs(first - median))
    tame = YOUNG - YOUNG // 8
    limit = 6.0 * max(away[:tame].mean(), MIN_SPREAD)
    spread = max(np.minimum(away, limit).mean(), MIN_SPREAD)
    # Between the 98 % point of a normal (2.6 mean deviations) and of an exponential (4.0); further
    # out where the largest surprise is, which among so few stands for the 96 % point.
    quantile = median + 3.2 * spread
    top = min(first[YOUNG - 1], median + limit)
    row[MEDIAN] = median
    row[SPREAD] = spread
    row[QUANTILE] = max(quantile, 0.5 * (top + quantile))
    row[EXCESS] = 1.5 * spread
    row[FIRST : FIRST + YOUNG] = 0.0


@njit(cache=True, nogil=True)
def tail_learn(rows: FloatArray, i: int, s: float) -> None:
    """Learn one surprise of series ``i``."""
    n = rows[i, N] + 1.0
    rows[i, N] = n
    if n <= YOUNG:
        rows[i, FIRST + int(n) - 1] = s
        if n == YOUNG:
            _settle(rows[i])
        return
    spread = rows[i, SPREAD]
    median = rows[i, MEDIAN]
    quantile = rows[i, QUANTILE]
    # The best Robbins-Monro gain is 1 / (n · density at the quantile); below its floor the walk
    # around the true quantile has a deviation of a tenth of a mean excess.
    gap = min(abs(s - median), 6.0 * spread)
    rows[i, SPREAD] = max(spread + (gap - spread) * max(0.002, 1.0 / n), MIN_SPREAD)
    rows[i, MEDIAN] = median + spread * max(0.01, min(0.5, 2.0 / n)) * (1.0 if s > median else -1.0)
    gain = rows[i, EXCESS] * max(0.02, min(1.0, 1.0 / (TAIL_P * n)))
    if s > quantile:
        excess = min(s - quantile, EXCESS_CAP * rows[i, EXCESS])
        rows[i, RUN] += 1.0
        weight = 1.0 / rows[i, RUN]
        rows[i, N_EXCESS] = min(rows[i, N_EXCESS] + weight, MEMORY_EXCESSES)
        mean = rows[i, EXCESS] + weight * (excess - rows[i, EXCESS]) / (PRIOR_EXCESSES + rows[i, N_EXCESS])
        rows[i, EXCESS] = max(mean, 0.25 * rows[i, SPREAD])
        accepted = ACCEPTING if rows[i, RUN] > PATIENCE else 0.0
        rows[i, QUANTILE] = quantile + gain * TAIL_Q + accepted * (s - quantile)
    else:
        rows[i, RUN] = 0.0
        rows[i, QUANTILE] = quantile - gain * TAIL_P
    rows[i, QUANTILE] = max(rows[i, QUANTILE], rows[i, MEDIAN] + 0.5 * rows[i, SPREAD])


@njit(cache=True, nogil=True)
def _observe(rows: FloatArray, series: IntArray, surprise: FloatArray, learn: BoolArray, log10_p: FloatArray) -> None:
    for i in range(len(series)):
        s = surprise[i]
        if np.isnan(s):
            continue
        log10_p[i] = tail_log10_p(rows, series[i], s)
        if learn[i]:
            tail_learn(rows, series[i], s)


class Calibrator:
    """Running tails of many series."""

    def __init__(self) -> None:
        self._state = SeriesState(rows=Column((ROW,), np.float64))

    @property
    def state_bytes_per_series(self) -> int:
        """Memory that one more series costs."""
        return self._state.bytes_per_series

    def resize(self, n_series: int) -> None:
        """Make room for series ids below ``n_series``."""
        self._state.resize(n_series)

    def observe(self, series: IntArray, surprise: FloatArray, learn: BoolArray) -> FloatArray:
        """-log10 p of each surprise, shape (n,), judged before it is learned; 0 where it is NaN."""
        log10_p = np.zeros(len(series))
        _observe(self._state["rows"], series, surprise, learn, log10_p)
        return log10_p

    def snapshot(self) -> State:
        """The whole state as arrays (copies)."""
        return self._state.snapshot()

    def restore(self, state: State) -> None:
        """Go on from a snapshot; ValueError says what does not fit."""
        self._state.restore(state)
