"""`ewma`: distance from an exponentially weighted mean, in weighted standard deviations.

The cheapest model there is, right for signals that stay near a level that moves slowly. A reading moves mean
and variance as if it were at most `BOUND` deviations away, so one outlier changes little and a lasting shift of
any size is learned: the deviation grows by at most a constant factor a half-life until it fits.
Where it fails: it knows no time of day: a season shorter than a few half-lives is noise to it.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray
from tidewarden.models.state import Column, KernelModel, SeriesState

BOUND = 4.0
YOUNG = 8
BAND = 2.576  # deviations on each side that hold 99 % of a normal

COUNT, MEAN, VARIANCE, FINEST, LAST = range(5)


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
) -> None:
    for i in range(len(series)):
        x = value[i]
        if not np.isfinite(x):
            continue
        row = rows[series[i]]
        count = row[COUNT]
        gap = x - row[MEAN]
        if count >= YOUNG:
            # A constant has no variance: half its finest step ever seen, or a thousandth of its level.
            floor = row[FINEST] * 0.5 if row[FINEST] > 0.0 else 1e-3 * abs(row[MEAN]) + 1e-9
            sigma = max(math.sqrt(row[VARIANCE]), floor)
            surprise[i] = abs(gap) / sigma
            expected[i] = row[MEAN]
            lower[i] = row[MEAN] - BAND * sigma
            upper[i] = row[MEAN] + BAND * sigma
            # By the deviation from before: a constant's first outlier must not vouch for itself by its step.
            gap = min(max(gap, -BOUND * sigma), BOUND * sigma)
        if learn[i]:
            if count == 0.0:
                row[MEAN] = x
            else:
                step = abs(x - row[LAST])
                if step > 0.0 and (row[FINEST] == 0.0 or step < row[FINEST]):
                    row[FINEST] = step
                share = max(gain, 1.0 / (count + 1.0))
                row[MEAN] += share * gap
                row[VARIANCE] = (1.0 - share) * (row[VARIANCE] + share * gap * gap)
            row[LAST] = x
            row[COUNT] = count + 1.0


class Ewma(KernelModel):
    """Distance from an exponentially weighted mean."""

    kind: ClassVar[str] = "ewma"
    version: ClassVar[int] = 1

    def __init__(self, half_life: float, warmup: int) -> None:
        gain = 1.0 - 0.5 ** (1.0 / half_life)
        super().__init__(warmup, SeriesState(rows=Column((8,), np.float64)), _observe, gain)
