"""`cusum`: small deviations in one direction, added up until they are no accident any more.

Two sums, one a side, gather by how much each reading lies further from the reference than `slack` deviations,
and run down when readings come back. So a shift of one deviation, which no single reading gives away, is found
within some ten readings; and a spike is seen at once, because a reading's own deviation counts in full when it
is judged, though only up to `BOUND` when it is remembered. The reference, a fading mean, learns a lasting
shift as the new normal.

Two methods, which differ in what they call normal: for `cusum` (Page 1954) it is the recent past; for
`page_hinkley` (Hinkley 1971) the mean of all there was, here with `PATIENCE` times the memory: for shifts that
are smaller or creep, at the price that they are news for longer. (The sum less its lowest point, as Page and
Hinkley write it, is the same as a sum that does not fall below zero.)

Where it fails: on a season, half a wave is a shift. Choose a half-life well below the
season, or `holt_winters`, `stl`, `ar`.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray
from tidewarden.models.residual import (
    BAND,
    COUNT,
    JUDGED,
    OWN,
    SIGMA,
    YOUNG,
    bounded,
    learn_grain,
    learn_residual,
    spread_of,
)  # fmt: skip
from tidewarden.models.state import Column, KernelModel, SeriesState

PATIENCE = 8.0
LIMIT = 20.0  # deviations that a sum remembers at most: with a slack of 0.5 it has run down after forty readings

MEAN, UP, DOWN = range(OWN, OWN + 3)


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
    slack: float,
) -> None:
    for i in range(len(series)):
        x = value[i]
        if not np.isfinite(x):
            continue
        s = series[i]
        gap = x - rows[s, MEAN]
        spread = spread_of(rows, s)
        sigma = SIGMA * spread
        ready = rows[s, JUDGED] >= YOUNG
        if ready:
            z = gap / sigma
            # Not cut off at zero, so that calm readings have an order, too.
            surprise[i] = max(rows[s, UP] + z, rows[s, DOWN] - z) - slack
            expected[i] = rows[s, MEAN]
            lower[i] = rows[s, MEAN] - BAND * spread
            upper[i] = rows[s, MEAN] + BAND * spread
        if not learn[i]:
            continue
        count = rows[s, COUNT]
        if count == 0.0:
            rows[s, MEAN] = x
        else:
            gap = bounded(rows, s, gap, spread)
            if ready:
                z = gap / sigma
                rows[s, UP] = min(max(rows[s, UP] + z - slack, 0.0), LIMIT)
                rows[s, DOWN] = min(max(rows[s, DOWN] - z - slack, 0.0), LIMIT)
            learn_residual(rows, s, gap, spread)
            rows[s, MEAN] += gap * max(gain, 1.0 / (count + 1.0))
        learn_grain(rows, s, x)


class Cusum(KernelModel):
    """Cumulative sums of small deviations."""

    kind: ClassVar[str] = "cusum"
    version: ClassVar[int] = 1

    def __init__(self, method: str, half_life: float, slack: float, warmup: int) -> None:
        patience = PATIENCE if method == "page_hinkley" else 1.0
        gain = 1.0 - 0.5 ** (1.0 / (half_life * patience))
        super().__init__(warmup, SeriesState(row=Column((OWN + 3,), np.float64)), _observe, gain, slack)
