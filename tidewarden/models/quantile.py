"""`quantile`: limits taken once, from the quantiles of a training window, and kept.

For people who want `static` without having to know the numbers: the first `window` readings of each series say
what is usual for it, and nothing is learned after that. So it never forgets what normal was.
Where it fails: it never takes in what is new: a signal that moves for good stays outside until the detector is
trained anew. It knows no time of day. An incident in the window that is longer than the outer share becomes part
of the limits.

The quantiles are exact (linear between neighbours, like `numpy.quantile`), and only as many of the smallest
and the largest readings are kept as they take. Distance is in widths of the band; expected is the nearest
value inside, as of `static`.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray
from tidewarden.models.state import Column, KernelModel, SeriesState

COUNT, LOWER, UPPER, WIDTH = range(4)


@njit(cache=True, nogil=True)
def _keep(ordered: FloatArray, n: int, x: float) -> None:
    """Insert ``x`` into the ``n`` smallest seen, in rising order; the largest drops out where there is no room."""
    at = min(n, len(ordered))
    if at == len(ordered):
        if x >= ordered[at - 1]:
            return
        at -= 1
    while at > 0 and ordered[at - 1] > x:
        ordered[at] = ordered[at - 1]
        at -= 1
    ordered[at] = x


@njit(cache=True, nogil=True)
def _between(ordered: FloatArray, at: float) -> float:
    """The value at a position between two neighbours."""
    low = min(int(at), len(ordered) - 1)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (at - low) * (ordered[high] - ordered[low]))


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
    smallest: FloatArray,
    largest: FloatArray,
    window: int,
    at_lower: float,
    at_upper: float,
) -> None:
    for i in range(len(series)):
        x = value[i]
        if not np.isfinite(x):
            continue
        s = series[i]
        count = int(rows[s, COUNT])
        if count >= window:
            surprise[i] = max(rows[s, LOWER] - x, x - rows[s, UPPER]) / rows[s, WIDTH]
            expected[i] = min(max(x, rows[s, LOWER]), rows[s, UPPER])
            lower[i] = rows[s, LOWER]
            upper[i] = rows[s, UPPER]
        elif learn[i]:
            _keep(smallest[s], count, x)
            _keep(largest[s], count, -x)
            rows[s, COUNT] = count + 1
            if count + 1 == window:
                rows[s, LOWER] = _between(smallest[s], at_lower)
                rows[s, UPPER] = -_between(largest[s], at_upper)
                level = max(abs(rows[s, LOWER]), abs(rows[s, UPPER]))
                rows[s, WIDTH] = max(rows[s, UPPER] - rows[s, LOWER], 1e-3 * level, 1e-9)


class Quantile(KernelModel):
    """Limits from the quantiles of a training window."""

    kind: ClassVar[str] = "quantile"
    version: ClassVar[int] = 1

    def __init__(self, lower: float, upper: float, window: int) -> None:
        at_lower = lower * (window - 1)  # position in the smallest, rising
        at_upper = (1.0 - upper) * (window - 1)  # position in the largest, falling
        state = SeriesState(
            row=Column((4,), np.float64),
            smallest=Column((math.floor(at_lower) + 2,), np.float64),
            largest=Column((math.floor(at_upper) + 2,), np.float64),
        )
        super().__init__(window, state, _observe, window, at_lower, at_upper)
