"""`iqr`: distance outside of the box between the quartiles, in box heights; the band is Tukey's fences.

Quartiles and median of the recent past are followed by steps of bounded size (Robbins-Monro on the sign, in
units of the box), so memory is constant and a quarter of the readings may be wild before a fence gives way.
Unlike `mad` each side has its own reach, which suits skewed signals. (Tukey 1977.)
Where it fails: it knows no time of day; and a lasting shift by k boxes is learned only within some log2(k)
half-lives, because the box grows first, and the box has closed again as long after.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray
from tidewarden.models.residual import COUNT, OWN, learn_grain, least_spread
from tidewarden.models.state import Column, KernelModel, SeriesState

FIT = 16  # readings from which the first quartiles are taken
STRIDE = 2.0  # boxes that a step of weight 1 takes: the best for a normal is 2.3, and smaller steps are calmer

QUARTILES = OWN  # lower quartile, median, upper quartile
BUFFER = QUARTILES + 3
ROW = BUFFER + FIT


@njit(cache=True, nogil=True)
def _box(rows: FloatArray, s: int) -> float:
    """Height of the box; of few values or a constant, twice what counts as a spread."""
    return float(max(rows[s, QUARTILES + 2] - rows[s, QUARTILES], 2.0 * least_spread(rows, s)))


@njit(cache=True, nogil=True)
def _fit(rows: FloatArray, s: int) -> None:
    ordered = np.sort(rows[s, BUFFER:])
    for k in range(3):
        at = (k + 1) * 0.25 * (FIT - 1)
        low = int(at)
        rows[s, QUARTILES + k] = ordered[low] + (at - low) * (ordered[low + 1] - ordered[low])


@njit(cache=True, nogil=True)
def _step(rows: FloatArray, s: int, x: float, stride: float) -> None:
    """Move each quartile towards ``x``, by more the less often a reading falls on that side; never beyond it."""
    for k in range(3):
        away = x - rows[s, QUARTILES + k]
        if away > 0.0:
            rows[s, QUARTILES + k] += min(away, stride * 0.25 * (k + 1))
        elif away < 0.0:
            rows[s, QUARTILES + k] -= min(-away, stride * 0.25 * (3 - k))
    # Steps of different size may let neighbours cross.
    rows[s, QUARTILES] = min(rows[s, QUARTILES], rows[s, QUARTILES + 1])
    rows[s, QUARTILES + 2] = max(rows[s, QUARTILES + 2], rows[s, QUARTILES + 1])


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
    gain: float,
    fence: float,
) -> None:
    for i in range(len(series)):
        x = value[i]
        if not np.isfinite(x):
            continue
        s = series[i]
        count = int(rows[s, COUNT])
        # Before this reading's own step is known: a constant's first outlier must not vouch for itself by it.
        box = _box(rows, s)
        if count >= FIT:
            surprise[i] = max(rows[s, QUARTILES] - x, x - rows[s, QUARTILES + 2]) / box
            expected[i] = rows[s, QUARTILES + 1]
            lower[i] = rows[s, QUARTILES] - fence * box
            upper[i] = rows[s, QUARTILES + 2] + fence * box
        if not learn[i]:
            continue
        learn_grain(rows, s, x)
        if count < FIT:
            rows[s, BUFFER + count] = x
            if count + 1 == FIT:
                _fit(rows, s)
        else:
            _step(rows, s, x, STRIDE * box * max(gain, 1.0 / (count + 1.0)))


class Iqr(KernelModel):
    """Distance outside of the box between the quartiles."""

    kind: ClassVar[str] = "iqr"
    version: ClassVar[int] = 1

    def __init__(self, half_life: float, fence: float, warmup: int) -> None:
        gain = 1.0 - 0.5 ** (1.0 / half_life)
        super().__init__(warmup, SeriesState(row=Column((ROW,), np.float64)), _observe, gain, fence)
