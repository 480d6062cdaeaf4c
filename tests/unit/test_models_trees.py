"""The models of random boxes, trees and directions against slow versions, and what each promises of chance.

The slow versions build boxes and trees as nested tuples from the whole past of a series. Where a model rounds to
32 bits or to a grid, so do they, or a value on a cut would fall the other way.
"""

from __future__ import annotations

import math
from collections import Counter
from statistics import median

import numpy as np
import pytest

from tidewarden.models import (
    band,
    half_space_trees,
    isolation_forest,
    windows,
)
from unit.slow_models import NAN, NOTHING, Said, agree, bounded, least, readings

SEEDS = range(2)


class SlowBand:
    """A median that steps and a mean deviation, from a list of all readings."""

    def __init__(self, gain: float = band.GAIN) -> None:
        self.gain = gain
        self.past: list[float] = []
        self.middle = self.mean = 0.0

    @property
    def deviation(self) -> float:
        return max(self.mean, least(self.past, 0.25, self.middle))

    def said(self, surprise: float) -> Said:
        if len(self.past) < band.YOUNG:
            return Said(surprise)
        reach = band.HOLDS_99 * self.deviation
        return Said(surprise, self.middle, self.middle - reach, self.middle + reach)

    def beyond(self, x: float) -> float:
        return max(0.0, math.log(max(abs(x - self.middle) / self.deviation / band.FAR, 1e-300)))

    def learn(self, x: float) -> None:
        deviation, gap, n = self.deviation, x - self.middle, len(self.past) + 1
        self.past.append(x)
        if n == band.YOUNG:
            self.middle = median(self.past)
            self.mean = 1.25 * sum(sorted(abs(y - self.middle) for y in self.past)[:-1]) / (n - 1)
        elif n > band.YOUNG:
            share = max(self.gain, 1 / n)
            self.middle += bounded(gap, 1.5 * share * deviation)
            self.mean = deviation + share * (min(abs(gap), band.BOUND * deviation) - deviation)


class SlowHalfSpace:
    """Boxes as paths from the root, with the readings in each of them counted."""

    def __init__(self, trees: int, depth: int, lags: int, period: int, first: int, seed: int) -> None:
        self.cuts = half_space_trees.random_cuts(seed, trees, depth, lags).reshape(trees, 2**depth).tolist()
        self.depth, self.lags, self.period, self.first = depth, lags, period, first
        self.counts = [Counter[int]() for _ in range(trees)]  # of leaves
        self.told: list[dict[int, float]] | None = None
        self.waited = self.periods = 0
        self.band, self.scale = SlowBand(), SlowBand(half_space_trees.SCALE_GAIN)

    def leaf(self, tree: list[int], grid: list[int]) -> int:
        box = 1
        for _ in range(self.depth):
            lag, place = tree[box] & half_space_trees.LAG_MASK, tree[box] >> half_space_trees.LAG_BITS
            box = 2 * box + (grid[lag] > place)
        return box

    def tell(self, counts: Counter[int]) -> dict[int, float]:
        """-log density of each leaf: of the smallest box around it that is not too small."""
        n_leaves, whole = 2**self.depth, sum(counts.values())
        told = {}
        for leaf in range(n_leaves, 2 * n_leaves):
            for level in range(self.depth + 1):
                box = leaf >> (self.depth - level)
                inside = sum(n for other, n in counts.items() if other >> (self.depth - level) == box)
                if inside < half_space_trees.FULL * whole:
                    break
            density = max(inside * 2**level / whole, half_space_trees.LEAST)
            told[leaf] = int(half_space_trees.NATS * math.log(n_leaves / density))
        return told

    def see(self, time_ms: int, x: float, learn: bool) -> Said:
        said, past = NOTHING, self.band.past
        if len(past) >= half_space_trees.YOUNG:
            window = [x, *past[: -self.lags : -1]]
            scale = 1.0 / self.scale.deviation
            scaled = [min(max((w - self.scale.middle) * scale, -1e9), 1e9) for w in window]
            grid = [int(half_space_trees.GRID * z / (half_space_trees.SQUASH + abs(z))) for z in scaled]
            leaves = [self.leaf(tree, grid) for tree in self.cuts]
            if self.told is not None:
                mean = sum(told[leaf] for told, leaf in zip(self.told, leaves, strict=True)) / len(leaves)
                nats = mean / half_space_trees.NATS - self.depth * math.log(2)
                said = self.band.said(nats + self.scale.beyond(x))
            if learn:
                for counts, leaf in zip(self.counts, leaves, strict=True):
                    counts[leaf] += 1
                self.waited += 1
                if self.waited >= min(self.first * 2**self.periods, self.period):
                    self.told = [self.tell(counts) for counts in self.counts]
                    self.counts = [Counter({leaf: n // 2 for leaf, n in counts.items()}) for counts in self.counts]
                    self.waited, self.periods = 0, self.periods + 1
        if learn:
            self.band.learn(x)
            self.scale.learn(x)
        return said


class Chance:
    """splitmix64 on Python's integers."""

    MOST = 2**64

    def __init__(self, seed: int, turn: int) -> None:
        self.at = seed
        self.draw()
        self.at ^= turn * 0xBF58476D1CE4E5B9 % self.MOST
        self.draw()

    def draw(self) -> float:
        self.at = (self.at + 0x9E3779B97F4A7C15) % self.MOST
        z = self.at
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % self.MOST
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % self.MOST
        return ((z ^ (z >> 31)) >> 11) / 2**53


def cut_place(place: float, lag: int) -> np.float32:
    """A cut as 32 bits, of which the lowest say the lag."""
    word = np.array([place], np.float32).view(np.uint32)
    return ((word & isolation_forest.PLACE_MASK) | np.uint32(lag)).view(np.float32)[0]


class SlowIsolation:
    """Trees as nested tuples, grown from lists of windows."""

    def __init__(self, trees: int, subsample: int, lags: int, window: int, refit: int, first: int, seed: int) -> None:
        self.trees: list[object] = [None] * trees
        self.subsample, self.lags, self.window, self.refit, self.first = subsample, lags, window, refit, first
        self.depth, self.seed = math.ceil(math.log2(subsample)), seed
        self.shares = np.cumsum(windows.lag_weights(lags)).tolist()
        self.grown, self.owed = 0, 0.0
        self.near: list[np.float32] = []
        self.band = SlowBand()

    def grow(self, sample: list[list[np.float32]], chance: Chance) -> object:
        """Level by level, as chance is drawn in this order."""
        root: list[object] = [sample]
        boxes = [root]
        for level in range(self.depth + 1):
            below = []
            for box in boxes:
                inside: list[list[np.float32]] = box[0]  # type: ignore[assignment]
                split = self.split(inside, chance) if len(inside) > 1 and level < self.depth else None
                if split is None:
                    deeper = level + isolation_forest.further_depth(len(inside))
                    box[:] = [int(isolation_forest.DEPTHS * deeper)]
                else:
                    lag, place = split
                    left = [[w for w in inside if w[lag] <= place]]
                    right = [[w for w in inside if w[lag] > place]]
                    box[:] = [lag, place, left, right]
                    below += [left, right]
            boxes = below
        return root

    def split(self, inside: list[list[np.float32]], chance: Chance) -> tuple[int, np.float32] | None:
        draw = chance.draw()
        lag = next((j for j, share in enumerate(self.shares) if draw < share), self.lags - 1)
        for turn in range(self.lags):
            here = [w[(lag + turn) % self.lags] for w in inside]
            if max(here) > min(here):
                lag = (lag + turn) % self.lags
                return lag, cut_place(float(min(here)) + chance.draw() * float(max(here) - min(here)), lag)
        return None

    def ends(self, tree: object, window: list[np.float32]) -> int:
        while len(tree) > 1:  # type: ignore[arg-type]
            lag, place, left, right = tree  # type: ignore[misc]
            tree = right if window[lag] > place else left
        return tree[0]  # type: ignore[index, no-any-return]

    def see(self, time_ms: int, x: float, learn: bool) -> Said:
        said, past = NOTHING, self.band.past
        near = np.float32(x - past[0] if past else 0.0)
        if self.grown:
            window = [near, *self.near[: -self.lags : -1]]
            deep = sum(self.ends(tree, window) for tree in self.trees)
            nats = -math.log(2) * deep / (isolation_forest.DEPTHS * len(self.trees))
            said = self.band.said(nats + self.band.beyond(x))
        if learn:
            self.band.learn(x)
            self.near.append(near)
            if len(past) >= self.first:
                n = len(self.trees)
                self.owed += n / min(len(past), self.refit) if self.grown else n
                while self.owed >= 1:
                    self.owed -= 1
                    self.renew()
        return said

    def renew(self) -> None:
        chance = Chance(self.seed, self.grown)
        known = self.near[-(self.window + self.lags - 1) :]
        ages = list(range(len(known) - self.lags + 1))
        sample = []
        for k in range(min(self.subsample, len(ages))):
            other = k + int(chance.draw() * (len(ages) - k))
            newest = len(known) - 1 - ages[other]
            ages[other] = ages[k]
            sample.append([known[newest - j] for j in range(self.lags)])
        self.trees[self.grown % len(self.trees)] = self.grow(sample, chance)
        self.grown += 1


@pytest.mark.parametrize("seed", SEEDS)
def test_the_band_is_a_median_that_steps(seed: int) -> None:
    """Band and distance equal their slow version on every shape, and the band of noise holds 99 % of it."""
    data = readings(seed)
    for i in range(8):
        row, slow = np.zeros(band.BAND_ROW), SlowBand()
        for x in data.value[(data.series == i) & np.isfinite(data.value)].tolist():
            np.testing.assert_allclose(band.band_of(row), slow.said(NAN)[1:], rtol=1e-9, atol=1e-9)
            if len(slow.past) >= band.YOUNG:
                assert band.beyond(row, x) == pytest.approx(slow.beyond(x), abs=1e-9)
            band.band_learn(row, x)
            slow.learn(x)
    noise = np.random.default_rng(seed).normal(100, 5, 4000)
    row = np.zeros(band.BAND_ROW)
    inside = []
    for x in noise.tolist():
        _, lower, upper = band.band_of(row)
        inside.append(lower <= x <= upper)
        band.band_learn(row, x)
    assert np.mean(inside[1000:]) == pytest.approx(0.99, abs=0.008)


def test_a_wild_beginning_does_not_open_the_band() -> None:
    """One wild reading among the first is not taken for how the series is."""
    row = np.zeros(band.BAND_ROW)
    for x in [1e6, *np.random.default_rng(0).normal(0, 1, 60).tolist()]:
        band.band_learn(row, x)
    _, lower, upper = band.band_of(row)
    assert -6 < lower < -1 < 1 < upper < 6


def test_chance_is_splitmix() -> None:
    """The compiled generator equals one on Python's integers, and its numbers are even."""
    state = np.zeros(1, np.uint64)
    draws = []
    for seed in range(20):
        windows.begin(state, seed, 7 * seed)
        slow = Chance(seed, 7 * seed)
        for _ in range(100):
            draws.append(windows.chance(state))
            assert draws[-1] == slow.draw()
    assert np.histogram(draws, 10, (0, 1))[0] == pytest.approx(200, abs=60)  # 2,000 draws: 4 deviations of 13


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("trees", "depth", "lags"), [(5, 4, 3), (3, 6, 1)])
def test_half_space_trees_count_boxes(trees: int, depth: int, lags: int, seed: int) -> None:
    """`half_space_trees` equals its slow version, which counts readings in boxes one by one."""
    model = half_space_trees.HalfSpaceTrees(trees, depth, lags, 100, seed, 40)
    agree(model, lambda: SlowHalfSpace(trees, depth, lags, 100, 20, seed), readings(seed))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("subsample", "lags"), [(32, 3), (100, 1)])
def test_an_isolation_forest_is_nested_cuts(subsample: int, lags: int, seed: int) -> None:
    """`isolation_forest` equals its slow version, trees of depth 5 and 7 as nested tuples, grown anew in turn."""
    model = isolation_forest.IsolationForest(4, subsample, lags, 128, 64, seed, 40)
    agree(model, lambda: SlowIsolation(4, subsample, lags, 128, 64, 20, seed), readings(seed, 300))
