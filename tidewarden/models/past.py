"""Windows of the last readings of a series, in the series' own units: what the models of distance compare.

A series has its band (`band`), its last readings as they came, and the same readings in units: spreads
from the median, bounded to `BOUND`, float32. Both lie in straight buffers with some slack at the end, so
a window is a slice; when the slack is used up, what is remembered moves back to the front. Then, and not
for every reading, units follow the band (`settle`), so that what lies in a buffer is always in one unit.

Compiled into the kernels that compare windows: after an edit, `make kernels`.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from tidewarden.frames import FloatArray
from tidewarden.models.band import BAND_ROW, MEDIAN, band_deviation, band_learn
from tidewarden.models.state import Column

BOUND = 8.0  # spreads to which readings are bounded before they are remembered: an outlier stays one, but no more
FAR = 1e6  # spreads to which a new reading is bounded: squares of it, summed, stay far within float32
FIRST = 8  # readings from which the first units are taken
SLACK = 64  # readings after which what is remembered moves to the front, and units follow
SPREAD = 1.2533  # mean absolute deviations of a normal in one standard deviation: the unit
NEAREST = 1e-4  # squared spreads: windows closer than a hundredth of a spread are the same

BASE, UNIT, FILL, SETTLED = range(4)


def columns(history: int, window: int) -> dict[str, Column]:
    """State of a series that remembers ``history`` windows of ``window`` readings, and the slack."""
    length = history + window - 1 + SLACK
    return {
        "ring": Column((4,), np.float64),
        "raw": Column((length,), np.float64),
        "unit": Column((length,), np.float32),
        "band": Column((BAND_ROW,), np.float64),
    }


@njit(cache=True, nogil=True)
def in_units(st: FloatArray, x: float, bound: float) -> float:
    """Reading ``x`` in units, bounded."""
    return min(max((x - float(st[BASE])) / float(st[UNIT]), -bound), bound)


@njit(cache=True, nogil=True)
def remember(st: FloatArray, band: FloatArray, raw: FloatArray, unit: FloatArray, x: float) -> bool:
    """Learn one reading; whether everything that is remembered has new units and places."""
    band_learn(band, x)
    fill = int(st[FILL])
    raw[fill] = x
    if st[SETTLED] > 0.0:
        unit[fill] = np.float32(in_units(st, x, BOUND))
    st[FILL] = fill + 1
    return bool(_settle(st, band, raw, unit))


@njit(cache=True, nogil=True)
def _settle(st: FloatArray, band: FloatArray, raw: FloatArray, unit: FloatArray) -> bool:
    """Move to the front and take new units where it is due.

    It is due when the buffer is full, at ever larger distances while it fills for the first time, and when
    the spread has doubled, which takes some fifty readings: each settling is paid for by many readings.
    """
    fill = int(st[FILL])
    since = fill - int(st[SETTLED])
    spread = SPREAD * band_deviation(band)
    grown = st[SETTLED] > 0.0 and spread > 2.0 * st[UNIT] and since >= FIRST
    if fill < len(raw) and since < max(FIRST, min(SLACK, fill // 4)) and not grown:
        return False
    if fill == len(raw):
        fill -= SLACK
        for j in range(fill):
            raw[j] = raw[SLACK + j]
        st[FILL] = fill
    st[BASE] = band[MEDIAN]
    st[UNIT] = spread
    for j in range(fill):
        unit[j] = np.float32(in_units(st, raw[j], BOUND))
    st[SETTLED] = fill
    return True


@njit(cache=True, nogil=True)
def windows_of(st: FloatArray, history: int, window: int) -> tuple[int, int]:
    """Start of the oldest remembered window, and how many there are (at most ``history``); starts follow each other."""
    if st[SETTLED] == 0.0:
        return 0, 0
    n = min(int(st[FILL]) - window + 1, history)
    return (int(st[FILL]) - window + 1 - n, n) if n > 0 else (0, 0)


@njit(cache=True, nogil=True)
def distances(unit: FloatArray, first: int, n: int, query: FloatArray, out: FloatArray) -> None:
    """Squared distances, float32, of window ``query`` from the ``n`` windows that start at ``first`` and after."""
    # Over slices of one length, which the compiler can walk eight at a time: three times as fast as by index.
    last = len(query) - 1
    q = query[last]
    to = out[:n]
    there = unit[first + last : first + last + n]
    for i in range(len(to)):
        gap = there[i] - q
        to[i] = gap * gap
    for j in range(last):
        q = query[j]
        there = unit[first + j : first + j + n]
        for i in range(len(to)):
            gap = there[i] - q
            to[i] += gap * gap


@njit(cache=True, nogil=True)
def query_of(st: FloatArray, unit: FloatArray, x: float, query: FloatArray) -> None:
    """The window that ends with ``x``, in units: those before it bounded as they are remembered, ``x`` hardly."""
    last = len(query) - 1
    start = int(st[FILL]) - last
    for j in range(last):
        query[j] = unit[start + j]
    query[last] = np.float32(in_units(st, x, FAR))


@njit(cache=True, nogil=True)
def smallest(values: FloatArray, n: int, best: FloatArray) -> None:
    """The ``len(best)`` smallest of the first ``n`` values, rising; where there are fewer, the rest is infinite."""
    k = len(best)
    for m in range(k):
        best[m] = np.float32(np.inf)
    for i in range(n):
        v = values[i]
        if v < best[k - 1]:
            m = k - 1
            while m > 0 and best[m - 1] > v:
                best[m] = best[m - 1]
                m -= 1
            best[m] = v


@njit(cache=True, nogil=True)
def surprise_of(squared: float) -> float:
    """Logarithm of a distance, from its square: at least that of a hundredth of a spread."""
    return 0.5 * math.log(squared + NEAREST)
