"""Where a reading is expected, for models that judge windows and have no expectation of their own.

A running median with the mean absolute deviation around it: sixteen float64 a series, constant time. The
median takes steps of bounded size (Robbins-Monro on the sign), and a reading moves the deviation as if it were at
most `BOUND` of them away, so an incident leaves the band where it was; a lasting shift of k deviations
is followed after some log2(k) half-lives, because the deviation widens first.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from tidewarden.frames import FloatArray

YOUNG = 8  # readings from which there is a band; one of them may be wild
BOUND = 4.0
HOLDS_99 = 3.23  # mean absolute deviations on each side that hold 99 % of a normal: 2.576 · 1.2533
FAR = 6.0  # mean absolute deviations: five sigma
GAIN = 0.004  # share of the newest reading once there are many: a half-life of some 170 readings

COUNT, MEDIAN, DEVIATION, FINEST, LAST = range(5)
FIRST = 8  # the first readings, until they are `YOUNG`
BAND_ROW = FIRST + YOUNG  # float64 columns of a row; a new series starts with zeros


@njit(cache=True, nogil=True)
def band_deviation(row: FloatArray) -> float:
    """Mean absolute deviation, never 0: at least a quarter of the finest step; of a constant, 1e-3 of its level."""
    finest = float(row[FINEST])
    least = 0.25 * finest if finest > 0.0 else 1e-3 * abs(float(row[MEDIAN])) + 1e-9
    return max(float(row[DEVIATION]), least)


@njit(cache=True, nogil=True)
def band_of(row: FloatArray) -> tuple[float, float, float]:
    """Expected value, lower and upper end of the band that holds about 99 %; NaN for fewer than `YOUNG` readings."""
    if row[COUNT] < YOUNG:
        return math.nan, math.nan, math.nan
    middle = float(row[MEDIAN])
    half = HOLDS_99 * band_deviation(row)
    return middle, middle - half, middle + half


@njit(cache=True, nogil=True)
def _settle(row: FloatArray) -> None:
    """First median and deviation; the furthest of the first readings is left out, which the factor makes up for."""
    first = row[FIRST : FIRST + YOUNG]
    middle = np.median(first)
    away = np.sort(np.abs(first - middle))
    row[MEDIAN] = middle
    row[DEVIATION] = 1.25 * away[: YOUNG - 1].mean()


@njit(cache=True, nogil=True)
def band_step(row: FloatArray, x: float, gain: float) -> None:
    """`band_learn` at another pace: ``gain`` is the share of the newest reading once there are many."""
    count = row[COUNT]
    row[COUNT] = count + 1.0
    # Before this reading's own step is known: a constant's first outlier must not vouch for itself by it.
    deviation = band_deviation(row)
    step = abs(x - row[LAST]) if count > 0.0 else 0.0
    if step > 0.0 and (row[FINEST] == 0.0 or step < row[FINEST]):
        row[FINEST] = step
    row[LAST] = x
    if count < YOUNG:
        row[FIRST + int(count)] = x
        if count + 1.0 == YOUNG:
            _settle(row)
        return
    gap = x - row[MEDIAN]
    away = abs(gap)
    share = max(gain, 1.0 / (count + 1.0))
    # A step of 1.25 deviations times the gain is the best one for the median of a normal, a little more is steadier.
    row[MEDIAN] += math.copysign(min(1.5 * share * deviation, away), gap)
    row[DEVIATION] = deviation + share * (min(away, BOUND * deviation) - deviation)


@njit(cache=True, nogil=True)
def band_learn(row: FloatArray, x: float) -> None:
    """Learn one finite reading; one for which `learn` is not set must not come here."""
    band_step(row, x, GAIN)


@njit(cache=True, nogil=True)
def beyond(row: FloatArray, x: float) -> float:
    """Nats by which ``x`` is further out than `FAR` deviations, 0 within them.

    For models whose last box is open to the outside: ten and a hundred deviations lie in the same one.
    """
    away = min(abs(x - row[MEDIAN]) / band_deviation(row), 1e300)
    return math.log(away / FAR) if away > FAR else 0.0
