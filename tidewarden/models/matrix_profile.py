"""`matrix_profile`: has a shape like that of the last readings been seen before?

The left matrix profile (Yeh 2016, its online form): the distance of the newest window, normalised to mean
0 and deviation 1, from its nearest among the `history` windows before it, those that overlap it by more
than half left out. Inner products move on with each reading, so a reading costs a few operations a
remembered window, whatever `window` is; they are computed anew whenever units change (every 64 readings).
It sees shapes whose like never came, whatever their level and size. Two departures from the textbook: a
window flatter than `FLAT` spreads of the series is not blown up to deviation 1, so noise on a constant
is no shape; and the newest reading counts with its full size in the distance, but bounded in mean and
deviation, so that a spike is judged by how far it goes.
Where it fails: `history` must span what repeats, a day for a daily shape; a level shift is a surprise only
while the window crosses it.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray
from tidewarden.models.band import band_of
from tidewarden.models.past import BOUND, FAR, FILL, SETTLED, columns, in_units, remember
from tidewarden.models.state import Column, KernelModel, SeriesState

FLAT = 0.1  # spreads of the series: least deviation that a window is divided by
SAME = 0.01  # squared distance below which two shapes are the same
MEAN, INVERSE, ENERGY = range(3)  # of a window, by its last reading; ENERGY is its squared norm once normalised


@njit(cache=True, nogil=True)
def _shape(unit: FloatArray, end: int, window: int, newest: float) -> tuple[float, float, float]:
    """Mean, inverse of the deviation and squared norm of the window at ``end``, whose last reading is ``newest``."""
    total = newest
    for j in range(1, window):
        total += unit[end - j]
    mean = total / window
    squares = (newest - mean) * (newest - mean)
    for j in range(1, window):
        squares += (unit[end - j] - mean) * (unit[end - j] - mean)
    inverse = 1.0 / max(math.sqrt(squares / window), FLAT)
    return mean, inverse, squares * inverse * inverse


@njit(cache=True, nogil=True)
def _product(unit: FloatArray, a: int, b: int, window: int) -> float:
    """Inner product of the windows that end at ``a`` and ``b``."""
    total = 0.0
    for j in range(window):
        total += float(unit[a - j]) * float(unit[b - j])
    return total


@njit(cache=True, nogil=True)
def _ends(fill: int, history: int, window: int, exclusion: int) -> tuple[int, int]:
    """Last readings of the candidates for a window that ends at ``fill``: that of slot 0, and the first slot in use.

    A candidate needs one reading before its window, because products move on from the window before.
    """
    oldest = fill - exclusion - history + 1
    return oldest, max(0, window - oldest)


@njit(cache=True, nogil=True)
def _nearest(
    unit: FloatArray, shapes: FloatArray, products: FloatArray, fill: int, history: int, window: int, exclusion: int,
    x: float, squared: FloatArray,
) -> float:  # fmt: skip
    """Squared distance of the window that ends with ``x``, in units, from its nearest; -1 with too few candidates."""
    oldest, first = _ends(fill, history, window, exclusion)
    if history - first < 2 * window:
        return -1.0
    tame = min(max(x, -BOUND), BOUND)
    mean, inverse, energy = _shape(unit, fill, window, tame)
    gone = float(unit[fill - window])
    # The newest reading in full instead of bounded: (a - b)² - (t - b)² for each candidate's last value b.
    t = (tame - mean) * inverse
    a = (x - mean) * inverse
    more = a - t
    both = a + t
    n = history - first
    start = oldest + first
    mass = window * mean
    # Over slices of one length, which the compiler can walk several at a time: three times as fast as by index.
    product, last, before = products[first:], unit[start : start + n], unit[start - window : start - window + n]
    means, inverses = shapes[MEAN, start : start + n], shapes[INVERSE, start : start + n]
    energies, to = shapes[ENERGY, start : start + n], squared[:n]
    for r in range(n):
        inner = product[r] + (tame * last[r] - gone * before[r])
        along = (inner - mass * means[r]) * (inverse * inverses[r])
        b = (last[r] - means[r]) * inverses[r]
        to[r] = energy + energies[r] - 2.0 * along + more * (both - 2.0 * b)
    best = np.inf
    for r in range(n):
        if to[r] < best:  # noqa: PLR1730 - min() minds NaN and is several times slower
            best = to[r]
    return max(best, 0.0)


@njit(cache=True, nogil=True)
def _move_on(
    unit: FloatArray, shapes: FloatArray, products: FloatArray, fill: int, history: int, window: int, exclusion: int
) -> None:
    """Products and shapes learn the reading that was just remembered, at ``fill - 1``."""
    end = fill - 1
    if end < window:
        return
    shapes[MEAN, end], shapes[INVERSE, end], shapes[ENERGY, end] = _shape(unit, end, window, unit[end])
    oldest, first = _ends(end, history, window, exclusion)
    newest = float(unit[end])
    gone = float(unit[end - window])
    start = oldest + first
    product = products[min(first, history) :]
    last, before = unit[start : start + len(product)], unit[start - window : start - window + len(product)]
    for r in range(len(product)):
        product[r] += newest * last[r] - gone * before[r]
    if 0 < first <= history:  # while memory fills, each reading brings one more candidate: its oldest window
        products[first - 1] = _product(unit, end, window - 1, window)


@njit(cache=True, nogil=True)
def _anew(
    unit: FloatArray, shapes: FloatArray, products: FloatArray, fill: int, history: int, window: int, exclusion: int
) -> None:
    """Products and shapes from what is remembered, after its units have changed."""
    for end in range(window - 1, fill):
        shapes[MEAN, end], shapes[INVERSE, end], shapes[ENERGY, end] = _shape(unit, end, window, unit[end])
    oldest, first = _ends(fill - 1, history, window, exclusion)
    for r in range(max(first - 1, 0), history):
        products[r] = _product(unit, fill - 1, oldest + r, window)


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
    shapes: FloatArray,
    products: FloatArray,
    window: int,
    exclusion: int,
) -> None:
    history = products.shape[1]
    squared = np.empty(history)
    for i in range(len(series)):
        x = value[i]
        if not np.isfinite(x):
            continue
        s = series[i]
        st = rings[s]
        if st[SETTLED] > window:
            best = _nearest(
                units[s], shapes[s], products[s], int(st[FILL]), history, window, exclusion, in_units(st, x, FAR),
                squared,
            )  # fmt: skip
            if best >= 0.0:
                surprise[i] = 0.5 * math.log(best + SAME)
                expected[i], lower[i], upper[i] = band_of(bands[s])
        if learn[i]:
            anew = remember(st, bands[s], raws[s], units[s], x)
            if st[FILL] > window:
                if anew:
                    _anew(units[s], shapes[s], products[s], int(st[FILL]), history, window, exclusion)
                else:
                    _move_on(units[s], shapes[s], products[s], int(st[FILL]), history, window, exclusion)


class MatrixProfile(KernelModel):
    """Distance of the newest shape from its nearest."""

    kind: ClassVar[str] = "matrix_profile"
    version: ClassVar[int] = 1

    def __init__(self, window: int, history: int, warmup: int) -> None:
        exclusion = max(1, window // 2)
        ring = columns(history + exclusion, window)
        state = SeriesState(
            **ring,
            shape=Column((3, *ring["unit"].shape), np.float32),
            product=Column((history,), np.float64),
        )
        super().__init__(max(warmup, 4 * window), state, _observe, window, exclusion)
