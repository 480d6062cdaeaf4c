"""`random_cut_forest`: how much would trees of past readings change to take the last ones in?

Each tree holds `subsample` windows (the newest reading and those before it): one in `memory / subsample`
is let in, by chance, and the oldest forgotten, so a tree knows about the last `memory` readings, and a
forest has seen most of them. Surprise is the logarithm of the expected collusive displacement: of
how many others would be pushed down for each point that pushes. `attribution` says how much of it each lag has.

Where it fails: axes are cut by how long they are, and all lags are as long, so wide windows dilute the newest reading;
what is far outside stands apart at the first cut, and adds the logarithm of its distance. The
slowest and largest of the models here. An outlier is let in by few trees, and its like is less surprising for `memory`
readings; a lasting shift is half normal after some tenth of `memory`.

Source: Guha, Mishra, Roy, Schrijvers: Robust Random Cut Forest Based Anomaly Detection on Streams (ICML 2016). Other
than there, nothing is let in to be judged: the expectation over its cut is summed up, which is exact and steady.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray, TimeArray
from tidewarden.models.band import BAND_ROW, band_learn, band_of, beyond
from tidewarden.models.contract import Judgement
from tidewarden.models.random_cut_tree import (
    HEAD,
    OLDEST,
    SIZE,
    Links,
    Singles,
    displacement,
    forget,
    leaf_words,
    let_in,
    node_words,
)
from tidewarden.models.state import ArrayModel, Column, SeriesState
from tidewarden.models.windows import begin, by_series, chance, window_of

FURTHEST = 1e30  # float32 ends at 3e38, and differences must not overflow
FIRST_MOST = 64  # readings from which there is an opinion, at most
LEAST = 0.05  # displacement added before the logarithm: what a constant displaces is 0

COUNT, AHEAD, CENTER = range(3)
STAT = 4


@njit(cache=True, nogil=True)
def _observe(
    order: TimeArray,
    series: IntArray,
    value: FloatArray,
    learn: BoolArray,
    surprise: FloatArray,
    expected: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    stats: FloatArray,
    bands: FloatArray,
    rings: Singles,
    orders: Links,
    heads: Links,
    nodes: Links,
    boxes: Singles,
    leaves: Links,
    points: Singles,
    first: int,
    memory: int,
    seed: int,
) -> None:
    n_trees, subsample = orders.shape[1:]
    n_lags = rings.shape[1]
    window = np.empty(n_lags, np.float32)
    scratch = np.empty((5, n_trees))
    unexplained = np.zeros(0)
    state = np.zeros(1, np.uint64)
    for i in order:
        x = value[i]
        if not np.isfinite(x):
            continue
        s = series[i]
        st = stats[s]
        count = st[COUNT]
        ahead = int(st[AHEAD])
        # Distances are what counts, so a place near all values is taken off before they are rounded to 32 bits.
        center = st[CENTER] if count > 0.0 else x
        window_of(rings[s], ahead, np.float32(min(max(x - center, -FURTHEST), FURTHEST)), window)
        if count >= first:
            moved = displacement(heads, nodes, boxes, leaves, points, s, window, scratch, unexplained)
            surprise[i] = math.log(moved + LEAST) + beyond(bands[s], x)
            expected[i], lower[i], upper[i] = band_of(bands[s])
        if not learn[i]:
            continue
        band_learn(bands[s], x)
        st[CENTER] = center
        rings[s, ahead] = window[0]
        st[AHEAD] = ahead + 1 if ahead + 1 < n_lags else 0
        st[COUNT] = count + 1.0
        if count + 1.0 < n_lags:
            continue
        begin(state, seed, int(count))
        share = subsample / min(max(count, 1.0), memory)
        for k in range(n_trees):
            if chance(state) >= share:
                continue
            head = heads[s, k]
            oldest = int(head[OLDEST])
            if head[SIZE] == subsample:
                forget(head, nodes[s, k], boxes[s, k], leaves[s, k], points[s, k], int(orders[s, k, oldest]))
            orders[s, k, oldest] = let_in(head, nodes[s, k], boxes[s, k], leaves[s, k], points[s, k], window, state)
            head[OLDEST] = oldest + 1 if oldest + 1 < subsample else 0


class RandomCutForest(ArrayModel):
    """Random cut trees over the last readings, which let windows in and forget them one at a time."""

    kind: ClassVar[str] = "random_cut_forest"
    version: ClassVar[int] = 1

    def __init__(self, trees: int, subsample: int, lags: int, memory: int, seed: int, warmup: int) -> None:
        self._memory = max(memory, subsample)
        self._seed = seed
        self._first = max(2 * lags, min(FIRST_MOST, warmup // 2))
        state = SeriesState(
            stat=Column((STAT,), np.float64),
            band=Column((BAND_ROW,), np.float64),
            ring=Column((lags,), np.float32),
            head=Column((trees, HEAD), np.int16),
            order=Column((trees, subsample), np.int16),
            node=Column((trees, subsample, node_words(lags)), np.float32),
            leaf=Column((trees, subsample, leaf_words(lags)), np.float32),
        )
        super().__init__(max(warmup, self._first), state)

    def observe(
        self,
        series: IntArray,
        timestamp: TimeArray,  # noqa: ARG002 - windows count readings, not time
        value: FloatArray,
        learn: BoolArray,
        out: Judgement,
    ) -> None:
        """Score each reading in order, then learn from it where ``learn`` is set."""
        state = self._state
        _observe(
            by_series(series), series, value, learn, out.surprise, out.expected, out.lower, out.upper,
            state["stat"], state["band"], state["ring"], state["order"], *self._trees(),
            self._first, self._memory, self._seed,
        )  # fmt: skip

    def attribution(self, series: int, value: float) -> FloatArray:
        """What each lag has to do with it if ``value`` came next: (lags,), the newest first, not below 0.

        They add up to the expected displacement whose logarithm is the surprise, before what is far outside is
        added. Nothing is learned.
        """
        state = self._state
        stat, ring = state["stat"][series], state["ring"][series]
        window = np.empty(len(ring), np.float32)
        newest = np.float32(min(max(value - stat[CENTER], -FURTHEST), FURTHEST))
        window_of(ring, int(stat[AHEAD]), newest, window)
        shares = np.zeros(len(ring))
        scratch = np.empty((5, self._state["head"].shape[1]))
        displacement(*self._trees(), series, window, scratch, shares)
        return shares

    def _trees(self) -> tuple[Links, Links, Singles, Links, Singles]:
        """Heads, then nodes and leaves, each as its int16 and its float32."""
        head, node, leaf = (self._state[name] for name in ("head", "node", "leaf"))
        return head, node.view(np.int16), node, leaf.view(np.int16), leaf
