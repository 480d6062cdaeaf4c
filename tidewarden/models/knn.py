"""`knn`: how far is the window of the last readings from the k-th nearest of those before?

Exact distances (Ramaswamy 2000; online as in KNN-CAD, Burnaev 2016) between windows of a few readings
in spreads of the series; surprise is the logarithm of the distance to the k-th nearest of the last
`history` windows. It sees rare values and rare steps without any idea of what is ordinary, and k - 1
outliers of one kind do not vouch for the next one.
Where it fails: what is remembered is all it knows, so something that comes once a day is new to it every
day unless `history` spans a day; and where the noise differs by place, `lof` judges more fairly.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray
from tidewarden.models.band import band_of
from tidewarden.models.past import columns, distances, query_of, remember, smallest, surprise_of, windows_of
from tidewarden.models.state import KernelModel, SeriesState

FEWEST = 16  # windows from which one is judged


@njit(cache=True, nogil=True)
def _observe(
    series: IntArray,
    value: FloatArray,
    learn: BoolArray,
    surprise: FloatArray,
    expected: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    rings: FloatArray,
    raws: FloatArray,
    units: FloatArray,
    bands: FloatArray,
    history: int,
    window: int,
    k: int,
) -> None:
    query = np.empty(window, np.float32)
    far = np.empty(history, np.float32)
    best = np.empty(k, np.float32)
    for i in range(len(series)):
        x = value[i]
        if not np.isfinite(x):
            continue
        s = series[i]
        st = rings[s]
        first, n = windows_of(st, history, window)
        if n >= max(k, FEWEST):
            query_of(st, units[s], x, query)
            distances(units[s], first, n, query, far)
            smallest(far, n, best)
            surprise[i] = surprise_of(best[k - 1])
            expected[i], lower[i], upper[i] = band_of(bands[s])
        if learn[i]:
            remember(st, bands[s], raws[s], units[s], x)


class Knn(KernelModel):
    """Distance to the k-th nearest of the last windows."""

    kind: ClassVar[str] = "knn"
    version: ClassVar[int] = 1

    def __init__(self, k: int, window: int, history: int, warmup: int) -> None:
        super().__init__(
            max(warmup, k + window + FEWEST), SeriesState(**columns(history, window)), _observe, history, window, k
        )
