"""`loda`: how thinly populated is the place where the last readings fall, seen from many random directions?

Each projection mixes the newest reading with a few of those before it, by random weights; the first one is
the reading itself. Each feeds a histogram of 32 counts in 16 bits, one cache line; surprise is the mean of
-log density over all of them. Constant time and memory per reading.

Where it fails: it knows no time of day (`density` does), and what only a certain combination of lags
shows may lie between the directions. Counts are halved every few thousand readings, so what happened
`AGE` readings ago weighs half. A reading outside a histogram widens it only if such readings are more than one in
`LEAK`: single outliers, however far, leave no trace; a lasting shift is taken in after some ten readings. After one by
hundreds of deviations bins stay wide, and small deviations unseen, until the old level has faded: a dozen halvings.

Source: Pevny: Loda: Lightweight on-line detector of anomalies (Machine Learning 102, 2016). Other than there,
all projections see the newest reading, and histograms extend, fade and close in again.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray
from tidewarden.models.band import BAND_ROW, band_learn, band_of
from tidewarden.models.histograms import BINS, age, extend, place
from tidewarden.models.state import Column, KernelModel, SeriesState
from tidewarden.models.windows import window_of

TERMS = 3  # readings that a projection mixes; about the root of the usual eight lags, as in the paper
FIT = 64  # readings from which the first widths are taken, at most
UNIT = 8  # counts that a reading adds, so that halving loses little; AGE * UNIT must stay below 2**16
AGE = 6000.0
PSEUDO = 0.08  # counts that a bin starts with: a hundredth of a reading
TOGETHER = 64  # counts multiplied before a logarithm is taken: 48,000 ** 64 is 1e299, and PSEUDO ** 64 1e-71
LEAK = 64.0  # readings in which one outside is forgotten …
OFTEN = 4.0  # … and so many, not forgotten yet, widen the histograms
FURTHEST = 1e150  # readings are bounded to it, so that no sum overflows
LN_2 = math.log(2.0)
Counts = npt.NDArray[np.uint16]

COUNT, HEAD, MASS, OUTSIDE, FINEST, LOG_WIDTHS = range(6)
STAT = 6


@njit(cache=True, nogil=True, error_model="numpy")
def _project(
    window: FloatArray, picks: IntArray, weights: FloatArray, edges: FloatArray, at: FloatArray, bins: IntArray
) -> None:
    """Where a window lies in each histogram: the value ``at``, and the bin, -1 outside."""
    for k in range(len(picks)):
        v = weights[k, 0] * window[0]
        at[k] = v + (weights[k, 1] * window[picks[k, 1]] + weights[k, 2] * window[picks[k, 2]])
    for k in range(len(picks)):
        b = (at[k] - edges[k, 0]) / edges[k, 1]
        bins[k] = int(b) if 0.0 <= b < BINS else -1


@njit(cache=True, nogil=True, error_model="numpy")
def _surprise(st: FloatArray, hist: Counts, edges: FloatArray, at: FloatArray, bins: IntArray) -> float:
    """Mean of -log density over the histograms, in nats."""
    n = len(hist)
    total = st[LOG_WIDTHS]
    product = 1.0
    for k in range(n):
        b = bins[k]
        c = 0.0
        if b >= 0:
            # A triangle over three bins, or chance decides by the side of an edge.
            c = 0.5 * hist[k, b] + 0.25 * (hist[k, max(b - 1, 0)] + hist[k, min(b + 1, BINS - 1)])
        else:
            # Where nothing was ever seen, density halves each time the distance doubles.
            total += LN_2 * place(edges[k], at[k])[1]
        product *= c + PSEUDO
        if k % TOGETHER == TOGETHER - 1:
            total -= math.log(product)
            product = 1.0
    total -= math.log(product)
    return float(total / n + math.log(st[MASS] * UNIT + BINS * PSEUDO))


@njit(cache=True, nogil=True, error_model="numpy")
def _learn(st: FloatArray, hist: Counts, edges: FloatArray, at: FloatArray, bins: IntArray) -> None:
    for k in range(len(hist)):
        if bins[k] >= 0:
            hist[k, bins[k]] += np.uint16(UNIT)
    st[OUTSIDE] = max(st[OUTSIDE] - 1.0 / LEAK, 0.0) if bins[0] >= 0 else st[OUTSIDE] + 1.0
    if st[OUTSIDE] > OFTEN:
        st[OUTSIDE] = min(st[OUTSIDE], 2.0 * OFTEN)
        for k in range(len(hist)):
            if bins[k] < 0:  # one doubling a reading: the next will see whether it was enough
                extend(hist[k], edges[k], at[k])
                st[LOG_WIDTHS] += LN_2
    st[MASS] += 1.0
    if st[MASS] > AGE:
        st[MASS] *= 0.5
        _fade(st, hist, edges)


@njit(cache=True, nogil=True, error_model="numpy")
def _fade(st: FloatArray, hist: Counts, edges: FloatArray) -> None:
    """Halve all counts; histograms that have room at their ends close in, as far as the finest step allows."""
    for k in range(len(hist)):
        for b in range(BINS):  # what is left of less than one reading is nothing that must be kept in view
            if hist[k, b] < UNIT:
                hist[k, b] = 0
        if edges[k, 1] > st[FINEST]:
            width = edges[k, 1]
            age(hist[k], edges[k])
            if edges[k, 1] < width:
                st[LOG_WIDTHS] -= LN_2
        else:
            for b in range(BINS):
                hist[k, b] //= 2


@njit(cache=True, nogil=True, error_model="numpy")
def _fit(
    st: FloatArray,
    first: FloatArray,
    hist: Counts,
    edges: FloatArray,
    picks: IntArray,
    weights: FloatArray,
    window: FloatArray,
    at: FloatArray,
    bins: IntArray,
) -> None:
    """Widths from the first readings, then all windows of them into the histograms."""
    n = len(first)
    ordered = np.sort(first)
    finest = 0.0
    for i in range(1, n):
        step = ordered[i] - ordered[i - 1]
        if step > 0.0 and (finest == 0.0 or step < finest):
            finest = step
    least = 0.25 * finest if finest > 0.0 else 1e-3 * abs(ordered[0]) + 1e-9
    st[FINEST] = least * 12.0 / BINS
    n_lags = len(window)
    seen = np.empty((len(hist), n - n_lags + 1))
    for i in range(n_lags - 1, n):
        for j in range(n_lags):
            window[j] = first[i - j]
        _project(window, picks, weights, edges, at, bins)
        for k in range(len(hist)):
            seen[k, i - n_lags + 1] = at[k]
    st[LOG_WIDTHS] = 0.0
    for k in range(len(hist)):
        middle = np.median(seen[k])
        away = np.sort(np.abs(seen[k] - middle))
        keep = max(1, (9 * len(away)) // 10)
        spread = max(1.2533 * away[:keep].mean(), least)
        edges[k, 1] = 12.0 * spread / BINS
        # The most common values belong in the middle of a bin: on an edge, rounding would choose between two.
        edges[k, 0] = middle - 0.5 * (BINS + 1) * edges[k, 1]
        st[LOG_WIDTHS] += math.log(edges[k, 1])
    for i in range(seen.shape[1]):
        for k in range(len(hist)):
            at[k] = seen[k, i]
            b = (at[k] - edges[k, 0]) / edges[k, 1]
            bins[k] = int(b) if 0.0 <= b < BINS else -1
        _learn(st, hist, edges, at, bins)


@njit(cache=True, nogil=True, error_model="numpy")
def _observe(
    series: IntArray,
    value: FloatArray,
    learn: BoolArray,
    surprise: FloatArray,
    expected: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    stats: FloatArray,
    bands: FloatArray,
    rings: FloatArray,
    hists: Counts,
    edges: FloatArray,
    picks: IntArray,
    weights: FloatArray,
    n_lags: int,
) -> None:
    n_fit = rings.shape[1]
    window = np.empty(n_lags)
    at = np.empty(hists.shape[1])
    bins = np.empty(hists.shape[1], np.int32)
    for i in range(len(series)):
        if not np.isfinite(value[i]):
            continue
        x = min(max(value[i], -FURTHEST), FURTHEST)
        s = series[i]
        st = stats[s]
        head = int(st[HEAD])
        fitted = st[COUNT] >= n_fit
        if fitted:
            window_of(rings[s], head, x, window)
            _project(window, picks, weights, edges[s], at, bins)
            surprise[i] = _surprise(st, hists[s], edges[s], at, bins)
            expected[i], lower[i], upper[i] = band_of(bands[s])
        if not learn[i]:
            continue
        if fitted:
            _learn(st, hists[s], edges[s], at, bins)
        band_learn(bands[s], x)
        rings[s, head] = x
        st[HEAD] = head + 1 if head + 1 < n_fit else 0
        st[COUNT] += 1.0
        if st[COUNT] == n_fit:
            _fit(st, rings[s], hists[s], edges[s], picks, weights, window, at, bins)


def directions(seed: int, n: int, n_lags: int) -> tuple[IntArray, FloatArray]:
    """Lags and weights of ``n`` projections, each (n, `TERMS`): the newest reading alone, then random mixtures."""
    rng = np.random.default_rng(seed)
    picks = np.zeros((n, TERMS), np.int32)
    weights = np.zeros((n, TERMS))
    weights[0, 0] = 1.0
    for k in range(1, n):
        others = min(TERMS - 1, n_lags - 1)
        picks[k, 1 : 1 + others] = 1 + rng.choice(n_lags - 1, others, replace=False) if others else 0
        draw = rng.standard_normal(1 + others)
        weights[k, : 1 + others] = draw / np.sqrt((draw**2).sum())
    return picks, weights


class Loda(KernelModel):
    """Density of sparse random projections of the last readings."""

    kind: ClassVar[str] = "loda"
    version: ClassVar[int] = 1

    def __init__(self, projections: int, lags: int, seed: int, warmup: int) -> None:
        picks, weights = directions(seed, projections, lags)
        n_fit = max(2 * lags, 8, min(FIT, warmup // 2))
        state = SeriesState(
            stat=Column((STAT,), np.float64),
            band=Column((BAND_ROW,), np.float64),
            ring=Column((n_fit,), np.float64),
            hist=Column((projections, BINS), np.uint16),
            edge=Column((projections, 2), np.float64, 1.0),
        )
        super().__init__(max(warmup, n_fit), state, _observe, picks, weights, lags)
