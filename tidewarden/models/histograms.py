"""Extendable histograms: fixed memory, any range.

A histogram has `BINS` counts and an edge row (start, bin width). Where a value falls outside, the width
doubles towards it and bins merge pairwise; when counts age and the outer half is empty, it closes in
again. Compiled into the kernels of `density`: after an edit, `make kernels`.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from tidewarden.frames import FloatArray

BINS = 32
NARROWEST_BIN = 1e-6  # in deviations of the warm-up: a constant must not close its histogram in for ever


@njit(cache=True, nogil=True)
def place(edge: FloatArray, v: float) -> tuple[int, int]:
    """Bin of ``v`` and how often the width must double to hold it."""
    lo = edge[0]
    width = edge[1]
    b = math.floor((v - lo) / width)
    if 0 <= b < BINS:
        return int(b), 0
    beyond = (lo - v) / width if b < 0 else (v - lo) / width - BINS
    return -1, 1 + int(math.log2(1.0 + max(beyond, 0.0) / BINS))


@njit(cache=True, nogil=True)
def extend(hist: FloatArray, edge: FloatArray, v: float) -> None:
    """Double the bin width towards ``v``, merging bins pairwise."""
    half = BINS // 2
    if v < edge[0]:
        for b in range(half - 1, -1, -1):
            hist[half + b] = hist[2 * b] + hist[2 * b + 1]
        # Walks down: slot half + b is free once pairs above b are merged.
        for b in range(half):
            hist[b] = 0.0
        edge[0] -= BINS * edge[1]
    else:
        for b in range(half):
            hist[b] = hist[2 * b] + hist[2 * b + 1]
        for b in range(half, BINS):
            hist[b] = 0.0
    edge[1] *= 2.0


@njit(cache=True, nogil=True)
def age(hist: FloatArray, edge: FloatArray) -> None:
    """Halve the counts, and the width where the outer half has become empty."""
    first = BINS
    last = -1
    for b in range(BINS):
        hist[b] *= 0.5
        if hist[b] > 0.3:
            first = min(first, b)
            last = b
    span = last - first + 1
    if last < 0 or span > BINS // 2 - 2 or edge[1] <= NARROWEST_BIN:
        return
    start = min(max((first + last + 1) // 2 - BINS // 4, 0), BINS // 2)
    kept = np.empty(BINS // 2, np.float32)
    for b in range(BINS // 2):
        kept[b] = hist[start + b]
    for b in range(BINS // 2):
        hist[2 * b] = 0.5 * kept[b]
        hist[2 * b + 1] = 0.5 * kept[b]
    edge[0] += start * edge[1]
    edge[1] *= 0.5
