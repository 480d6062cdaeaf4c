"""The models of random boxes, trees and directions against slow versions, and what each promises of chance.

The slow versions build boxes and trees as nested tuples from the whole past of a series. Where a model rounds to
32 bits or to a grid, so do they, or a value on a cut would fall the other way.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from statistics import median

import numpy as np
import pytest

from tidewarden.models import band, half_space_trees, isolation_forest, loda, windows
from tidewarden.models.contract import Judgement
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


class SlowHistogram:
    """Counts by where a bin begins, in a dictionary."""

    def __init__(self, first: list[float], least_spread: float) -> None:
        middle = median(first)
        away = sorted(abs(v - middle) for v in first)
        kept = away[: max(1, 9 * len(away) // 10)]
        spread = max(1.2533 * sum(kept) / len(kept), least_spread)
        self.width = 12 * spread / loda.BINS
        self.low = middle - 0.5 * (loda.BINS + 1) * self.width
        self.counts = [0] * loda.BINS

    def bin_of(self, v: float) -> int | None:
        b = (v - self.low) / self.width
        return int(b) if 0 <= b < loda.BINS else None

    def nats(self, v: float, mass: float) -> float:
        b, c, beyond = self.bin_of(v), 0.0, 0
        if b is None:
            width, low = self.width, self.low
            while not low <= v < low + loda.BINS * width:  # how often the width would have to double
                low -= loda.BINS * width if v < low else 0.0
                width *= 2
                beyond += 1
        else:
            near = [self.counts[max(b - 1, 0)], self.counts[min(b + 1, loda.BINS - 1)]]
            c = 0.5 * self.counts[b] + 0.25 * sum(near)
        density = (c + loda.PSEUDO) / (mass * loda.UNIT + loda.BINS * loda.PSEUDO) / self.width
        return -math.log(density) + beyond * math.log(2)

    def widen(self, v: float) -> None:
        pairs = [a + b for a, b in zip(self.counts[::2], self.counts[1::2], strict=True)]
        empty = [0] * (loda.BINS // 2)
        self.counts = empty + pairs if v < self.low else pairs + empty
        self.low -= loda.BINS * self.width if v < self.low else 0.0
        self.width *= 2


class SlowLoda:
    """Histograms of mixtures of the last readings, shorter than it takes until counts are halved."""

    def __init__(self, projections: int, lags: int, first: int, seed: int) -> None:
        picks, weights = loda.directions(seed, projections, lags)
        self.mixtures = [list(zip(p, w, strict=True)) for p, w in zip(picks.tolist(), weights.tolist(), strict=True)]
        self.lags, self.first = lags, first
        self.histograms: list[SlowHistogram] = []
        self.mass = self.outside = 0.0
        self.band = SlowBand()

    def mixed(self, window: list[float]) -> list[float]:
        parts = [[w * window[lag] for lag, w in mixture] for mixture in self.mixtures]
        return [a + (b + c) for a, b, c in parts]

    def begin(self, past: list[float]) -> None:
        grid = sorted(past)
        steps = [b - a for a, b in pairwise(grid) if b > a]
        spread = 0.25 * min(steps) if steps else 1e-3 * abs(grid[0]) + 1e-9
        seen = [self.mixed(past[i - self.lags + 1 : i + 1][::-1]) for i in range(self.lags - 1, len(past))]
        self.histograms = [SlowHistogram(list(column), spread) for column in zip(*seen, strict=True)]
        for places in seen:
            self.learn(places)

    def learn(self, places: list[float]) -> None:
        pairs = list(zip(self.histograms, places, strict=True))
        inside = [(h, h.bin_of(v)) for h, v in pairs]
        for h, b in inside:
            if b is not None:
                h.counts[b] += loda.UNIT
        newest_inside = inside[0][1] is not None
        self.outside = max(self.outside - 1 / loda.LEAK, 0.0) if newest_inside else self.outside + 1
        if self.outside > loda.OFTEN:
            self.outside = min(self.outside, 2 * loda.OFTEN)
            for (h, v), (_, b) in zip(pairs, inside, strict=True):
                if b is None:
                    h.widen(v)
        self.mass += 1

    def see(self, time_ms: int, x: float, learn: bool) -> Said:
        said, past = NOTHING, self.band.past
        places: list[float] = []
        if self.histograms:
            places = self.mixed([x, *past[: -self.lags : -1]])
            nats = [h.nats(v, self.mass) for h, v in zip(self.histograms, places, strict=True)]
            said = self.band.said(sum(nats) / len(nats))
        if learn:
            if places:
                self.learn(places)
            self.band.learn(x)
            if len(past) == self.first:
                self.begin(past)
        return said


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("projections", "lags"), [(1, 1), (6, 2), (70, 8)])
def test_loda_is_histograms_of_mixtures(projections: int, lags: int, seed: int) -> None:
    """`loda` equals its slow version, with fewer and with more histograms than share a logarithm."""
    model = loda.Loda(projections, lags, seed, 60)
    agree(model, lambda: SlowLoda(projections, lags, 30, seed), readings(seed, 300))


def test_loda_fades_and_closes_in() -> None:
    """After a shift for good, counts of the old level fade, and histograms close in on the new one."""
    rng = np.random.default_rng(0)
    value = np.concatenate([rng.normal(0, 1, 3000), rng.normal(500, 1, 60_000)])
    model = loda.Loda(1, 1, 0, 60)
    model.resize(1)
    out = Judgement.blank(len(value))
    model.observe(np.zeros(len(value), np.int32), np.arange(len(value)), value, np.ones(len(value), bool), out)
    state = model.snapshot()
    low, width = state["edge"][0, 0]
    assert 400 < low < 500 < low + loda.BINS * width < 600  # it had to widen to more than 500
    assert state["hist"].sum() == pytest.approx(loda.UNIT * state["stat"][0, loda.MASS], rel=0.02)
    # What it keeps of all widths together is their sum, or densities before and after could not be compared.
    assert state["stat"][0, loda.LOG_WIDTHS] == pytest.approx(math.log(width))


def test_loda_is_deaf_to_single_outliers() -> None:
    """An outlier in 80 readings, however far, changes nothing of what is said of ordinary ones."""
    rng = np.random.default_rng(0)
    value = rng.normal(0, 1, 4000)
    wild = np.arange(200, 4000, 80)
    spoilt = value.copy()
    spoilt[wild] = 1e9
    said = []
    for values in (value, spoilt):
        model = loda.Loda(1, 1, 0, 60)
        model.resize(1)
        out = Judgement.blank(4000)
        model.observe(np.zeros(4000, np.int32), np.arange(4000), values, np.ones(4000, bool), out)
        said.append(out.surprise)
    ordinary = np.setdiff1d(np.arange(200, 4000), wild)
    np.testing.assert_allclose(said[0][ordinary], said[1][ordinary], atol=0.05)
    assert said[1][wild].min() > said[1][ordinary].max()


def test_an_isolation_forest_is_as_deep_as_scikit_learns() -> None:
    """On the same windows, mean depths agree with those of scikit-learn's forest: in level, and point by point."""
    ensemble = pytest.importorskip("sklearn.ensemble", reason="scikit-learn is not installed (extra bench)")
    rng = np.random.default_rng(0)
    value = np.concatenate([rng.normal(0, 1, 600), rng.normal(6, 0.5, 30)])[rng.permutation(630)]
    model = isolation_forest.IsolationForest(200, 256, 1, 630, 512, 0, 60)
    model.resize(1)
    model.observe(np.zeros(630, np.int32), np.arange(630), value, np.ones(630, bool), Judgement.blank(630))
    # All trees anew, from all readings: two rounds of readings that are judged but come from the same distribution.
    asked = np.linspace(-3.5, 8, 60)
    out = Judgement.blank(60)
    again = np.random.default_rng(1).choice(value, 1100)
    model.observe(np.zeros(1100, np.int32), np.arange(1100), again, np.ones(1100, bool), Judgement.blank(1100))
    model.observe(np.zeros(60, np.int32), np.arange(60), asked, np.zeros(60, bool), out)
    row = model.snapshot()["band"][0]
    ours = -np.array([s - band.beyond(row, x) for s, x in zip(out.surprise, asked, strict=True)]) / math.log(2)
    theirs = ensemble.IsolationForest(n_estimators=200, max_samples=256, random_state=0).fit(again[-630:, None])
    depth = -np.log2(-theirs.score_samples(asked[:, None])) * isolation_forest.further_depth(256)
    assert np.corrcoef(ours, depth)[0, 1] > 0.98
    assert np.abs(ours - depth).mean() < 0.5
