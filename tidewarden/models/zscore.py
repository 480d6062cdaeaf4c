"""`zscore`: distance from the mean of the last readings, in their standard deviations.

The first thing everybody tries: a window of the last `window` readings, all of the same weight, whose mean
and deviation follow each reading exactly. A reading enters the window as if it were at most `BOUND` deviations
away, so that one outlier does not hide the next (Shewhart 1931, for the limits).
Where it fails: it knows no time of day, is slow to see a drift shorter than its window, and half a window long
takes a lasting shift for an anomaly.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray
from tidewarden.models.residual import BOUND, COUNT, OWN, YOUNG, learn_grain, least_spread
from tidewarden.models.state import Column, KernelModel, SeriesState

BAND = 2.576  # deviations on each side that hold 99 % of a normal
HUGE = 1e140  # what is beyond is learned as this: the squares of a window of them still add up to a number

MEAN, SQUARES = range(OWN, OWN + 2)


@njit(cache=True, nogil=True)
def _slide(rows: FloatArray, s: int, windows: FloatArray, count: int, x: float) -> None:
    """Let ``x`` into the window and the oldest out; mean and squared deviations follow (Welford)."""
    at = count % windows.shape[1]
    if count < windows.shape[1]:
        gap = x - rows[s, MEAN]
        rows[s, MEAN] += gap / (count + 1.0)
        rows[s, SQUARES] += gap * (x - rows[s, MEAN])
    else:
        old = windows[s, at]
        before = rows[s, MEAN]
        rows[s, MEAN] += (x - old) / windows.shape[1]
        rows[s, SQUARES] += (x - old) * (x - rows[s, MEAN] + old - before)
    windows[s, at] = x
    if at + 1 == windows.shape[1]:  # once round: rounding errors do not pile up
        mean = 0.0
        for j in range(windows.shape[1]):
            mean += windows[s, j] / windows.shape[1]
        squares = 0.0
        for j in range(windows.shape[1]):
            squares += (windows[s, j] - mean) ** 2
        rows[s, MEAN] = mean
        rows[s, SQUARES] = squares


@njit(cache=True, nogil=True)
def _observe(
    series: IntArray,
    value: FloatArray,
    learn: BoolArray,
    surprise: FloatArray,
    expected: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    rows: FloatArray,
    windows: FloatArray,
) -> None:
    size = windows.shape[1]
    for i in range(len(series)):
        x = value[i]
        if not np.isfinite(x):
            continue
        s = series[i]
        count = rows[s, COUNT]
        gap = x - rows[s, MEAN]
        if count >= YOUNG:
            sigma = max(math.sqrt(max(rows[s, SQUARES], 0.0) / min(count, size)), least_spread(rows, s))
            surprise[i] = abs(gap) / sigma
            expected[i] = rows[s, MEAN]
            lower[i] = rows[s, MEAN] - BAND * sigma
            upper[i] = rows[s, MEAN] + BAND * sigma
            gap = min(max(gap, -BOUND * sigma), BOUND * sigma)
        if learn[i]:
            _slide(rows, s, windows, int(count), min(max(rows[s, MEAN] + gap, -HUGE), HUGE))
            learn_grain(rows, s, x)


class Zscore(KernelModel):
    """Distance from the mean of the last readings."""

    kind: ClassVar[str] = "zscore"
    version: ClassVar[int] = 1

    def __init__(self, window: int, warmup: int) -> None:
        state = SeriesState(row=Column((8,), np.float64), window=Column((window,), np.float64))
        super().__init__(warmup, state, _observe)
