"""`dbscan`: is the window of the last readings within reach of a place where many have been?

DBSCAN (Ester 1996) as a judge of single readings: a window of the past is a core where at least
`min_samples` windows, itself among them, lie within `eps` spreads; a new one farther than that from
every core is noise. Surprise is the logarithm of the distance to the nearest core, in `eps`: above 0 is
what DBSCAN calls noise. Cores are found anew at each settling (every 64 readings; see `past`).
Where it fails: `eps` is one distance for the whole series; where no window is a core everything is
noise, more so the farther it is from all that is remembered.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray
from tidewarden.models.band import band_of
from tidewarden.models.past import NEAREST, columns, distances, query_of, remember, windows_of
from tidewarden.models.state import Column, KernelModel, SeriesState

REF_FIRST, REF_N, CORES = range(3)


@njit(cache=True, nogil=True)
def _find_cores(
    unit: FloatArray, first: int, n: int, window: int, eps: float, min_samples: int, core: BoolArray,
    squared: FloatArray,
) -> int:  # fmt: skip
    """Mark the windows with at least ``min_samples`` within ``eps``, themselves among them; how many there are."""
    reach = np.float32(eps * eps)
    cores = 0
    for i in range(n):
        distances(unit, first, n, unit[first + i : first + i + window], squared)
        near = 0
        for m in range(n):
            near += 1 if squared[m] <= reach else 0
        core[i] = near >= min_samples
        cores += 1 if core[i] else 0
    return cores


@njit(cache=True, nogil=True)
def _surprise(squared: FloatArray, n: int, core: BoolArray, cores: int, eps: float) -> float:
    """Logarithm of the distance to the nearest core in ``eps``; without cores, of 1 and that to the nearest window."""
    nearest = np.float32(np.inf)
    for m in range(n):
        v = squared[m]
        if v < nearest and (core[m] or cores == 0):
            nearest = v
    if cores == 0:
        return math.log1p(math.sqrt(nearest) / eps)
    return 0.5 * math.log((nearest + NEAREST) / (eps * eps + NEAREST))


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
    cores: BoolArray,
    history: int,
    window: int,
    eps: float,
    min_samples: int,
) -> None:
    query = np.empty(window, np.float32)
    squared = np.empty(history, np.float32)
    for i in range(len(series)):
        x = value[i]
        if not np.isfinite(x):
            continue
        s = series[i]
        st = rings[s]
        ref = referred[s]
        n = int(ref[REF_N])
        if n > min_samples:
            query_of(st, units[s], x, query)
            distances(units[s], int(ref[REF_FIRST]), n, query, squared)
            surprise[i] = _surprise(squared, n, cores[s], int(ref[CORES]), eps)
            expected[i], lower[i], upper[i] = band_of(bands[s])
        if learn[i] and remember(st, bands[s], raws[s], units[s], x):
            first, n = windows_of(st, history, window)
            ref[REF_FIRST] = first
            ref[REF_N] = n
            ref[CORES] = _find_cores(units[s], first, n, window, eps, min_samples, cores[s], squared)


class Dbscan(KernelModel):
    """Distance to the nearest core window."""

    kind: ClassVar[str] = "dbscan"
    version: ClassVar[int] = 1

    def __init__(self, eps: float, min_samples: int, window: int, history: int, warmup: int) -> None:
        state = SeriesState(
            **columns(history, window),
            referred=Column((3,), np.int32),
            core=Column((history,), np.bool_),
        )
        super().__init__(max(warmup, 2 * min_samples + window), state, _observe, history, window, eps, min_samples)
