"""ADWIN: whether the mean of a series' residuals has changed, by a window that shrinks when it has.

Bifet & Gavaldà, "Learning from Time-Changing Data with Adaptive Windowing", SDM 2007: ADWIN2 with its exponential
histogram, `PER_ROW` buckets of each power of two, and the bound that uses the variance. Departures:

* residuals are (value − expected) over half the band, bounded to ±`BOUND`, so the bound's range is known and one spike
  is no change of the mean;
* the variance is that of an exponentially weighted memory, and is multiplied by (1 + ρ)/(1 − ρ) for the residuals'
  first autocorrelation ρ: the paper's bound holds for independent ones, and a model's residuals seldom are;
* cuts are looked for every `EVERY` readings and from `LEAST` on; the oldest buckets beyond `ROWS` powers are forgotten.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from tidewarden.frames import FloatArray, IntArray, TimeArray
from tidewarden.models.state import Column, SeriesState

DELTA = 1e-6  # chance of a false cut, for each look
BOUND = 3.0
ROWS = 12  # up to 3 · 2¹² readings: eight days of minutes
PER_ROW = 3
EVERY = 128  # a power of two; looking costs as much as 100 readings
LEAST = 2 * EVERY
SIDE = 32  # readings on each side of a cut
MEMORY = 1.0 / 512.0
# Columns of a series' row (float64).
MEAN, SQUARE, PRODUCT, PREVIOUS, CUTS, CUT_AT = range(6)
ROW = 6


@njit(cache=True, nogil=True)
def _insert(s: int, sums: FloatArray, buckets: IntArray, x: float) -> None:
    """A bucket of one reading; where a power has one bucket too many, its two oldest become one of the next."""
    carry = np.float32(x)
    for power in range(ROWS):
        n = buckets[s, power]
        base = power * PER_ROW
        if n < PER_ROW:
            sums[s, base + n] = carry
            buckets[s, power] = n + 1
            return
        merged = sums[s, base] + sums[s, base + 1]
        for j in range(PER_ROW - 2):
            sums[s, base + j] = sums[s, base + j + 2]
        sums[s, base + PER_ROW - 2] = carry
        buckets[s, power] = PER_ROW - 1
        carry = merged


@njit(cache=True, nogil=True)
def _cut(sums: FloatArray, n_buckets: IntArray, variance: float) -> int:
    """The index, from the oldest, of the last bucket before the newest change of the mean; −1: there is none."""
    total, n_total = 0.0, 0.0
    for power in range(ROWS):
        for j in range(n_buckets[power]):
            total += sums[power * PER_ROW + j]
            n_total += float(1 << power)
    if n_total < LEAST:
        return -1
    log_term = math.log(2.0 * math.log(n_total) / DELTA)
    old, n_old, index, found = 0.0, 0.0, 0, -1
    for power in range(ROWS - 1, -1, -1):
        for j in range(n_buckets[power]):
            old += sums[power * PER_ROW + j]
            n_old += float(1 << power)
            n_new = n_total - n_old
            if n_old >= SIDE and n_new >= SIDE:
                harmonic = 1.0 / (1.0 / n_old + 1.0 / n_new)
                allowed = math.sqrt(2.0 / harmonic * variance * log_term) + 2.0 * BOUND / (3.0 * harmonic) * log_term
                if abs(old / n_old - (total - old) / n_new) > allowed:
                    found = index
            index += 1
    return found


@njit(cache=True, nogil=True)
def _forget(sums: FloatArray, n_buckets: IntArray, last: int) -> None:
    """Drop the oldest buckets up to and including number ``last``."""
    left = last + 1
    for power in range(ROWS - 1, -1, -1):
        n = n_buckets[power]
        gone = min(n, left)
        for j in range(n - gone):
            sums[power * PER_ROW + j] = sums[power * PER_ROW + j + gone]
        n_buckets[power] = n - gone
        left -= gone


@njit(cache=True, nogil=True)
def _observe(
    series: IntArray,
    timestamp: TimeArray,
    value: FloatArray,
    expected: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    rows: FloatArray,
    sums: FloatArray,
    buckets: IntArray,
) -> None:
    for i in range(len(series)):
        half = 0.5 * (upper[i] - lower[i])
        if not half > 0.0 or math.isnan(value[i]):  # also where the model has no band
            continue
        s = series[i]
        x = min(max((value[i] - expected[i]) / half, -BOUND), BOUND)
        n = buckets[s, ROWS] + 1
        buckets[s, ROWS] = n
        rate = MEMORY if n > 512 else 1.0 / n
        rows[s, MEAN] += rate * (x - rows[s, MEAN])
        rows[s, SQUARE] += rate * (x * x - rows[s, SQUARE])
        rows[s, PRODUCT] += rate * (x * rows[s, PREVIOUS] - rows[s, PRODUCT])
        rows[s, PREVIOUS] = x
        _insert(s, sums, buckets, x)
        if n & (EVERY - 1):
            continue
        squared_mean = rows[s, MEAN] * rows[s, MEAN]
        variance = rows[s, SQUARE] - squared_mean
        rho = min(max((rows[s, PRODUCT] - squared_mean) / variance, 0.0), 0.99) if variance > 0.0 else 0.0
        last = _cut(sums[s], buckets[s], variance * (1.0 + rho) / (1.0 - rho))
        if last >= 0:
            _forget(sums[s], buckets[s], last)
            rows[s, CUTS] += 1.0
            rows[s, CUT_AT] = float(timestamp[i])


class Adwin(SeriesState):
    """An adaptive window over the residuals of every series (244 bytes each)."""

    def __init__(self) -> None:
        super().__init__(
            row=Column((ROW,), np.float64),
            sums=Column((ROWS * PER_ROW,), np.float32),
            buckets=Column((ROWS + 1,), np.int32),  # last: readings seen
        )

    def observe(
        self, series: IntArray, timestamp: TimeArray, value: FloatArray, expected: FloatArray,
        lower: FloatArray, upper: FloatArray,
    ) -> None:  # fmt: skip
        """Take residuals in, arrays (n,) in arrival order; readings without a value or a band are passed over."""
        _observe(
            series, timestamp, value, expected, lower, upper, self["row"], self["sums"], self["buckets"]
        )  # fmt: skip

    def cut_since(self, newest_ms: FloatArray, window_ms: int) -> IntArray:
        """Series whose window was cut within ``window_ms`` before ``newest_ms`` (n_series,)."""
        row = self["row"][: self.n_series]
        recent = (row[:, CUTS] > 0.0) & (row[:, CUT_AT] > newest_ms - window_ms)
        return np.flatnonzero(recent).astype(np.int32)
