"""`ecod`: how far out in the tails of what was seen, on whichever side?

Empirical cumulative distributions (Li 2022) of three features of a series (value, step, departure from a
trailing mean) over their last `history` values: minus the logarithms of the tail probabilities, added over
the features, once for the left tails, once for the right, once for the tail to which each feature is skewed;
surprise is the largest of the three. No parameter decides anything, and ranks mind no outlier.
The textbook's score stands still beyond the extremes; here it goes on with the logarithm of how many
spreads beyond, so that of two records the higher one is the more surprising.
Where it fails: it looks at tails only, so a value between two modes, or a flat line, is ordinary to it.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray
from tidewarden.models.band import BAND_ROW, COUNT, band_deviation, band_learn, band_of
from tidewarden.models.features import FEATURES, LOOK, bounded, look, look_learn
from tidewarden.models.state import Column, KernelModel, SeriesState

FEWEST = 16  # readings of which there are tails
SKEW_EVERY = 16  # readings after which skewness is computed anew
FAR = 1e12  # spreads beyond an extreme that still make a difference
SKEW = LOOK  # column of the skewness of the first feature


@njit(cache=True, nogil=True)
def _tails(past: FloatArray, n: int, v: float, spread: float) -> tuple[float, float]:
    """-log of the share of the ``n`` past values at or below ``v``, and at or above, ``v`` itself among them."""
    below = 0
    above = 0
    for i in range(n):
        below += 1 if past[i] <= v else 0
        above += 1 if past[i] >= v else 0
    left = math.log((n + 1.0) / (below + 1.0))
    right = math.log((n + 1.0) / (above + 1.0))
    if below == 0:
        left += math.log1p(min((past[:n].min() - v) / spread, FAR))
    if above == 0:
        right += math.log1p(min((v - past[:n].max()) / spread, FAR))
    return left, right


@njit(cache=True, nogil=True)
def _skew(past: FloatArray, n: int) -> float:
    """Sign of the skewness: -1 where the left tail is the long one, else 1."""
    mean = past[:n].mean()
    scale = max(abs(past[:n].max() - mean), abs(past[:n].min() - mean)) + 1e-300
    third = 0.0
    for i in range(n):
        gap = (past[i] - mean) / scale
        third += gap * gap * gap
    return -1.0 if third < 0.0 else 1.0


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
    pasts: FloatArray,
    history: int,
) -> None:
    f = np.empty(FEATURES)
    for i in range(len(series)):
        x = value[i]
        if not np.isfinite(x):
            continue
        s = series[i]
        band = bands[s]
        row = looks[s]
        count = int(band[COUNT])
        n = min(count, history)
        if n >= FEWEST:
            look(row, x, f)
            spread = 1.2533 * band_deviation(band)
            left = 0.0
            right = 0.0
            skewed = 0.0
            for j in range(FEATURES):
                here, there = _tails(pasts[s, j], n, f[j], spread)
                left += here
                right += there
                skewed += here if row[SKEW + j] < 0.0 else there
            surprise[i] = max(left, right, skewed)
            expected[i], lower[i], upper[i] = band_of(band)
        if learn[i]:
            tame = bounded(band, x)
            if count == 0:
                look_learn(row, tame, True)
            look(row, tame, f)
            for j in range(FEATURES):
                pasts[s, j, count % history] = f[j]
                if (count + 1) % SKEW_EVERY == 0:
                    row[SKEW + j] = _skew(pasts[s, j], min(count + 1, history))
            look_learn(row, tame, count == 0)
            band_learn(band, x)


class Ecod(KernelModel):
    """Tail probabilities of a reading's features."""

    kind: ClassVar[str] = "ecod"
    version: ClassVar[int] = 1

    def __init__(self, history: int, warmup: int) -> None:
        state = SeriesState(
            band=Column((BAND_ROW,), np.float64),
            look=Column((LOOK + FEATURES,), np.float64),
            past=Column((FEATURES, history), np.float64),
        )
        super().__init__(warmup, state, _observe, history)
