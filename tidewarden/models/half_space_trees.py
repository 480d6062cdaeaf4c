"""`half_space_trees`: how full are the random boxes into which the last readings fall?

Trees halve the space of windows (the newest reading and those before it, in running deviations) by cuts that
are drawn beforehand, without looking at data: so all series share them and a series has counts only.
After each `period` readings every leaf is told its density: its count, or that of the smallest box above it
that still holds a tenth of all, times two to the power of its depth. Then counts are halved, so what
happened a period ago weighs half. Surprise is the mean of -log density over the trees.

Where it fails: a box is coarse, so small deviations go unseen; windows with many lags dilute each of them, so the
newest are cut more often. An outlier adds one to a leaf's count, too little to make it normal, and is halved
away; a lasting shift is normal after one or two periods.

Source: Tan, Ting, Liu: Fast Anomaly Detection for Streaming Data (IJCAI 2011). Other than there, old periods
fade and are not dropped, densities are averaged as logarithms, and cuts are drawn at random within a box.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray
from tidewarden.models.band import BAND_ROW, MEDIAN, band_deviation, band_learn, band_of, band_step, beyond
from tidewarden.models.state import Column, KernelModel, SeriesState
from tidewarden.models.windows import lag_weights, window_of

SCALE_GAIN = 0.002  # of the deviations that windows are measured in: slower than the band, or a season would vanish
SQUASH = 4.0  # deviations at half the way to the edge of space
GRID = 32_000.0  # steps on each side of the middle
REACH = 0.8  # cuts lie within this share of space, that is 16 deviations
PADDING = 0.15  # share of a box on each side that no cut comes near
FULL = 0.1  # share of all readings below which a box is too small to be divided further
LEAST = 1e-3  # density of what was never seen, in shares of an even one
NATS = 4096.0  # steps of a leaf's -log density, stored in 16 bits: 16 nats
LAG_BITS = 4  # of a cut, for its lag: 16 lags at most
LAG_MASK = 2**LAG_BITS - 1
YOUNG = 16  # readings before the scale is good enough to count boxes, and a window is full
FIRST_MOST = 64  # readings of the first period, at most

COUNT, HEAD, WAITED, PERIODS = range(4)
STAT = 4


@njit(cache=True, nogil=True)
def _weigh(leaves: npt.NDArray[np.uint16], mass: FloatArray) -> None:
    """Tell each leaf of one tree its -log density by the counts, then halve them; ``mass`` is scratch, (2n - 1,)."""
    n = len(leaves)
    for k in range(n):
        mass[n - 1 + k] = leaves[k, 1]
        leaves[k, 1] //= 2
    for at in range(n - 2, -1, -1):
        mass[at] = mass[2 * at + 1] + mass[2 * at + 2]
    whole = mass[0]
    limit = FULL * whole
    # Downwards, level by level: what a box has decided, kept as -1 - value, holds for all boxes in it.
    first = 0
    size = 1.0
    while first < 2 * n - 1:
        for at in range(first, 2 * first + 1):
            if at > 0 and mass[(at - 1) // 2] < 0.0:
                mass[at] = mass[(at - 1) // 2]
            elif mass[at] < limit or first == n - 1:
                density = max(mass[at] * size / whole, LEAST)
                mass[at] = -1.0 - NATS * math.log(n / density)
        first = 2 * first + 1
        size *= 2.0
    for k in range(n):
        leaves[k, 0] = np.uint16(-1.0 - mass[n - 1 + k])


@njit(cache=True, nogil=True)
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
    scales: FloatArray,
    rings: FloatArray,
    leaves: npt.NDArray[np.uint16],
    cuts: IntArray,
    depth: int,
    first_period: int,
    period: int,
) -> None:
    n_trees, n_leaves = leaves.shape[1:3]
    n_lags = rings.shape[1]
    at = np.empty(n_trees, np.uint32)
    mass = np.empty(2 * n_leaves - 1)
    window = np.empty(n_lags)
    grid = np.empty(n_lags, np.int32)
    for i in range(len(series)):
        x = value[i]
        if not np.isfinite(x):
            continue
        s = series[i]
        st = stats[s]
        count = st[COUNT]
        head = int(st[HEAD])
        if count >= YOUNG:
            window_of(rings[s], head, x, window)
            middle = scales[s, MEDIAN]
            scale = 1.0 / band_deviation(scales[s])
            for j in range(n_lags):
                z = min(max((window[j] - middle) * scale, -1e9), 1e9)
                grid[j] = int(GRID * z / (SQUASH + abs(z)))
            # All trees a level, and then all leaves: their memory comes in at once and not one after the other.
            at[:] = 1
            for _ in range(depth):
                for k in range(n_trees):
                    cut = cuts[np.uint32(k * n_leaves) + at[k]]
                    at[k] = 2 * at[k] + (1 if grid[np.uint32(cut & LAG_MASK)] > (cut >> LAG_BITS) else 0)
            told = 0
            mine = leaves[s]
            for k in range(n_trees):
                at[k] -= np.uint32(n_leaves)
                told += mine[k, at[k], 0]
            if learn[i]:
                for k in range(n_trees):
                    mine[k, at[k], 1] += np.uint16(1)
            if st[PERIODS] > 0.0:
                surprise[i] = told / (NATS * n_trees) - math.log(n_leaves) + beyond(scales[s], x)
                expected[i], lower[i], upper[i] = band_of(bands[s])
            if learn[i]:
                st[WAITED] += 1.0
                # The first periods are short and double, so that there is an opinion soon.
                if st[WAITED] >= min(first_period * 2.0 ** st[PERIODS], period):
                    for k in range(n_trees):
                        _weigh(leaves[s, k], mass)
                    st[WAITED] = 0.0
                    st[PERIODS] = min(st[PERIODS] + 1.0, 60.0)
        if learn[i]:
            band_learn(bands[s], x)
            band_step(scales[s], x, SCALE_GAIN)
            rings[s, head] = x
            st[HEAD] = head + 1 if head + 1 < n_lags else 0
            st[COUNT] = count + 1.0


def random_cuts(seed: int, n_trees: int, depth: int, n_lags: int) -> IntArray:
    """Complete trees one after the other, (n_trees * 2**depth,) int32: a cut's place, then `LAG_BITS` bits of its lag.

    A tree's root is its number 1, and below number n are 2n and 2n + 1; 0 is not used.
    """
    rng = np.random.default_rng(seed)
    weights = lag_weights(n_lags)
    cuts = np.zeros((n_trees, 2**depth), np.int32)
    for k in range(n_trees):
        boxes = {1: np.tile([-REACH, REACH], (n_lags, 1))}
        for at in range(1, 2**depth):
            box = boxes.pop(at)
            lag = int(rng.choice(n_lags, p=weights))
            low, high = box[lag]
            place = low + (PADDING + (1 - 2 * PADDING) * rng.random()) * (high - low)
            cuts[k, at] = (int(GRID * place) << LAG_BITS) | lag
            for side in range(2):
                boxes[2 * at + side] = box.copy()
                boxes[2 * at + side][lag, 1 - side] = place
    return cuts.ravel()


class HalfSpaceTrees(KernelModel):
    """Half-space trees over the last readings."""

    kind: ClassVar[str] = "half_space_trees"
    version: ClassVar[int] = 1

    def __init__(self, trees: int, depth: int, lags: int, period: int, seed: int, warmup: int) -> None:
        cuts = random_cuts(seed, trees, depth, lags)
        first_period = max(8, min(period, warmup // 2, FIRST_MOST))
        state = SeriesState(
            stat=Column((STAT,), np.float64),
            band=Column((BAND_ROW,), np.float64),
            scale=Column((BAND_ROW,), np.float64),
            ring=Column((lags,), np.float64),
            # Of each leaf its -log density in steps of 1 / NATS, and the readings of this period, side by side.
            leaf=Column((trees, 2**depth, 2), np.uint16),
        )
        super().__init__(max(warmup, YOUNG + first_period), state, _observe, cuts, depth, first_period, period)
