"""The last few readings of a series as a vector in spreads of its band, newest first.

What `mahalanobis` and `one_class_svm` judge. Unlike `past`, nothing older is remembered.
"""

from __future__ import annotations

from numba import njit

from tidewarden.frames import FloatArray
from tidewarden.models.band import MEDIAN, band_deviation

SPREAD = 1.2533  # mean absolute deviations of a normal in one standard deviation: the unit
BOUND = 8.0  # spreads to which the readings before the newest are bounded
FAR = 1e6  # spreads to which the newest is bounded


@njit(cache=True, nogil=True)
def vector(lags: FloatArray, band: FloatArray, x: float, out: FloatArray) -> None:
    """Reading ``x`` and those before it, in spreads from the median."""
    middle = band[MEDIAN]
    scale = 1.0 / (SPREAD * band_deviation(band))
    out[0] = min(max((x - middle) * scale, -FAR), FAR)
    for j in range(1, len(out)):
        out[j] = min(max((lags[j - 1] - middle) * scale, -BOUND), BOUND)


@njit(cache=True, nogil=True)
def push(lags: FloatArray, x: float) -> None:
    """Remember ``x`` as the newest."""
    for j in range(len(lags) - 1, 0, -1):
        lags[j] = lags[j - 1]
    lags[0] = x
