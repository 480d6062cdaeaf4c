"""Three looks at a reading: its value, its step from the one before, its departure from a trailing mean.

What `ecod` and `histogram` count. Readings are bounded to `BOUND` spreads of the band before they are
remembered, so that one outlier neither makes the next reading's step look wild for long nor the mean.
"""

from __future__ import annotations

from numba import njit

from tidewarden.frames import FloatArray
from tidewarden.models.band import COUNT, MEDIAN, YOUNG, band_deviation

FEATURES = 3
VALUE, STEP, DEPARTURE = range(FEATURES)
LAST, TRAILING = range(2)
LOOK = 2  # columns of the row that the features need
TRAIL = 0.125  # share of the newest reading in the trailing mean: about eight readings
BOUND = 10.0  # mean deviations, eight spreads


@njit(cache=True, nogil=True)
def bounded(band: FloatArray, x: float) -> float:
    """Reading ``x`` drawn in to the band's bound, once there is a band."""
    if band[COUNT] < YOUNG:
        return x
    reach = BOUND * band_deviation(band)
    middle = float(band[MEDIAN])
    return float(min(max(x, middle - reach), middle + reach))


@njit(cache=True, nogil=True)
def look(row: FloatArray, x: float, out: FloatArray) -> None:
    """Features of ``x``, in the reading's own unit."""
    out[VALUE] = x
    out[STEP] = x - row[LAST]
    out[DEPARTURE] = x - row[TRAILING]


@njit(cache=True, nogil=True)
def look_learn(row: FloatArray, x: float, young: bool) -> None:
    """Remember reading ``x``, already bounded; ``young``: it is the first one."""
    row[LAST] = x
    row[TRAILING] = x if young else row[TRAILING] + TRAIL * (x - row[TRAILING])
