"""`lof`: how much thinner is it here than where the neighbours live?

The local outlier factor (Breunig 2000) of the window of the last readings among those before it: the
mean local density of its k nearest, over its own. A reading at the edge of a wide cloud is ordinary,
the same distance from a tight one is not, so it suits series that are calm and lively by turns.
The windows that it is compared with, their k-distances and densities are those at the last settling
(every 64 readings; see `past`): new readings are judged at once, but count as neighbours only then.
Where it fails: small tight clusters of outliers vouch for each other as soon as there are k of them;
and it costs some k times what `knn` does.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray
from tidewarden.models.band import band_of
from tidewarden.models.past import columns, distances, query_of, remember, windows_of
from tidewarden.models.state import Column, KernelModel, SeriesState

SAME = 0.01  # spreads added to every mean reach: among equal values nothing is a thousand times thinner
REF_FIRST, REF_N = range(2)


@njit(cache=True, nogil=True)
def _nearest(squared: FloatArray, n: int, but: int, best: FloatArray, who: IntArray) -> None:
    """The nearest of ``n`` windows but one, by squared distance: distances in ``best``, rising, windows in ``who``."""
    k = len(best)
    for m in range(k):
        best[m] = np.float32(np.inf)
        who[m] = 0
    for i in range(n):
        v = squared[i]
        if v < best[k - 1] and i != but:
            m = k - 1
            while m > 0 and best[m - 1] > v:
                best[m] = best[m - 1]
                who[m] = who[m - 1]
                m -= 1
            best[m] = v
            who[m] = i
    for m in range(k):
        best[m] = math.sqrt(best[m])


@njit(cache=True, nogil=True)
def _mean_reach(best: FloatArray, who: IntArray, k_distance: FloatArray) -> float:
    """Mean reachability distance of a window from its neighbours; its density is the inverse."""
    total = 0.0
    for m in range(len(best)):
        total += max(best[m], k_distance[who[m]])
    return total / len(best) + SAME


@njit(cache=True, nogil=True)
def _refer(
    unit: FloatArray, first: int, n: int, window: int, k: int, k_distance: FloatArray, reach: FloatArray,
    squared: FloatArray,
) -> None:  # fmt: skip
    """k-distance and mean reach of each of the ``n`` windows among the others."""
    best = np.empty((n, k), np.float32)
    who = np.empty((n, k), np.int32)
    for i in range(n):
        distances(unit, first, n, unit[first + i : first + i + window], squared)
        _nearest(squared, n, i, best[i], who[i])
        k_distance[i] = best[i, k - 1]
    for i in range(n):
        reach[i] = _mean_reach(best[i], who[i], k_distance)


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
    referred: FloatArray,
    k_distances: FloatArray,
    reaches: FloatArray,
    history: int,
    window: int,
    k: int,
) -> None:
    query = np.empty(window, np.float32)
    squared = np.empty(history, np.float32)
    best = np.empty(k, np.float32)
    who = np.empty(k, np.int32)
    for i in range(len(series)):
        x = value[i]
        if not np.isfinite(x):
            continue
        s = series[i]
        st = rings[s]
        n = int(referred[s, REF_N])
        if n > 2 * k:
            query_of(st, units[s], x, query)
            distances(units[s], int(referred[s, REF_FIRST]), n, query, squared)
            _nearest(squared, n, -1, best, who)
            theirs = 0.0
            for m in range(k):
                theirs += 1.0 / reaches[s, who[m]]
            surprise[i] = math.log(theirs / k * _mean_reach(best, who, k_distances[s]))
            expected[i], lower[i], upper[i] = band_of(bands[s])
        if learn[i] and remember(st, bands[s], raws[s], units[s], x):
            first, n = windows_of(st, history, window)
            referred[s, REF_FIRST] = first
            referred[s, REF_N] = n
            if n > 2 * k:
                _refer(units[s], first, n, window, k, k_distances[s], reaches[s], squared)


class Lof(KernelModel):
    """Local outlier factor among the last windows."""

    kind: ClassVar[str] = "lof"
    version: ClassVar[int] = 1

    def __init__(self, k: int, window: int, history: int, warmup: int) -> None:
        state = SeriesState(
            **columns(history, window),
            referred=Column((2,), np.int32),
            k_distance=Column((history,), np.float32),
            reach=Column((history,), np.float32),
        )
        super().__init__(max(warmup, 3 * k + window), state, _observe, history, window, k)
