"""Whether the values of a series still have the distribution that they had: PSI and KS, window against window.

The life of a series, in windows of event time (a whole number of seasons, so that a daily wave is not a drift):

1. *sampling*: the first window gives `SAMPLE` values spread evenly over it (reservoir sampling, Vitter 1985); their
   quantiles are the edges of the bins.
2. *reference*: the second window is counted into the bins.
3. *settling*: the third window is compared with it, which says how far two windows of this series lie apart by nature.
4. *comparing*: each window after that is counted, and compared when it ends.

An edge gives two bins: values above the edge before it, and values equal to it. So counters, flags and constants, whose
values lie on the edges, are binned as well as continuous ones.

A series drifts when both agree:

* PSI ≥ 0.25, the field's convention for "another population" (Siddiqi, Credit Risk Scorecards, 2006);
* the two-sample Kolmogorov-Smirnov distance over the bins is above its critical value at `KS_ALPHA`, and `NATURAL`
  times (after one calm window twice that) as large as the mean distance of this series' calm windows so far. The
  critical value holds for independent readings; those of a slow series say the same many times over.

Cutting the sample sizes by the autocorrelation instead, as is usual, was tried: a clean daily wave has a large one,
too, and a shift of three spreads was not seen in it.

After `RENEWED_AFTER` windows of drift in a row the series is taken to be like that now, and begins again at 1.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from tidewarden.frames import FloatArray, IntArray, TimeArray
from tidewarden.models.state import Column, SeriesState

SAMPLE = 24  # values that the edges are taken from
EDGES = 7  # octiles
BINS = 2 * EDGES + 1
PSI_DRIFT = 0.25
KS_ALPHA = 1e-4  # a series and window; with daily windows one false one in 10,000 series a day
LEAST = 100  # readings in a window that is compared; a shorter one is counted on
NATURAL = 3.0
YOUNG = 3.0  # added to it over the number of calm windows: a mean of one is not worth much
CALM_MEMORY = 10.0  # windows
RENEWED_AFTER = 3
SAMPLING, REFERENCE, SETTLING, COMPARING = range(4)
# Columns of a series' row of numbers (float64).
PHASE, END, N, DRIFTING, PSI, KS, CALM, CALM_KS, RANDOM = range(9)
ROW = 9
_KS_FACTOR = math.sqrt(-0.5 * math.log(KS_ALPHA / 2.0))  # asymptotic, both sides


def columns() -> dict[str, Column]:
    """What a series keeps: numbers, sampled values that later are edges, counts of reference and window (384 bytes)."""
    return {
        "row": Column((ROW,), np.float64),
        "sample": Column((SAMPLE,), np.float64),
        "reference": Column((BINS,), np.float32),
        "counts": Column((BINS,), np.float32),
    }


@njit(cache=True, nogil=True)
def compare(reference: FloatArray, counts: FloatArray) -> tuple[float, float]:
    """PSI and the KS distance of two histograms over the same bins, shape (n,); both need a count.

    Half a count is added to bins that only one of the two has filled, so that PSI stays finite.
    """
    n_reference, n_counts = 0.0, 0.0
    for j in range(len(counts)):
        n_reference += reference[j]
        n_counts += counts[j]
    psi, distance, below_reference, below_counts = 0.0, 0.0, 0.0, 0.0
    for j in range(len(counts)):
        if reference[j] == 0.0 and counts[j] == 0.0:
            continue
        p = max(reference[j], 0.5) / n_reference
        q = max(counts[j], 0.5) / n_counts
        psi += (q - p) * math.log(q / p)
        below_reference += reference[j] / n_reference
        below_counts += counts[j] / n_counts
        distance = max(distance, abs(below_reference - below_counts))
    return psi, distance


@njit(cache=True, nogil=True)
def _end_window(s: int, rows: FloatArray, samples: FloatArray, references: FloatArray, counts: FloatArray) -> None:
    """What the window of series ``s`` was for: edges, the reference, or a comparison."""
    if rows[s, PHASE] == SAMPLING:
        n = min(int(rows[s, N]), SAMPLE)
        ordered = np.sort(samples[s, :n])
        for j in range(EDGES):
            samples[s, j] = ordered[((j + 1) * n) // (EDGES + 1)]
        rows[s, PHASE] = REFERENCE
    elif rows[s, PHASE] == REFERENCE:
        for j in range(BINS):
            references[s, j] = counts[s, j]
        rows[s, PHASE] = SETTLING
        rows[s, CALM] = 0.0
        rows[s, CALM_KS] = 0.0
    else:
        _judge(rows[s], references[s], counts[s])
    for j in range(BINS):
        counts[s, j] = 0.0
    rows[s, N] = 0.0


@njit(cache=True, nogil=True)
def _judge(row: FloatArray, reference: FloatArray, counts: FloatArray) -> None:
    """Compare the window that has ended with the reference."""
    psi, distance = compare(reference, counts)
    n_reference = 0.0
    for j in range(BINS):
        n_reference += reference[j]
    row[PSI] = psi
    row[KS] = distance
    critical = _KS_FACTOR * math.sqrt((n_reference + row[N]) / (n_reference * row[N]))
    far = psi >= PSI_DRIFT and distance > max(critical, (NATURAL + YOUNG / max(row[CALM], 1.0)) * row[CALM_KS])
    if far and row[PHASE] == COMPARING:
        row[DRIFTING] += 1.0
        if row[DRIFTING] > RENEWED_AFTER:
            row[DRIFTING] = 0.0
            row[PHASE] = SAMPLING
        return
    row[PHASE] = COMPARING
    row[DRIFTING] = 0.0
    row[CALM] = min(row[CALM] + 1.0, CALM_MEMORY)
    row[CALM_KS] += (distance - row[CALM_KS]) / row[CALM]


@njit(cache=True, nogil=True)
def _sample(s: int, rows: FloatArray, samples: FloatArray, x: float) -> None:
    """Take the ``rows[s, N]``-th value of the window into the reservoir."""
    if rows[s, N] <= SAMPLE:
        samples[s, int(rows[s, N]) - 1] = x
        return
    # Knuth's 48-bit linear congruential generator, small enough to be exact in a float64's 53 bits.
    state = (np.uint64(rows[s, RANDOM]) * np.uint64(25214903917) + np.uint64(11)) & np.uint64((1 << 48) - 1)
    rows[s, RANDOM] = float(state)
    place = int((state >> np.uint64(16)) % np.uint64(rows[s, N]))
    if place < SAMPLE:
        samples[s, place] = x


@njit(cache=True, nogil=True)
def _observe(
    series: IntArray,
    timestamp: TimeArray,
    value: FloatArray,
    window_ms: int,
    rows: FloatArray,
    samples: FloatArray,
    references: FloatArray,
    counts: FloatArray,
) -> None:
    for i in range(len(series)):
        s = series[i]
        x = value[i]
        if math.isnan(x):
            continue
        at = float(timestamp[i])
        if rows[s, N] == 0.0 or (at >= rows[s, END] and rows[s, N] >= LEAST):
            if rows[s, N] > 0.0:
                _end_window(s, rows, samples, references, counts)
            rows[s, END] = float((timestamp[i] // window_ms + 1) * window_ms)
        elif at < rows[s, END] - window_ms:
            continue  # late: its window has been judged
        rows[s, N] += 1.0
        if rows[s, PHASE] == SAMPLING:
            _sample(s, rows, samples, x)
            continue
        rank = 0
        for j in range(EDGES):
            rank += int(x >= samples[s, j]) + int(x > samples[s, j])
        counts[s, rank] += np.float32(1.0)


class Distribution(SeriesState):
    """The reference and the running window of every series.

    Args:
        window_ms: length of a window, in milliseconds of event time.
    """

    def __init__(self, window_ms: int) -> None:
        super().__init__(**columns())
        self._window_ms = window_ms

    def observe(self, series: IntArray, timestamp: TimeArray, value: FloatArray) -> None:
        """Take readings in, arrays (n,) in arrival order; NaN and what is late for its window are passed over."""
        _observe(
            series, timestamp, value, self._window_ms,
            self["row"], self["sample"], self["reference"], self["counts"],
        )  # fmt: skip

    def compared(self) -> IntArray:
        """Series that have a reference to be compared with."""
        return np.flatnonzero(self["row"][: self.n_series, PHASE] == COMPARING).astype(np.int32)

    def drifting(self) -> IntArray:
        """Series that drifted in their last window, the one with the largest PSI first."""
        row = self["row"][: self.n_series]
        found = np.flatnonzero(row[:, DRIFTING] > 0.0)
        return found[np.argsort(-row[found, PSI], kind="stable")].astype(np.int32)

    def figures(self, series: int) -> tuple[float, float]:
        """PSI and KS distance of the last window of a series."""
        row = self["row"][series]
        return float(row[PSI]), float(row[KS])
