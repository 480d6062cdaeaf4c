"""`mad`: distance from the running median, in running median absolute deviations.

Like `ewma`, but deaf to outliers: half of the readings may be wild before the median is. Both medians
are followed by steps of bounded size (Robbins-Monro on the sign), so memory is constant. A lasting
shift by k deviations is learned within some log2(k) half-lives, because the deviation doubles first.
Where it fails: it knows no time of day, and calls a skewed signal's long side unusual more often than its
short side.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray
from tidewarden.models.state import Column, KernelModel, SeriesState

FIT = 16  # readings from which the first median is taken
SIGMA = 1.4826  # median absolute deviations of a normal in one standard deviation
BAND = 2.576  # deviations on each side that hold 99 % of a normal

COUNT, MEDIAN, MAD, FINEST, LAST = range(5)
BUFFER = 5
ROW = BUFFER + FIT


@njit(cache=True, nogil=True)
def _floor(row: FloatArray) -> float:
    """Least deviation: a quarter of the finest step ever seen; of a constant, a thousandth of its level."""
    finest = float(row[FINEST])
    return finest * 0.25 if finest > 0.0 else 1e-3 * abs(float(row[MEDIAN])) + 1e-9


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
        count = int(row[COUNT])
        # Before this reading's own step is known: a constant's first outlier must not vouch for itself by it.
        mad = max(row[MAD], _floor(row))
        if count >= FIT:
            sigma = SIGMA * mad
            surprise[i] = abs(x - row[MEDIAN]) / sigma
            expected[i] = row[MEDIAN]
            lower[i] = row[MEDIAN] - BAND * sigma
            upper[i] = row[MEDIAN] + BAND * sigma
        if not learn[i]:
            continue
        if count > 0:
            step = abs(x - row[LAST])
            if step > 0.0 and (row[FINEST] == 0.0 or step < row[FINEST]):
                row[FINEST] = step
        row[LAST] = x
        row[COUNT] = count + 1
        if count < FIT:
            row[BUFFER + count] = x
            if count + 1 == FIT:
                row[MEDIAN] = np.median(row[BUFFER:])
                row[MAD] = np.median(np.abs(row[BUFFER:] - row[MEDIAN]))
            continue
        away = abs(x - row[MEDIAN])
        pace = max(gain, 1.0 / (count + 1))
        if x != row[MEDIAN]:
            row[MEDIAN] += min(pace * mad, away) * (1.0 if x > row[MEDIAN] else -1.0)
        row[MAD] = mad * (1.0 + pace if away > mad else 1.0 - pace)


class Mad(KernelModel):
    """Distance from a running median."""

    kind: ClassVar[str] = "mad"
    version: ClassVar[int] = 1

    def __init__(self, half_life: float, warmup: int) -> None:
        gain = 1.0 - 0.5 ** (1.0 / half_life)
        super().__init__(warmup, SeriesState(rows=Column((ROW,), np.float64)), _observe, gain)
