"""`isolation_forest`: how few random cuts set the last readings apart from those before?

A tree cuts the space of windows (the newest reading and those before it) at random until each of the windows
it was grown from stands alone; what is unusual stands alone early. Trees are grown from random samples of the last
`window` readings, and every `refit / trees` readings the oldest of them is grown anew, so work is
even and no reading waits for a forest. Surprise is the mean depth at which a window ends, in nats, negative.

Where it fails: cuts run along the axes, so a window that is odd only as a whole goes unseen; far and very far
end in the same leaf, so what is far outside adds the logarithm of its distance. Outliers in the
past are as rare in the samples as in life. A lasting shift is normal once it is some 5 % of the
window and the trees have been grown anew, so after at most `refit` readings.

Source: Liu, Ting, Zhou: Isolation Forest (ICDM 2008). The newest lags are cut more often than older ones.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray, TimeArray
from tidewarden.models.band import BAND_ROW, band_learn, band_of, beyond
from tidewarden.models.contract import Judgement
from tidewarden.models.state import ArrayModel, Column, SeriesState
from tidewarden.models.windows import begin, by_series, chance, lag_weights, window_of

LAG_BITS = 3  # lowest bits of a cut's float32, which say its lag: the place keeps 20 bits
LAG_MASK = np.uint32(2**LAG_BITS - 1)
PLACE_MASK = np.uint32(2**32 - 2**LAG_BITS)
FURTHEST = 1e30  # float32 ends at 3e38, and differences must not overflow
DEPTHS = 2048.0  # steps of a leaf's depth, stored in 16 bits: 32 levels
BLOCK = 4  # levels of a tree that lie together
WIDE = 2**BLOCK
FIRST_MOST = 64  # readings from which the first trees are grown, at most
LN_2 = math.log(2.0)

COUNT, HEAD, CENTER, OWED, GROWN = range(5)
STAT = 6

Words64 = npt.NDArray[np.uint64]
Words = npt.NDArray[np.uint32]
Indices = npt.NDArray[np.uint32]
Halves = npt.NDArray[np.uint16]
Singles = npt.NDArray[np.float32]


@njit(cache=True, nogil=True)
def further_depth(n: int) -> float:
    """Mean depth that a tree would still have below a leaf of ``n`` windows: of an unsuccessful search."""
    if n <= 1:
        return 0.0
    return 2.0 * (math.log(n - 1.0) + 0.5772156649015329) - 2.0 * (n - 1.0) / n if n > 2 else 1.0


@njit(cache=True, nogil=True)
def place_of(box: int, level: int, depth: int) -> int:
    """Where in a tree of ``depth`` levels the cut of a box lies; the root is box 1, below box a are 2a and 2a + 1.

    Four levels lie together (the topmost may be fewer), 15 cuts in a cache line of 16: on its way down a window meets a
    line each four levels, not each level. To fetch them is most of the work where there are many series.
    """
    start = 0
    n_blocks = 1
    size = top_levels(depth)
    while level >= size:
        start += n_blocks
        n_blocks <<= size
        level -= size
        size = BLOCK
    across = box & ((n_blocks << level) - 1)
    return int(WIDE * (start + (across >> level)) + (1 << level) + (across & ((1 << level) - 1)))


@njit(cache=True, nogil=True)
def top_levels(depth: int) -> int:
    """Levels in the topmost block, so that all below are full."""
    return (depth - 1) % BLOCK + 1


def words_of(depth: int) -> int:
    """Words that a tree's cuts take: with its last cut the last block ends."""
    return int(place_of(2**depth - 1, depth - 1, depth)) + 1


@njit(cache=True, nogil=True)
def find_leaves(
    window: Singles, cuts: Singles, words: Words, depth: int, blocks: Indices, inside: Indices, at: Indices
) -> None:
    """In which leaf of each tree a window ends, into ``at``; ``blocks`` and ``inside`` are scratch, all (n_trees,).

    All trees a level: their memory comes in at once and not one after the other.
    """
    n_trees = len(at)
    n_words = len(cuts) // n_trees
    at[:] = 0
    start = 0
    n_blocks = 1
    level = 0
    size = top_levels(depth)
    while level < depth:
        for k in range(n_trees):
            blocks[k] = k * n_words + WIDE * (start + at[k])
            inside[k] = 1
        for _ in range(size):
            for k in range(n_trees):
                cut = blocks[k] + inside[k]
                inside[k] = 2 * inside[k] + (1 if window[words[cut] & LAG_MASK] > cuts[cut] else 0)
        for k in range(n_trees):
            at[k] = (at[k] << size) + inside[k] - (1 << size)
        start += n_blocks
        n_blocks <<= size
        level += size
        size = BLOCK


@njit(cache=True, nogil=True)
def _sample(past: Singles, head: int, n: int, out: Singles, picks: IntArray, state: Words64) -> int:
    """Windows of the last ``n`` readings in a ring, without replacement, into ``out``, (n_lags, most); how many."""
    n_lags, most = out.shape
    n_windows = n - n_lags + 1
    taken = min(most, n_windows)
    size = len(past)
    for k in range(n_windows):
        picks[k] = k
    for k in range(taken):
        other = k + int(chance(state) * (n_windows - k))
        at = head - 1 - picks[other]
        picks[other] = picks[k]
        for j in range(n_lags):
            here = at - j
            out[j, k] = past[here if here >= 0 else here + size]
    return int(taken)


@njit(cache=True, nogil=True)
def grow(
    cuts: Singles,
    words: Words,
    leaves: Halves,
    depth: int,
    sample: Singles,
    n: int,
    shares: FloatArray,
    state: Words64,
) -> None:
    """Grow one complete tree from ``n`` windows, the columns of ``sample``, (n_lags, at least n).

    ``cuts`` and ``words`` are one memory, (n_leaves,): the root is number 1, below number a are 2a and 2a + 1. Where a
    window stands alone, or like windows together, before the last level, all leaves below say that depth.
    ``shares``, (n_lags,), says up to which chance each lag is cut, rising to 1.
    """
    n_leaves = len(leaves)
    n_lags = len(sample)
    rows = np.arange(n).astype(np.int32)
    right = np.empty(n, np.int32)
    begins = np.full(2 * n_leaves, -1, np.int32)
    ends = np.zeros(2 * n_leaves, np.int32)
    begins[1] = 0
    ends[1] = n
    level = 0
    for a in range(1, 2 * n_leaves):
        if a == 2 << level:
            level += 1
        lo = begins[a]
        hi = ends[a]
        if lo < 0:
            continue
        lag = 0
        least = np.float32(0.0)
        most = np.float32(0.0)
        if hi - lo > 1 and a < n_leaves:
            draw = chance(state)
            while shares[lag] <= draw and lag < n_lags - 1:
                lag += 1
            for _ in range(n_lags):  # the next lag that is not the same everywhere
                column = sample[lag]
                least = column[rows[lo]]
                most = least
                for k in range(lo + 1, hi):
                    least = min(least, column[rows[k]])
                    most = max(most, column[rows[k]])
                if most > least:
                    break
                lag = lag + 1 if lag + 1 < n_lags else 0
        if most <= least:
            said = np.uint16(DEPTHS * (level + further_depth(hi - lo)))
            span = n_leaves >> level
            first = a * span - n_leaves
            for k in range(first, first + span):
                leaves[k] = said
            continue
        here = place_of(a, level, depth)
        cuts[here] = np.float32(least + chance(state) * (most - least))
        words[here] = (words[here] & PLACE_MASK) | np.uint32(lag)
        place = cuts[here]
        column = sample[lag]
        left = lo
        n_right = 0
        for k in range(lo, hi):  # without a branch that nobody could foresee
            row = rows[k]
            is_right = 1 if column[row] > place else 0
            right[n_right] = row
            rows[left] = row
            n_right += is_right
            left += 1 - is_right
        for k in range(n_right):
            rows[left + k] = right[k]
        begins[2 * a] = lo
        ends[2 * a] = left
        begins[2 * a + 1] = left
        ends[2 * a + 1] = hi


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
    pasts: Singles,
    cuts: Singles,
    words: Words,
    leaves: Halves,
    shares: FloatArray,
    subsample: int,
    depth: int,
    first: int,
    refit: int,
    seed: int,
) -> None:
    n_trees = leaves.shape[1]
    n_words = cuts.shape[1] // n_trees
    size = pasts.shape[1]
    n_lags = len(shares)
    at = np.empty(n_trees, np.uint32)
    blocks = np.empty(n_trees, np.uint32)
    inside = np.empty(n_trees, np.uint32)
    window = np.empty(n_lags, np.float32)
    picks = np.empty(size, np.int32)
    sample = np.empty((n_lags, subsample), np.float32)
    state = np.zeros(1, np.uint64)
    for i in order:
        x = value[i]
        if not np.isfinite(x):
            continue
        s = series[i]
        st = stats[s]
        head = int(st[HEAD])
        # Distances are what counts, so a place near all values is taken off before they are rounded to 32 bits.
        near = np.float32(min(max(x - st[CENTER], -FURTHEST), FURTHEST))
        if st[GROWN] > 0.0:
            window_of(pasts[s], head, near, window)
            find_leaves(window, cuts[s], words[s], depth, blocks, inside, at)
            told = 0
            ends = leaves[s]
            for k in range(n_trees):
                told += ends[k, at[k]]
            surprise[i] = -LN_2 * told / (DEPTHS * n_trees) + beyond(bands[s], x)
            expected[i], lower[i], upper[i] = band_of(bands[s])
        if not learn[i]:
            continue
        band_learn(bands[s], x)
        if st[COUNT] == 0.0:
            st[CENTER] = x
            near = np.float32(0.0)
        pasts[s, head] = near
        head = head + 1 if head + 1 < size else 0
        st[HEAD] = head
        st[COUNT] += 1.0
        if st[COUNT] < first:
            continue
        n = int(min(st[COUNT], size))
        # All at first; then in turn, so often that each is grown anew once in ``refit`` readings, sooner while young.
        st[OWED] += n_trees if st[GROWN] == 0.0 else n_trees / min(st[COUNT], refit)
        while st[OWED] >= 1.0:
            st[OWED] -= 1.0
            k = int(st[GROWN]) % n_trees
            begin(state, seed, int(st[GROWN]))
            taken = _sample(pasts[s], head, n, sample, picks, state)
            span = slice(k * n_words, (k + 1) * n_words)
            grow(cuts[s, span], words[s, span], leaves[s, k], depth, sample, taken, shares, state)
            st[GROWN] += 1.0


class IsolationForest(ArrayModel):
    """Isolation forest over the last readings, grown anew tree by tree."""

    kind: ClassVar[str] = "isolation_forest"
    version: ClassVar[int] = 1

    def __init__(self, trees: int, subsample: int, lags: int, window: int, refit: int, seed: int, warmup: int) -> None:
        self._subsample = min(subsample, window)
        self._depth = max(1, math.ceil(math.log2(self._subsample)))
        self._first = max(2 * lags, min(FIRST_MOST, warmup // 2))
        self._refit = refit
        self._seed = seed
        self._shares = np.cumsum(lag_weights(lags))
        state = SeriesState(
            stat=Column((STAT,), np.float64),
            band=Column((BAND_ROW,), np.float64),
            past=Column((window + lags - 1,), np.float32),
            cut=Column((trees * words_of(self._depth),), np.uint32),
            leaf=Column((trees, 2**self._depth), np.uint16),
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
            state["stat"], state["band"], state["past"], state["cut"].view(np.float32), state["cut"], state["leaf"],
            self._shares, self._subsample, self._depth, self._first, self._refit, self._seed,
        )  # fmt: skip
