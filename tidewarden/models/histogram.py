"""`histogram`: in how empty a bin of each feature's histogram does the reading fall?

HBOS (Goldstein 2012): one histogram for each of three features of a series (value, step, departure from a
trailing mean), taken as independent; surprise is the sum of -log density. The histograms extend by
themselves (`histograms`): a reading outside widens its histogram to at most twice the width, so an
outlier costs little resolution and a lasting change is taken in within a few readings.
Where it fails: it knows no time of day and no joint behaviour; and it needs some hundred readings before
its bins say much. `density` is what becomes of the idea with more features, seasons and care.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray
from tidewarden.models.band import BAND_ROW, COUNT, MEDIAN, band_deviation, band_learn, band_of
from tidewarden.models.features import FEATURES, LOOK, bounded, look, look_learn
from tidewarden.models.histograms import BINS, age, extend, place
from tidewarden.models.state import Column, KernelModel, SeriesState

FIT = 32  # readings from which the histograms' unit is taken
FEWEST = 16  # readings in the histograms from which one is judged
START = 6.0  # spreads on each side that a histogram holds at first
PSEUDO = 0.05  # counts that every bin starts with
FAR = 1e30  # spreads: what is beyond is not told apart
LN_2 = math.log(2.0)
BASE, UNIT, MASS = LOOK, LOOK + 1, LOOK + 2
ROW = LOOK + 3


@njit(cache=True, nogil=True)
def _look(row: FloatArray, x: float, out: FloatArray) -> None:
    """Features in units of the first readings' spread."""
    look(row, x, out)
    out[0] -= row[BASE]
    for j in range(FEATURES):
        out[j] = min(max(out[j] / row[UNIT], -FAR), FAR)


@njit(cache=True, nogil=True)
def _minus_log_density(hist: FloatArray, edge: FloatArray, mass: float, v: float) -> float:
    """In nats; outside, as if the histogram had widened to hold ``v``."""
    b, doublings = place(edge, v)
    count = float(hist[b]) if b >= 0 else 0.0
    return math.log((mass + BINS * PSEUDO) * float(edge[1]) / (count + PSEUDO)) + LN_2 * float(doublings)


@njit(cache=True, nogil=True)
def _learn(row: FloatArray, hist: FloatArray, edge: FloatArray, f: FloatArray, memory: float) -> None:
    for j in range(FEATURES):
        b, doublings = place(edge[j], f[j])
        if doublings > 0:
            extend(hist[j], edge[j], f[j])
            b, _ = place(edge[j], f[j])
        if b >= 0:
            hist[j, b] += 1.0
    row[MASS] += 1.0
    if row[MASS] > memory:
        row[MASS] *= 0.5
        for j in range(FEATURES):
            age(hist[j], edge[j])


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
    looks: FloatArray,
    hists: FloatArray,
    edges: FloatArray,
    memory: float,
) -> None:
    f = np.empty(FEATURES)
    for i in range(len(series)):
        x = value[i]
        if not np.isfinite(x):
            continue
        s = series[i]
        band = bands[s]
        row = looks[s]
        if row[MASS] >= FEWEST:
            _look(row, x, f)
            total = 0.0
            for j in range(FEATURES):
                total += _minus_log_density(hists[s, j], edges[s, j], row[MASS], f[j])
            surprise[i] = total
            expected[i], lower[i], upper[i] = band_of(band)
        if learn[i]:
            count = int(band[COUNT])
            if count == FIT:
                row[BASE] = band[MEDIAN]
                row[UNIT] = 1.2533 * band_deviation(band)
                for j in range(FEATURES):
                    edges[s, j, 0] = -START
                    edges[s, j, 1] = 2.0 * START / BINS
            tame = bounded(band, x)
            if count >= FIT:
                _look(row, tame, f)
                _learn(row, hists[s], edges[s], f, memory)
            look_learn(row, tame, count == 0)
            band_learn(band, x)


class Histogram(KernelModel):
    """Histogram-based outlier score."""

    kind: ClassVar[str] = "histogram"
    version: ClassVar[int] = 1

    def __init__(self, memory: int, warmup: int) -> None:
        most = 2.0 * memory  # counts halve when there are so many: `memory` of them stay
        state = SeriesState(
            band=Column((BAND_ROW,), np.float64),
            look=Column((ROW,), np.float64),
            hist=Column((FEATURES, BINS), np.float32),
            edge=Column((FEATURES, 2), np.float64),
        )
        super().__init__(max(warmup, FIT + FEWEST), state, _observe, most)
